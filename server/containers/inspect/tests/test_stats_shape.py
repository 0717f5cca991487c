"""Statistics records from metrics of cgroup v1 and v2, of which a host has only one."""

from engine.api.pb import cgroups_v1_pb2, cgroups_v2_pb2
from engine.api.types import AnyValue
from server.containers.inspect.stats_shape import EMPTY, HostSample, host_cpu, network_counters, record, sample

HOST = HostSample(system_ns=5_000_000_000, online_cpus=4, memory=8 << 30)


def test_metrics_of_cgroup_v2() -> None:
    metrics = cgroups_v2_pb2.Metrics(
        pids=cgroups_v2_pb2.PidsStat(current=3, limit=100),
        cpu=cgroups_v2_pb2.CPUStat(usage_usec=30, user_usec=20, system_usec=10, nr_periods=7, throttled_usec=2),
        memory=cgroups_v2_pb2.MemoryStat(usage=4096, usage_limit=(1 << 64) - 1, anon=1024, inactive_file=512),
        io=cgroups_v2_pb2.IOStat(usage=[cgroups_v2_pb2.IOEntry(major=8, minor=1, rbytes=10, wbytes=20)]),
    )
    data = AnyValue("type.googleapis.com/io.containerd.cgroups.v2.Metrics", metrics.SerializeToString())
    found = record("name", "id", sample("2026-01-01T00:00:00Z", data, HOST, {"eth0": {"rx_bytes": 1}}))
    assert list(found) == [
        *("os_type", "read", "preread", "pids_stats", "blkio_stats", "num_procs", "storage_stats", "cpu_stats"),
        *("precpu_stats", "memory_stats", "name", "id", "networks"),
    ]
    assert found["name"] == "/name"
    assert found["pids_stats"] == {"current": 3, "limit": 100}
    assert found["cpu_stats"] == {
        # No percpu_usage: cgroup v2 doesn't count it.
        "cpu_usage": {"total_usage": 30_000, "usage_in_kernelmode": 10_000, "usage_in_usermode": 20_000},
        "system_cpu_usage": 5_000_000_000,
        "online_cpus": 4,
        "throttling_data": {"periods": 7, "throttled_periods": 0, "throttled_time": 2000},
    }
    memory = found["memory_stats"]
    assert (memory["usage"], memory["limit"]) == (4096, 8 << 30)
    assert set(memory) == {"usage", "stats", "limit"}
    assert (memory["stats"]["anon"], memory["stats"]["inactive_file"], memory["stats"]["file"]) == (1024, 512, 0)
    assert found["blkio_stats"]["io_service_bytes_recursive"] == [
        {"major": 8, "minor": 1, "op": "read", "value": 10},
        {"major": 8, "minor": 1, "op": "write", "value": 20},
    ]
    assert found["blkio_stats"]["io_serviced_recursive"] is None


def test_metrics_of_cgroup_v1() -> None:
    metrics = cgroups_v1_pb2.Metrics(
        cpu=cgroups_v1_pb2.CPUStat(usage=cgroups_v1_pb2.CPUUsage(total=30, kernel=10, user=20, per_cpu=[10, 20])),
        memory=cgroups_v1_pb2.MemoryStat(
            usage=cgroups_v1_pb2.MemoryEntry(usage=4096, max=8192, limit=1 << 20, failcnt=2), cache=77, pg_pg_in=5
        ),
    )
    data = AnyValue("type.googleapis.com/io.containerd.cgroups.v1.Metrics", metrics.SerializeToString())
    before = sample("2026-01-01T00:00:00Z", data, HOST, None)
    found = record("name", "id", before, before)
    assert found["preread"] == found["read"]
    assert found["precpu_stats"] == found["cpu_stats"]
    assert found["cpu_stats"]["cpu_usage"]["percpu_usage"] == [10, 20]
    memory = found["memory_stats"]
    assert (memory["usage"], memory["max_usage"], memory["failcnt"], memory["limit"]) == (4096, 8192, 2, 1 << 20)
    assert (memory["stats"]["cache"], memory["stats"]["pgpgin"], memory["stats"]["total_pgpgin"]) == (77, 5, 0)
    assert "networks" not in found


def test_empty_record_of_a_stopped_container() -> None:
    found = record("name", "id", EMPTY)
    assert found["read"] == found["preread"] == "0001-01-01T00:00:00Z"
    assert found["memory_stats"] == {}
    assert found["cpu_stats"]["cpu_usage"]["total_usage"] == 0


def test_counters_of_proc() -> None:
    text = "cpu  1 2 3 4 5 6 7 800 900 1000\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nintr 5\n"
    assert host_cpu(text, 100) == (28 * 10_000_000, 2)
    head = "Inter-|   Receive\n face |bytes\n"
    line = "  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n    lo: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n"
    assert network_counters(head + line) == {
        "eth0": {
            "rx_bytes": 1,
            "rx_packets": 2,
            "rx_errors": 3,
            "rx_dropped": 4,
            "tx_bytes": 5,
            "tx_packets": 6,
            "tx_errors": 7,
            "tx_dropped": 8,
        }
    }
