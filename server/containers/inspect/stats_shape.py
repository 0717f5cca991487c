"""The JSON form of a statistics record, from the engine's metrics of cgroup v1 or v2.

The keys and their order are dockerd's. Some objects lack their zero values (Go's ``omitempty``), others have them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.api.pb import cgroups_v1_pb2, cgroups_v2_pb2
from engine.api.types import AnyValue

Json = dict[str, Any]

_NEVER = "0001-01-01T00:00:00Z"
_NO_CPU: Json = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
_BLKIO = (
    ("io_service_bytes_recursive", "io_service_bytes_recursive"),
    ("io_serviced_recursive", "io_serviced_recursive"),
    ("io_queue_recursive", "io_queued_recursive"),
    ("io_service_time_recursive", "io_service_time_recursive"),
    ("io_wait_time_recursive", "io_wait_time_recursive"),
    ("io_merged_recursive", "io_merged_recursive"),
    ("io_time_recursive", "io_time_recursive"),
    ("sectors_recursive", "sectors_recursive"),
)
#: Name in the protobuf message → the kernel's name, where they differ.
_V1_NAMES = {"pg_pg_in": "pgpgin", "pg_pg_out": "pgpgout", "pg_fault": "pgfault", "pg_maj_fault": "pgmajfault"}
_V1_MEMORY = (
    *("cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback", "pg_pg_in", "pg_pg_out", "pg_fault"),
    *("pg_maj_fault", "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"),
)
_V2_MEMORY = (
    *("anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty", "file_writeback"),
    *("anon_thp", "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"),
    *("slab_reclaimable", "slab_unreclaimable", "pgfault", "pgmajfault", "workingset_refault"),
    *("workingset_activate", "workingset_nodereclaim", "pgrefill", "pgscan", "pgsteal", "pgactivate"),
    *("pgdeactivate", "pglazyfree", "pglazyfreed", "thp_fault_alloc", "thp_collapse_alloc"),
)


@dataclass(frozen=True, slots=True)
class HostSample:
    """``system_ns``: the CPU time of all CPUs of the host in ns. ``memory``: its bytes."""

    system_ns: int
    online_cpus: int
    memory: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The parts of a container's record that were sampled at one time. ``read``: the time in the API's form."""

    read: str
    pids: Json
    blkio: Json
    cpu: Json
    memory: Json
    networks: Mapping[str, Mapping[str, int]] | None


EMPTY = Sample(_NEVER, {}, {name: None for name, _ in _BLKIO}, _NO_CPU, {}, None)


def record(name: str, id: str, now: Sample, before: Sample = EMPTY) -> Json:
    """The record of ``now``, with the CPU counters of ``before`` in ``precpu_stats``: clients compute percentages from
    both."""
    found: Json = {
        "os_type": "linux",
        "read": now.read,
        "preread": before.read,
        "pids_stats": now.pids,
        "blkio_stats": now.blkio,
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": now.cpu,
        "precpu_stats": before.cpu,
        "memory_stats": now.memory,
        "name": "/" + name,
        "id": id,
    }
    if now.networks:
        found["networks"] = now.networks
    return found


def sample(read: str, data: AnyValue, host: HostSample, networks: Mapping[str, Mapping[str, int]] | None) -> Sample:
    """A sample from the engine's metrics.

    :raises ValueError: metrics of an unknown type.
    """
    if data.type_url.endswith("cgroups.v1.Metrics"):
        v1 = cgroups_v1_pb2.Metrics.FromString(data.value)
        return Sample(read, _pids(v1.pids), _blkio_v1(v1.blkio), _cpu_v1(v1.cpu, host), _memory_v1(v1, host), networks)
    if data.type_url.endswith("cgroups.v2.Metrics"):
        v2 = cgroups_v2_pb2.Metrics.FromString(data.value)
        return Sample(read, _pids(v2.pids), _blkio_v2(v2.io), _cpu_v2(v2.cpu, host), _memory_v2(v2, host), networks)
    raise ValueError(f"statistics of type {data.type_url}")


def _non_zero(pairs: Sequence[tuple[str, Any]]) -> Json:
    """The pairs with a value that is not zero or empty."""
    return {key: value for key, value in pairs if value}


_UNLIMITED = (1 << 64) - 1


def _pids(pids: cgroups_v1_pb2.PidsStat | cgroups_v2_pb2.PidsStat) -> Json:
    return _non_zero([("current", pids.current), ("limit", pids.limit)])


