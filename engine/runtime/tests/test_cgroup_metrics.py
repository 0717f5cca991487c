"""Counters from cgroup files."""

from pathlib import Path

from engine.runtime.cgroup_metrics import measure


def write(directory: Path, **files: str) -> str:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return str(directory)


def test_v1(tmp_path: Path) -> None:
    cpu = write(
        tmp_path / "cpu",
        cpuacct__usage="3000\n",
        cpuacct__usage_percpu="1000 2000 \n",
        cpuacct__stat="user 7\nsystem 5\n",
        cpu__stat="nr_periods 4\nnr_throttled 2\nthrottled_time 9\n",
    )
    memory = write(
        tmp_path / "memory",
        memory__stat="cache 1\npgpgin 2\npgfault 3\nhierarchical_memory_limit 100\ntotal_pgmajfault 4\nodd 9\n",
        memory__usage_in_bytes="50\n",
        memory__limit_in_bytes="100\n",
        memory__failcnt="6\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    )
    pids = write(tmp_path / "pids", pids__current="3\n", pids__max="max\n")
    lines = "254:0 Read 10\n254:0 Write 20\nTotal 30\n"
    blkio = write(tmp_path / "blkio", blkio__throttle__io_service_bytes_recursive=lines)
    found = measure({"cpu": cpu, "cpuacct": cpu, "memory": memory, "pids": pids, "blkio": blkio}, unified=False)
    assert found.DESCRIPTOR.full_name == "io.containerd.cgroups.v1.Metrics"
    text = str(found)
    for line in ("total: 3000", "per_cpu: 2000", "user: 70000000", "throttled_periods: 2", "throttled_time: 9"):
        assert line in text
    for line in ("cache: 1", "pg_pg_in: 2", "pg_fault: 3", "total_pg_maj_fault: 4", "failcnt: 6", "oom_kill: 1"):
        assert line in text
    assert found.pids.current == 3
    assert found.pids.limit == 0
    assert text.count("io_service_bytes_recursive") == 2


def test_v2_and_a_removed_cgroup(tmp_path: Path) -> None:
    place = write(
        tmp_path / "v2",
        pids__current="2\n",
        pids__max="100\n",
        cpu__stat="usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 1\n",
        memory__stat="anon 1\nfile 2\nworkingset_refault_anon 3\nworkingset_refault_file 4\n",
        memory__current="10\n",
        memory__max="max\n",
        memory__events="low 0\noom 1\n",
        io__stat="254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:1 \n",
    )
    found = measure({"": place}, unified=True)
    text = str(found)
    for line in ("usage_usec: 5", "anon: 1", "workingset_refault: 7", "usage: 10", "oom: 1", "wbytes: 2"):
        assert line in text
    assert found.pids.limit == 100
    assert "usage_limit: 18446744073709551615" in text
    assert measure({"": str(tmp_path / "gone")}, unified=True).pids.current == 0
