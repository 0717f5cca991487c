"""``linux.resources`` from Docker's limits, for a new container and for ``docker update``."""

import os
from collections.abc import Sequence

from engine.common.errors import internal
from server.containers.spec.host import SYSTEMD, HostFacts
from server.containers.spec.input import Resources, ThrottleDevice, WeightDevice

Json = dict[str, object]

CFS_PERIOD = 100_000
_MIN_SHARES, _MAX_SHARES = 2, 262_144


def _device_numbers(path: str) -> tuple[int, int]:
    try:
        info = os.stat(path)
    except OSError as error:
        raise internal((error.strerror or str(error)).lower()) from None
    return os.major(info.st_rdev), os.minor(info.st_rdev)


def _throttled(devices: Sequence[ThrottleDevice]) -> list[Json]:
    found: list[Json] = []
    for device in devices:
        major, minor = _device_numbers(device.path)
        found.append({"major": major, "minor": minor, "rate": device.rate})
    return found


def _weighted(devices: Sequence[WeightDevice]) -> list[Json]:
    found: list[Json] = []
    for device in devices:
        major, minor = _device_numbers(device.path)
        found.append({"major": major, "minor": minor, "weight": device.weight})
    return found


def memory(limits: Resources, *, v2: bool) -> Json:
    """What v2 doesn't know (swappiness, switching the OOM killer off) isn't passed on: create warned of it."""
    found: Json = {}
    if limits.memory > 0:
        found["limit"] = limits.memory
    if limits.memory_reservation > 0:
        found["reservation"] = limits.memory_reservation
    if limits.memory_swap != 0:
        found["swap"] = limits.memory_swap
    if not v2:
        if limits.memory_swappiness is not None and limits.memory_swappiness >= 0:
            found["swappiness"] = limits.memory_swappiness
        if limits.oom_kill_disable:
            found["disableOOMKiller"] = True
        if limits.kernel_memory_tcp > 0:
            found["kernelTCP"] = limits.kernel_memory_tcp
    return found


def cpu(limits: Resources, *, v2: bool) -> Json:
    """``--cpus`` becomes a quota of Docker's period of 100 ms.

    :raises WharfError: INTERNAL for shares that the kernel would silently replace, as runc does.
    """
    found: Json = {}
    if limits.cpu_shares != 0:
        if limits.cpu_shares < _MIN_SHARES:
            raise internal(f"the minimum allowed cpu-shares is {_MIN_SHARES}")
        if limits.cpu_shares > _MAX_SHARES:
            raise internal(f"the maximum allowed cpu-shares is {_MAX_SHARES}")
        found["shares"] = limits.cpu_shares
    if limits.nano_cpus > 0:
        found["period"] = CFS_PERIOD
        found["quota"] = limits.nano_cpus * CFS_PERIOD // 1_000_000_000
    if limits.cpu_period != 0:
        found["period"] = limits.cpu_period
    if limits.cpu_quota != 0:
        found["quota"] = limits.cpu_quota
    if not v2:
        if limits.cpu_realtime_period != 0:
            found["realtimePeriod"] = limits.cpu_realtime_period
        if limits.cpu_realtime_runtime != 0:
            found["realtimeRuntime"] = limits.cpu_realtime_runtime
    if limits.cpuset_cpus:
        found["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        found["mems"] = limits.cpuset_mems
    return found


def block_io(limits: Resources) -> Json:
    found: Json = {}
    if limits.blkio_weight:
        found["weight"] = limits.blkio_weight
    if limits.blkio_weight_device:
        found["weightDevice"] = _weighted(limits.blkio_weight_device)
    for name, devices in (
        ("throttleReadBpsDevice", limits.blkio_device_read_bps),
        ("throttleWriteBpsDevice", limits.blkio_device_write_bps),
        ("throttleReadIOPSDevice", limits.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", limits.blkio_device_write_iops),
    ):
        if devices:
            found[name] = _throttled(devices)
    return found


def _swap_alone(given: Json) -> Json:
    """Takes the limit of memory and swap together out of ``given``, and returns it in v2's terms.

    crun tells systemd the sum as ``MemorySwapMax``, which comes into force as soon as systemd looks at the scope again.
    """
    swap, limit = given.get("swap"), given.get("limit")
    if swap == -1:
        found = "max"
    elif isinstance(swap, int) and isinstance(limit, int):
        found = str(swap - limit)
    else:
        return {}  # an update of it alone: the runtime's error is dockerd's
    del given["swap"]
    return {"memory.swap.max": found}


def build(limits: Resources, host: HostFacts) -> Json:
    """Everything but the device rules.

    :raises WharfError: INTERNAL if a throttled device isn't there.
    """
    limits_of_memory = memory(limits, v2=host.cgroup_v2)
    by_systemd = host.cgroup_v2 and host.cgroup_driver == SYSTEMD
    found: Json = {}
    for name, part in (
        ("unified", _swap_alone(limits_of_memory) if by_systemd else {}),
        ("memory", limits_of_memory),
        ("cpu", cpu(limits, v2=host.cgroup_v2)),
        ("blockIO", block_io(limits)),
    ):
        if part:
            found[name] = part
    if limits.pids_limit is not None and limits.pids_limit != 0:
        found["pids"] = {"limit": limits.pids_limit if limits.pids_limit > 0 else -1}
    return found
