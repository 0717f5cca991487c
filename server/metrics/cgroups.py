"""Reads the counters of containers' cgroups, v1 and v2, with as few system calls as possible. Blocks on the kernel."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from engine.common import limits
from engine.common.system.cgroups import CgroupLayout, container_directories

# The hierarchies that are read. "" is the unified tree.
_V1, _V2 = ("cpuacct", "cpu", "memory", "pids", "blkio"), ("",)
_TICKS = os.sysconf("SC_CLK_TCK")
# Bytes of one read: more than any file has but the list of processes.
_SIZE, _PROCESSES_SIZE = 1 << 14, 1 << 17


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """The bytes that a container has read from and written to a block device."""

    major: str
    minor: str
    read_bytes: int = 0
    written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """The counters of one cgroup. Memory is bytes.

    ``working_set``: without file pages that the kernel can drop at once. ``rss``: anonymous pages. ``periods``
    and ``throttled``: of the CPU quota.
    """

    cpu_seconds: float
    user_seconds: float = 0.0
    system_seconds: float = 0.0
    periods: int = 0
    throttled: int = 0
    throttled_seconds: float = 0.0
    memory: int = 0
    memory_peak: int = 0
    working_set: int = 0
    rss: int = 0
    cache: int = 0
    swap: int = 0
    oom_kills: int = 0
    threads: int = 0
    processes: int = 0
    devices: tuple[DeviceUsage, ...] = ()


class Cgroups:
    """The cgroups of one collection: the look-up of directories is remembered by their parents."""

    def __init__(self, layout: CgroupLayout) -> None:
        self._layout = layout
        self._names = _V2 if layout.v2 else _V1
        self._parents: dict[str, Mapping[str, str]] = {}

    def read(self, cgroup: str, *, quota: bool) -> Usage | None:
        """The counters of the cgroup with this path in every hierarchy; None: it doesn't exist (any more). ``quota``:
        read those of the CPU quota, too."""
        parent, _, name = cgroup.rpartition("/")
        places = self._parents.get(parent)
        if places is None:
            found = container_directories(self._layout, parent or "/")
            places = self._parents[parent] = {name: found[name] for name in self._names if name in found}
        if self._layout.v2:
            return _read_v2(f"{places['']}/{name}") if "" in places else None
        return _read_v1({key: f"{place}/{name}" for key, place in places.items()}, quota=quota)


def _read(path: str, size: int = _SIZE) -> bytes:
    """A file's content; nothing if it is missing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, size)
    except OSError:
        return b""  # ENODEV: the cgroup was removed after the file was opened
    finally:
        os.close(fd)


def _number(path: str) -> int:
    text = _read(path)
    return int(text) if text[:1].isdigit() else 0


def _pairs(path: str) -> dict[bytes, int]:
    """A file of lines with a name and a number."""
    words = _read(path).split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=False))


def _read_v2(place: str) -> Usage | None:
    cpu = _pairs(f"{place}/cpu.stat")
    if not cpu:
        return None
    memory = _pairs(f"{place}/memory.stat")
    usage = _number(f"{place}/memory.current")
    return Usage(
        cpu_seconds=cpu.get(b"usage_usec", 0) / 1e6,
        user_seconds=cpu.get(b"user_usec", 0) / 1e6,
        system_seconds=cpu.get(b"system_usec", 0) / 1e6,
        periods=cpu.get(b"nr_periods", 0),
        throttled=cpu.get(b"nr_throttled", 0),
        throttled_seconds=cpu.get(b"throttled_usec", 0) / 1e6,
        memory=usage,
        memory_peak=_number(f"{place}/memory.peak"),
        working_set=max(0, usage - memory.get(b"inactive_file", 0)),
        rss=memory.get(b"anon", 0),
        cache=memory.get(b"file", 0),
        swap=_number(f"{place}/memory.swap.current"),
        oom_kills=_pairs(f"{place}/memory.events").get(b"oom_kill", 0),
        threads=_number(f"{place}/pids.current"),
        processes=_read(f"{place}/cgroup.procs", _PROCESSES_SIZE).count(b"\n"),
        devices=_devices_v2(_read(f"{place}/io.stat")),
    )


def _devices_v2(text: bytes) -> tuple[DeviceUsage, ...]:
    found = []
    for line in text.splitlines()[: limits.METRICS_DEVICES]:
        device, *words = line.split()
        major, _, minor = device.decode().partition(":")
        values = dict(word.split(b"=", 1) for word in words if b"=" in word)
        if values:
            found.append(DeviceUsage(major, minor, int(values.get(b"rbytes", 0)), int(values.get(b"wbytes", 0))))
    return tuple(found)


def _read_v1(places: Mapping[str, str], *, quota: bool) -> Usage | None:
    cpuacct, pids = places.get("cpuacct", ""), places.get("pids", "")
    total = _read(f"{cpuacct}/cpuacct.usage")
    if not total:
        return None
    times = _pairs(f"{cpuacct}/cpuacct.stat")
    throttling = _pairs(f"{places['cpu']}/cpu.stat") if quota and "cpu" in places else {}
    memory: Mapping[bytes, int] = {}
    usage = peak = kills = 0
    if (place := places.get("memory")) is not None:
        memory = _pairs(f"{place}/memory.stat")
        usage = _number(f"{place}/memory.usage_in_bytes")
        peak = _number(f"{place}/memory.max_usage_in_bytes")
        kills = _pairs(f"{place}/memory.oom_control").get(b"oom_kill", 0)
    return Usage(
        cpu_seconds=int(total) / 1e9,
        user_seconds=times.get(b"user", 0) / _TICKS,
        system_seconds=times.get(b"system", 0) / _TICKS,
        periods=throttling.get(b"nr_periods", 0),
        throttled=throttling.get(b"nr_throttled", 0),
        throttled_seconds=throttling.get(b"throttled_time", 0) / 1e9,
        memory=usage,
        memory_peak=peak,
        working_set=max(0, usage - memory.get(b"total_inactive_file", 0)),
        rss=memory.get(b"total_rss", 0),
        cache=memory.get(b"total_cache", 0),
        swap=memory.get(b"total_swap", 0),
        oom_kills=kills,
        threads=_number(f"{pids}/pids.current"),
        processes=_read(f"{pids}/cgroup.procs", _PROCESSES_SIZE).count(b"\n"),
        devices=_devices_v1(places["blkio"]) if "blkio" in places else (),
    )


def _devices_v1(place: str) -> tuple[DeviceUsage, ...]:
    # Lines: "8:0 Read 4096", for each device one for each operation.
    found: dict[bytes, dict[bytes, int]] = {}
    for line in _read(f"{place}/blkio.throttle.io_service_bytes_recursive").splitlines():
        words = line.split()
        if len(words) == 3:
            found.setdefault(words[0], {})[words[1]] = int(words[2])
    devices = []
    for device, values in islice(found.items(), limits.METRICS_DEVICES):
        major, _, minor = device.decode().partition(":")
        devices.append(DeviceUsage(major, minor, values.get(b"Read", 0), values.get(b"Write", 0)))
    return tuple(devices)