def _cpu(usage: Json, throttled: Sequence[int], host: HostSample) -> Json:
    periods, times, total = throttled
    return {
        "cpu_usage": usage,
        **_non_zero([("system_cpu_usage", host.system_ns), ("online_cpus", host.online_cpus)]),
        "throttling_data": {"periods": periods, "throttled_periods": times, "throttled_time": total},
    }


def _cpu_v1(cpu: cgroups_v1_pb2.CPUStat, host: HostSample) -> Json:
    usage = {
        "total_usage": cpu.usage.total,
        **_non_zero([("percpu_usage", list(cpu.usage.per_cpu))]),
        "usage_in_kernelmode": cpu.usage.kernel,
        "usage_in_usermode": cpu.usage.user,
    }
    throttled = cpu.throttling
    return _cpu(usage, (throttled.periods, throttled.throttled_periods, throttled.throttled_time), host)


def _cpu_v2(cpu: cgroups_v2_pb2.CPUStat, host: HostSample) -> Json:
    usage = {
        "total_usage": cpu.usage_usec * 1000,
        "usage_in_kernelmode": cpu.system_usec * 1000,
        "usage_in_usermode": cpu.user_usec * 1000,
    }
    return _cpu(usage, (cpu.nr_periods, cpu.nr_throttled, cpu.throttled_usec * 1000), host)


def _limit(limit: int, host: HostSample) -> int:
    """The limit, but at most the host's memory: clients compute percentages of it."""
    return min(limit, host.memory) if 0 < limit < _UNLIMITED else host.memory


def _memory_v1(metrics: cgroups_v1_pb2.Metrics, host: HostSample) -> Json:
    if not metrics.HasField("memory"):
        return {}
    memory = metrics.memory
    stats: Json = {}
    for name in _V1_MEMORY:
        kernel = _V1_NAMES.get(name, name)
        stats[kernel] = getattr(memory, name)
        stats["total_" + kernel] = getattr(memory, "total_" + name)
    stats["hierarchical_memory_limit"] = memory.hierarchical_memory_limit
    stats["hierarchical_memsw_limit"] = memory.hierarchical_swap_limit
    return _non_zero(
        [
            ("usage", memory.usage.usage),
            ("max_usage", memory.usage.max),
            ("stats", dict(sorted(stats.items()))),
            ("failcnt", memory.usage.failcnt),
            ("limit", _limit(memory.usage.limit, host)),
        ]
    )


def _memory_v2(metrics: cgroups_v2_pb2.Metrics, host: HostSample) -> Json:
    if not metrics.HasField("memory"):
        return {}
    memory = metrics.memory
    return _non_zero(
        [
            ("usage", memory.usage),
            ("stats", {name: getattr(memory, name) for name in sorted(_V2_MEMORY)}),
            ("failcnt", metrics.memory_events.oom),
            ("limit", _limit(memory.usage_limit, host)),
        ]
    )


def _blkio_v1(blkio: cgroups_v1_pb2.BlkIOStat) -> Json:
    return {
        name: [
            {"major": entry.major, "minor": entry.minor, "op": entry.op, "value": entry.value}
            for entry in getattr(blkio, field)
        ]
        for name, field in _BLKIO
    }


def _blkio_v2(io: cgroups_v2_pb2.IOStat) -> Json:
    found: Json = {name: None for name, _ in _BLKIO}
    entries = []
    for entry in io.usage:
        for op, value in (("read", entry.rbytes), ("write", entry.wbytes)):
            entries.append({"major": entry.major, "minor": entry.minor, "op": op, "value": value})
    if entries:
        found["io_service_bytes_recursive"] = entries
    return found


_NET_FIELDS = (
    ("rx_bytes", 0),
    ("rx_packets", 1),
    ("rx_errors", 2),
    ("rx_dropped", 3),
    ("tx_bytes", 8),
    ("tx_packets", 9),
    ("tx_errors", 10),
    ("tx_dropped", 11),
)


def network_counters(text: str) -> dict[str, dict[str, int]]:
    """The counters in ``/proc/<pid>/net/dev`` by interface, without the loopback interface."""
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = rest.split()
        if name.strip() != "lo" and len(numbers) >= 12:
            found[name.strip()] = {key: int(numbers[column]) for key, column in _NET_FIELDS}
    return found


def host_cpu(text: str, ticks_per_second: int) -> tuple[int, int]:
    """The CPU time of all CPUs in ns, and the number of online CPUs, from ``/proc/stat``."""
    total = cpus = 0
    for line in text.splitlines():
        if line.startswith("cpu "):
            total = sum(int(word) for word in line.split()[1:8]) * (1_000_000_000 // ticks_per_second)
        elif line.startswith("cpu"):
            cpus += 1
    return total, cpus
