"""The checks of resource limits, in dockerd's order and sentences, for create and update.

A limit that this host's kernel can't enforce is reset, with a warning. An invalid value is refused.
"""

from dataclasses import replace
from typing import Any, TypeVar

from api_models.resources import Resources
from engine.common.errors import invalid
from server.containers.host.limits import HostLimits

_MIN_MEMORY = 6 * 1024 * 1024
_MAX_CPU = 8192

#: Resources, or a class that extends it: HostConfig, UpdateRequest.
R = TypeVar("R", bound=Resources)


def check_resources(res: R, host: HostLimits, *, update: bool = False) -> tuple[R, list[str]]:
    """Returns ``res`` without the limits that this host can't enforce, and the warnings.

    :raises WharfError: INVALID_ARGUMENT.
    """
    warnings: list[str] = []
    if res.memory_swappiness == -1:  # "not set" in the API
        res = replace(res, memory_swappiness=None)
    res = _memory(res, host, warnings, update=update)
    res = _oom_and_pids(res, host, warnings)
    res = _cpu(res, host, warnings)
    res = _cpuset(res, host, warnings)
    return _blkio(res, host, warnings), warnings


def _memory(res: R, host: HostLimits, warnings: list[str], *, update: bool) -> R:
    if res.memory != 0 and res.memory < _MIN_MEMORY:
        raise invalid("Minimum memory limit allowed is 6MB")
    if res.memory > 0 and not host.memory:
        warnings.append(
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded."
        )
        res = replace(res, memory=0, memory_swap=-1)
    if res.memory > 0 and res.memory_swap != -1 and not host.swap:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        res = replace(res, memory_swap=-1)
    if res.memory > 0 and 0 < res.memory_swap < res.memory:
        raise invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
    if res.memory == 0 and res.memory_swap > 0 and not update:
        raise invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
    if res.memory_swappiness is not None and not host.swappiness:
        warnings.append(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
            "Memory swappiness discarded."
        )
        res = replace(res, memory_swappiness=None)
    if res.memory_swappiness is not None and not 0 <= res.memory_swappiness <= 100:
        raise invalid(f"Invalid value: {res.memory_swappiness}, valid memory swappiness range is 0-100")
    if res.memory_reservation > 0 and not host.reservation:
        warnings.append(
            "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. "
            "Limitation discarded."
        )
        res = replace(res, memory_reservation=0)
    if 0 < res.memory_reservation < _MIN_MEMORY:
        raise invalid("Minimum memory reservation allowed is 6MB")
    if res.memory > 0 and res.memory_reservation > res.memory:
        raise invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
    if res.kernel_memory > 0:
        # Only clients below API 1.42 can send it. Current kernels don't enforce it.
        warnings.append(
            "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. "
            "Limitation discarded."
        )
        res = replace(res, kernel_memory=0)
    if res.kernel_memory_tcp > 0:
        # dockerd gives no warning, and runc ignores the limit.
        warnings.append(
            "Your kernel does not support kernel memory TCP limit capabilities or the cgroup is not mounted. "
            "Limitation discarded."
        )
        res = replace(res, kernel_memory_tcp=0)
    return res


def _oom_and_pids(res: R, host: HostLimits, warnings: list[str]) -> R:
    if res.oom_kill_disable is not None and not host.oom_kill_disable:
        if res.oom_kill_disable:
            warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        res = replace(res, oom_kill_disable=None)
    if res.oom_kill_disable and res.memory == 0:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    if res.pids_limit is not None and not host.pids:
        if res.pids_limit > 0:
            warnings.append(
                "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. "
                "PIDs limit discarded."
            )
        res = replace(res, pids_limit=None)
    return res


