"""A container's counters from its cgroup, as containerd's Metrics messages (v1 and v2 differ)."""

import os
from collections.abc import Iterator, Mapping

from engine.api.pb import cgroups_v1_pb2 as v1
from engine.api.pb import cgroups_v2_pb2 as v2

_UNLIMITED = (1 << 64) - 1
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
#: The kernel's name in memory.stat → protobuf's, where they differ (v1).
_V1_NAMES = {
    "pgpgin": "pg_pg_in",
    "pgpgout": "pg_pg_out",
    "pgfault": "pg_fault",
    "pgmajfault": "pg_maj_fault",
    "hierarchical_memsw_limit": "hierarchical_swap_limit",
}
_V1_MEMORY = frozenset(field.name for field in v1.MemoryStat.DESCRIPTOR.fields if field.message_type is None)
_V2_MEMORY = frozenset(field.name for field in v2.MemoryStat.DESCRIPTOR.fields if field.message_type is None)
_V1_BLKIO = (
    ("io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"),
    ("io_serviced_recursive", "blkio.throttle.io_serviced_recursive"),
)


def _read(directory: str | None, name: str) -> str:
    """A file's text; "" for a missing controller or file."""
    if directory is None:
        return ""
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 1 << 16).decode()
    except OSError:
        return ""  # ENODEV: the cgroup was removed after the file was opened
    finally:
        os.close(fd)


def _number(directory: str | None, name: str, default: int = 0) -> int:
    text = _read(directory, name).strip()
    if text == "max":
        return _UNLIMITED
    return int(text) if text.isdecimal() else default


def _pairs(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdecimal():
            yield name, int(value)


def _limit_or_none(value: int) -> int:
    """pids.max: "max" is reported as no limit."""
    return 0 if value == _UNLIMITED else value


def measure_v1(directories: Mapping[str, str]) -> v1.Metrics:
    """``directories``: controller → the container's directory (``engine.common.system.cgroups.directories``)."""
    metrics = v1.Metrics()
    _cpu_v1(metrics, directories.get("cpuacct"), directories.get("cpu"))
    _memory_v1(metrics, directories.get("memory"))
    if (pids := directories.get("pids")) is not None:
        metrics.pids.current = _number(pids, "pids.current")
        metrics.pids.limit = _limit_or_none(_number(pids, "pids.max"))
    for field, file in _V1_BLKIO:
        entries = getattr(metrics.blkio, field)
        for line in _read(directories.get("blkio"), file).splitlines():
            words = line.split()
            if len(words) == 3 and ":" in words[0]:
                major, _, minor = words[0].partition(":")
                entries.add(op=words[1], major=int(major), minor=int(minor), value=int(words[2]))
    return metrics


def _cpu_v1(metrics: v1.Metrics, cpuacct: str | None, cpu: str | None) -> None:
    usage = metrics.cpu.usage
    usage.total = _number(cpuacct, "cpuacct.usage")
    usage.per_cpu.extend(int(word) for word in _read(cpuacct, "cpuacct.usage_percpu").split())
    times = dict(_pairs(_read(cpuacct, "cpuacct.stat")))
    usage.user = times.get("user", 0) * _TICK_NS
    usage.kernel = times.get("system", 0) * _TICK_NS
    throttled = dict(_pairs(_read(cpu, "cpu.stat")))
    metrics.cpu.throttling.periods = throttled.get("nr_periods", 0)
    metrics.cpu.throttling.throttled_periods = throttled.get("nr_throttled", 0)
    metrics.cpu.throttling.throttled_time = throttled.get("throttled_time", 0)


def _memory_v1(metrics: v1.Metrics, directory: str | None) -> None:
    if directory is None:
        return
    memory = metrics.memory
    for name, value in _pairs(_read(directory, "memory.stat")):
        field = _V1_NAMES.get(name, name)
        if name.startswith("total_"):
            field = "total_" + _V1_NAMES.get(name[6:], name[6:])
        if field in _V1_MEMORY:
            setattr(memory, field, value)
    for entry, prefix in ((memory.usage, "memory"), (memory.swap, "memory.memsw")):
        entry.limit = _number(directory, f"{prefix}.limit_in_bytes")
        entry.usage = _number(directory, f"{prefix}.usage_in_bytes")
        entry.max = _number(directory, f"{prefix}.max_usage_in_bytes")
        entry.failcnt = _number(directory, f"{prefix}.failcnt")
    control = dict(_pairs(_read(directory, "memory.oom_control")))
    metrics.memory_oom_control.oom_kill_disable = control.get("oom_kill_disable", 0)
    metrics.memory_oom_control.under_oom = control.get("under_oom", 0)
    metrics.memory_oom_control.oom_kill = control.get("oom_kill", 0)


def measure_v2(directory: str) -> v2.Metrics:
    """``directory``: the container's directory in the unified tree."""
    metrics = v2.Metrics()
    metrics.pids.current = _number(directory, "pids.current")
    metrics.pids.limit = _limit_or_none(_number(directory, "pids.max"))
    for name, value in _pairs(_read(directory, "cpu.stat")):
        if name in ("usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec"):
            setattr(metrics.cpu, name, value)
    memory = metrics.memory
    found = dict(_pairs(_read(directory, "memory.stat")))
    for name, value in found.items():
        if name in _V2_MEMORY:
            setattr(memory, name, value)
    # Newer kernels have separate counters for anonymous and file pages.
    for name in ("workingset_refault", "workingset_activate"):
        if name not in found:
            setattr(memory, name, found.get(f"{name}_anon", 0) + found.get(f"{name}_file", 0))
    memory.usage = _number(directory, "memory.current")
    memory.usage_limit = _number(directory, "memory.max", _UNLIMITED)
    memory.max_usage = _number(directory, "memory.peak")
    memory.swap_usage = _number(directory, "memory.swap.current")
    memory.swap_limit = _number(directory, "memory.swap.max")
    memory.swap_max_usage = _number(directory, "memory.swap.peak")
    for name, value in _pairs(_read(directory, "memory.events")):
        if name in ("low", "high", "max", "oom", "oom_kill"):
            setattr(metrics.memory_events, name, value)
    for line in _read(directory, "io.stat").splitlines():
        device, *counters = line.split()
        major, _, minor = device.partition(":")
        values = dict(counter.split("=", 1) for counter in counters if "=" in counter)
        if major.isdecimal() and minor.isdecimal():
            metrics.io.usage.add(
                major=int(major),
                minor=int(minor),
                **{name: int(values.get(name, 0)) for name in ("rbytes", "wbytes", "rios", "wios")},
            )
    return metrics


def measure(directories: Mapping[str, str], *, unified: bool) -> v1.Metrics | v2.Metrics:
    """Samples a cgroup, given by ``engine.common.system.cgroups.directories``; zeros if it was removed. Blocks on the
    kernel only."""
    return measure_v2(directories[""]) if unified else measure_v1(directories)
