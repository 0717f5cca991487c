"""Trees of cgroups in a folder, as the kernel shows those of running containers."""

from collections.abc import Mapping
from pathlib import Path

from engine.common.system.cgroups import CgroupLayout

#: What nothing reads, so that the files have their usual length.
_OTHER = "".join(f"counter_{number} {number}\n" for number in range(40))
_V2: Mapping[str, str] = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 1500000\nsystem_usec 1000000\n"
    "nr_periods 40\nnr_throttled 4\nthrottled_usec 500000\nnr_bursts 0\nburst_usec 0\n",
    "memory.current": "10485760\n",
    "memory.peak": "20971520\n",
    "memory.swap.current": "4096\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n",
    "memory.stat": "anon 4194304\nfile 6291456\nkernel 131072\nfile_mapped 65536\ninactive_file 2097152\n" + _OTHER,
    "pids.current": "5\n",
    "cgroup.procs": "100\n101\n102\n",
    "io.stat": "8:0 rbytes=1024 wbytes=2048 rios=3 wios=4 dbytes=0 dios=0\n253:1\n",
}
_V1: Mapping[str, Mapping[str, str]] = {
    "cpuacct": {"cpuacct.usage": "2500000000\n", "cpuacct.stat": "user 150\nsystem 100\n"},
    "cpu": {"cpu.stat": "nr_periods 40\nnr_throttled 4\nthrottled_time 500000000\n"},
    "memory": {
        "memory.usage_in_bytes": "10485760\n",
        "memory.max_usage_in_bytes": "20971520\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        "memory.stat": "cache 1\nrss 1\ntotal_cache 6291456\ntotal_rss 4194304\ntotal_mapped_file 65536\n"
        "total_swap 4096\ntotal_inactive_file 2097152\n" + _OTHER,
    },
    "pids": {"pids.current": "5\n", "cgroup.procs": "100\n101\n102\n"},
    "blkio": {
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 1024\n8:0 Write 2048\n8:0 Total 3072\nTotal 3072\n",
    },
}  # fmt: skip


def layout(root: Path, version: str) -> CgroupLayout:
    """``version``: v1 or v2."""
    if version == "v2":
        return CgroupLayout("v2", frozenset(("cpu", "memory")), {}, {"": "/"}, str(root))
    points = {name: str(root / name) for name in _V1}
    return CgroupLayout("v1", frozenset(points), points, dict.fromkeys(points, "/"))


def make(root: Path, version: str, cgroup: str) -> None:
    """The files of one container with the path ``cgroup``."""
    for place, files in {"": _V2}.items() if version == "v2" else _V1.items():
        directory = root / place / cgroup.lstrip("/")
        directory.mkdir(parents=True)
        for name, text in files.items():
            (directory / name).write_text(text)
