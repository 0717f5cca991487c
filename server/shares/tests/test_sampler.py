"""Reading the counters of containers."""

from pathlib import Path

from engine.common.system.cgroups import CgroupLayout
from engine.shim.kernel import cgroups as shim
from server.shares.sampler import Reading, Target, read_all


def write(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name.replace("_", ".", 1)).write_text(text)


def test_version_2(tmp_path: Path) -> None:
    write(tmp_path / "lab/c1", cpu_stat="usage_usec 1500\nuser_usec 1\n", memory_current="4096\n")
    layout = CgroupLayout("v2", frozenset(), {}, {"": "/"}, str(tmp_path))
    targets = {"c1": Target("/lab/c1", ("no-such-link",)), "gone": Target("/lab/gone")}
    assert read_all(layout, targets) == {"c1": Reading(1_500_000, 4096)}


def test_version_1(tmp_path: Path) -> None:
    write(tmp_path / "cpuacct/lab/c1", cpuacct_usage="1500\n")
    write(tmp_path / "memory/lab/c1", memory_usage_in_bytes="4096\n")
    points = {name: str(tmp_path / name) for name in ("cpuacct", "memory")}
    layout = CgroupLayout("v1", frozenset(points), points)
    assert read_all(layout, {"c1": Target("/lab/c1")}) == {"c1": Reading(1500, 4096)}


def test_the_shim_reads_the_same_at_the_exit(tmp_path: Path) -> None:
    write(tmp_path / "v2", cpu_stat="usage_usec 1500\n", memory_peak="8192\n")
    assert shim.usage({"": str(tmp_path / "v2")}) == {"cpu_ns": 1_500_000, "memory": 8192}
    write(tmp_path / "v1", cpuacct_usage="1500\n", memory_max_usage_in_bytes="8192\n")
    places = {"cpuacct": str(tmp_path / "v1"), "memory": str(tmp_path / "v1")}
    assert shim.usage(places) == {"cpu_ns": 1500, "memory": 8192}
    # A kernel without memory.peak, and a cgroup that is gone.
    (tmp_path / "v2/memory.peak").unlink()
    assert shim.usage({"": str(tmp_path / "v2")}) == {"cpu_ns": 1_500_000}
    assert shim.usage({"": str(tmp_path / "gone")}) == {}
