"""The counters of cgroups v1 and v2 are the same numbers."""

from pathlib import Path

import pytest

from server.metrics.cgroups import Cgroups, DeviceUsage, Usage
from server.metrics.tests import trees

EXPECTED = Usage(
    cpu_seconds=2.5,
    user_seconds=1.5,
    system_seconds=1.0,
    periods=40,
    throttled=4,
    throttled_seconds=0.5,
    memory=10 << 20,
    memory_peak=20 << 20,
    working_set=8 << 20,
    rss=4 << 20,
    cache=6 << 20,
    swap=4096,
    oom_kills=1,
    threads=5,
    processes=3,
    devices=(DeviceUsage("8", "0", 1024, 2048),),
)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_both_versions(tmp_path: Path, version: str) -> None:
    trees.make(tmp_path, version, "/lab/one")
    cgroups = Cgroups(trees.layout(tmp_path, version))
    assert cgroups.read("/lab/one", quota=True) == EXPECTED
    assert cgroups.read("/lab/gone", quota=True) is None
    assert cgroups.read("/elsewhere/one", quota=True) is None


def test_a_cgroup_without_some_files(tmp_path: Path) -> None:
    """Controllers may be off, and older kernels lack files."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one/cpu.stat").write_text("usage_usec 1000\n")
    assert Cgroups(trees.layout(tmp_path, "v2")).read("/one", quota=True) == Usage(cpu_seconds=0.001)
    for controller in ("cpuacct", "memory"):
        (tmp_path / controller / "two").mkdir(parents=True)
    (tmp_path / "cpuacct/two/cpuacct.usage").write_text("1000000\n")
    assert Cgroups(trees.layout(tmp_path, "v1")).read("/two", quota=True) == Usage(cpu_seconds=0.001)


def test_devices_are_bounded(tmp_path: Path) -> None:
    trees.make(tmp_path, "v2", "/one")
    (tmp_path / "one/io.stat").write_text("".join(f"8:{minor} rbytes=1 wbytes=1\n" for minor in range(100)))
    found = Cgroups(trees.layout(tmp_path, "v2")).read("/one", quota=False)
    assert found is not None
    assert len(found.devices) == 16