def _cpu(res: R, host: HostLimits, warnings: list[str]) -> R:
    if res.nano_cpus > 0 and res.cpu_period > 0:
        raise invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if res.nano_cpus > 0 and res.cpu_quota > 0:
        raise invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if res.nano_cpus > 0 and not host.cpu_cfs:
        raise invalid(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted"
        )
    if res.nano_cpus < 0 or res.nano_cpus > host.ncpu * 10**9:
        raise invalid(f"range of CPUs is from 0.01 to {host.ncpu}.00, as there are only {host.ncpu} CPUs available")
    if res.cpu_shares > 0 and not host.cpu_shares:
        warnings.append("Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.")
        res = replace(res, cpu_shares=0)
    if (res.cpu_period or res.cpu_quota) and not host.cpu_cfs:
        warnings.append("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")
        res = replace(res, cpu_period=0, cpu_quota=0)
    if res.cpu_period and not 1000 <= res.cpu_period <= 1000000:
        raise invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < res.cpu_quota < 1000:
        raise invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if res.cpu_percent > 0:
        warnings.append("linux does not support CPU percent. Percent discarded.")
        res = replace(res, cpu_percent=0)
    if res.cpu_count > 0:
        warnings.append("linux does not support CPU count. Count discarded.")
        res = replace(res, cpu_count=0)
    return res


def _cpuset(res: R, host: HostLimits, warnings: list[str]) -> R:
    if (res.cpuset_cpus or res.cpuset_mems) and not host.cpuset:
        warnings.append("Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.")
        res = replace(res, cpuset_cpus="", cpuset_mems="")
    for requested, available, kind, noun in (
        (res.cpuset_cpus, host.cpus, "cpus", "CPUs"),
        (res.cpuset_mems, host.mems, "mems", "memory nodes"),
    ):
        if not requested:
            continue
        available_ids = parse_list(available, 0)
        try:
            requested_ids = parse_list(requested, max([_MAX_CPU, *available_ids]))
        except ValueError as error:
            raise invalid(f"Invalid value {requested} for cpuset {kind}: {error}") from None
        if not requested_ids <= available_ids:
            raise invalid(f"Requested {noun} are not available - requested {requested}, available: {available}")
    return res


def parse_list(text: str, maximum: int) -> set[int]:
    """The numbers of a list such as ``0,3-5``. ``maximum``: the largest allowed number, 0: no bound.

    :raises ValueError: a malformed list or a larger number, in dockerd's words.
    """
    found: set[int] = set()
    for part in text.split(",") if text else ():
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise ValueError(f"invalid format: {text}")
        first, last = int(low), int(high if dash else low)
        if last < first:
            raise ValueError(f"invalid format: {text}")
        if maximum and last > maximum:
            raise ValueError(f"value of out range, maximum is {maximum}")
        found.update(range(first, last + 1))
    return found


def _blkio(res: R, host: HostLimits, warnings: list[str]) -> R:
    if res.blkio_weight > 0 and not host.blkio_weight:
        warnings.append("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.")
        res = replace(res, blkio_weight=0)
    if res.blkio_weight > 0 and not 10 <= res.blkio_weight <= 1000:
        raise invalid("Range of blkio weight is from 10 to 1000")
    if res.io_maximum_bandwidth or res.io_maximum_iops:
        raise invalid("Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps")
    if res.blkio_weight_device and not host.blkio_weight_device:
        warnings.append(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
            "Weight-device discarded."
        )
        res = replace(res, blkio_weight_device=())
    for attribute, can, first, second in (
        ("blkio_device_read_bps", host.blkio_read_bps, "BPS Block I/O read limit", "Block I/O BPS read limit"),
        ("blkio_device_write_bps", host.blkio_write_bps, "BPS Block I/O write limit", "Block I/O BPS write limit"),
        ("blkio_device_read_iops", host.blkio_read_iops, "IOPS Block read limit", "Block I/O IOPS read limit"),
        ("blkio_device_write_iops", host.blkio_write_iops, "IOPS Block write limit", "Block I/O IOPS write limit"),
    ):
        if getattr(res, attribute) and not can:
            warnings.append(f"Your kernel does not support {first} or the cgroup is not mounted. {second} discarded.")
            none: dict[str, Any] = {attribute: ()}
            res = replace(res, **none)
    return res
