"""The parts of ``linux.resources`` that need a conversion from Docker's limits. ``simple`` writes the others."""

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
    """:raises WharfError: INTERNAL, as with runc: shares that the kernel would silently replace by its bounds."""
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


def _take_swap(memory: Json) -> Json:
    """Removes ``swap``, the limit of memory plus swap, from ``memory``; returns cgroup v2's limit of swap alone.

    crun sets systemd's ``MemorySwapMax``, which is swap alone, to the sum: systemd applies it at its next change of the
    scope. Through ``unified`` the correct limit is written.
    """
    swap, limit = memory.get("swap"), memory.get("limit")
    if swap == -1:
        found = "max"
    elif isinstance(swap, int) and isinstance(limit, int):
        found = str(swap - limit)
    else:
        return {}  # an update of swap without memory: the runtime's error is the same as with dockerd
    del memory["swap"]
    return {"memory.swap.max": found}


def complete(resources: Json, limits: Resources, host: HostFacts) -> None:
    """Adds the limits that ``simple`` doesn't write, except device rules, to ``linux.resources``.

    :raises WharfError: INTERNAL: CPU shares out of range, or a throttled device doesn't exist.
    """
    _check_shares(limits.cpu_shares)
    if limits.nano_cpus > 0:
        # --cpus as a quota of Docker's period of 100 ms.
        cpu = section(resources, "cpu")
        cpu.setdefault("period", CFS_PERIOD)
        cpu.setdefault("quota", limits.nano_cpus * CFS_PERIOD // 1_000_000_000)
    if devices := _devices(limits):
        section(resources, "blockIO").update(devices)
    if limits.pids_limit is not None and limits.pids_limit != 0:
        resources["pids"] = {"limit": limits.pids_limit if limits.pids_limit > 0 else -1}
    memory = resources.get("memory")
    if host.cgroup_v2 and host.cgroup_driver == SYSTEMD and isinstance(memory, dict):
        if swap := _take_swap(memory):
            resources["unified"] = swap
        if not memory:
            del resources["memory"]


def build(limits: Resources, host: HostFacts) -> Json:
    """``linux.resources`` without device rules, for ``docker update``.

    :raises WharfError: as :func:`complete`.
    """
    spec: Json = {}
    simple.write(spec, limits, cgroup_v2=host.cgroup_v2)
    resources = section(section(spec, "linux"), "resources")
    complete(resources, limits, host)
    return resources
