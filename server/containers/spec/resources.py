"""What ``linux.resources`` has in another form than Docker's limits; the rest is written by ``simple``."""

import os
from collections.abc import Sequence

from api_models.resources import Resources, ThrottleDevice, WeightDevice
from engine.common.errors import internal
from server.containers.spec import simple
from server.containers.spec.host import SYSTEMD, HostFacts
from server.containers.spec.simple import Json, section

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


def _check_shares(shares: int) -> None:
    """
    :raises WharfError: INTERNAL for shares that the kernel would silently replace, as runc does.
    """
    if shares != 0:
        if shares < _MIN_SHARES:
            raise internal(f"the minimum allowed cpu-shares is {_MIN_SHARES}")
        if shares > _MAX_SHARES:
            raise internal(f"the maximum allowed cpu-shares is {_MAX_SHARES}")


def _devices(limits: Resources) -> Json:
    found: Json = {}
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


def complete(resources: Json, limits: Resources, host: HostFacts) -> None:
    """Adds to ``linux.resources``, which has the limits that ``simple`` writes, the others but the device rules.

    :raises WharfError: INTERNAL for a number of shares out of range, and if a throttled device isn't there.
    """
    _check_shares(limits.cpu_shares)
    if limits.nano_cpus > 0:
        # ``--cpus`` becomes a quota of Docker's period of 100 ms.
        cpu = section(resources, "cpu")
        cpu.setdefault("period", CFS_PERIOD)
        cpu.setdefault("quota", limits.nano_cpus * CFS_PERIOD // 1_000_000_000)
    if devices := _devices(limits):
        section(resources, "blockIO").update(devices)
    if limits.pids_limit is not None and limits.pids_limit != 0:
        resources["pids"] = {"limit": limits.pids_limit if limits.pids_limit > 0 else -1}
    memory = resources.get("memory")
    if host.cgroup_v2 and host.cgroup_driver == SYSTEMD and isinstance(memory, dict):
        if swap := _swap_alone(memory):
            resources["unified"] = swap
        if not memory:
            del resources["memory"]


def build(limits: Resources, host: HostFacts) -> Json:
    """``linux.resources`` of limits alone, for ``docker update``.

    :raises WharfError: as :func:`complete`.
    """
    spec: Json = {}
    simple.write(spec, limits, cgroup_v2=host.cgroup_v2)
    resources = section(section(spec, "linux"), "resources")
    complete(resources, limits, host)
    return resources
