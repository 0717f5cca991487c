"""The files of a user's cgroup, in directories that look like the kernel's."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.common.system.cgroups import CgroupLayout
from server.access.policy import Role
from server.shares import cgroups, slices
from server.shares.cgroups import Limits

ROLE = Role(cpus=1.5, cpu_weight=200, memory=1 << 30, pids=50, io_weight=300)
V2 = ("cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "pids.max", "io.weight")
V1 = {
    "cpu": ("cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.shares"),
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "pids": ("pids.max",),
    "blkio": ("blkio.bfq.weight",),
}


def files(directory: Path, *names: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text("")


@pytest.fixture
def unified(tmp_path: Path) -> CgroupLayout:
    files(tmp_path / "lab/@alice", *V2)
    return CgroupLayout("v2", frozenset(("cpu", "memory", "pids", "io")), unified=str(tmp_path))


@pytest.fixture
def separate(tmp_path: Path) -> CgroupLayout:
    points = {name: str(tmp_path / name) for name in V1}
    for name, each in V1.items():
        files(tmp_path / name / "lab/@alice", *each)
    return CgroupLayout("v1", frozenset(points), points)


def written(directory: Path, *names: str) -> list[str]:
    found = []
    for name in names:
        found.append((directory / name).read_text())
        (directory / name).write_text("")
    return found


def test_limits_of_version_2(unified: CgroupLayout, tmp_path: Path) -> None:
    place = tmp_path / "lab/@alice"
    assert cgroups.limit(unified, "/lab/@alice", Limits.of(ROLE)) == []
    limited = ["150000 100000", "200", str(1 << 30), str(1 << 30), "50", "default 300"]
    assert written(place, *V2) == limited
    assert cgroups.limit(unified, "/lab/@alice", Limits()) == []
    assert written(place, *V2) == ["max 100000", "100", "max", "max", "max", "default 100"]


def test_limits_of_version_1(separate: CgroupLayout, tmp_path: Path) -> None:
    assert cgroups.limit(separate, "/lab/@alice", Limits.of(ROLE)) == []
    assert {name: written(tmp_path / name / "lab/@alice", *each) for name, each in V1.items()} == {
        "cpu": ["100000", "150000", "2048"],
        # The limit of both was removed before.
        "memory": [str(1 << 30), f"{2 << 30}"],
        "pids": ["50"],
        "blkio": ["300"],
    }


def test_what_the_host_lacks_is_named(separate: CgroupLayout, tmp_path: Path) -> None:
    (tmp_path / "blkio/lab/@alice/blkio.bfq.weight").unlink()
    without = CgroupLayout("v1", frozenset(), {name: separate.mountpoints[name] for name in ("cpu", "memory", "blkio")})
    assert cgroups.limit(without, "/lab/@alice", Limits.of(ROLE)) == [
        "pids (pids.max: the controller is not mounted)",
        "io_weight (blkio.bfq.weight: no such file or directory)",
    ]
    assert cgroups.limit(without, "/lab/@alice", Limits()) == []


def test_a_cgroup_with_a_container_stays(unified: CgroupLayout, tmp_path: Path) -> None:
    for path in ("/lab/@bob/@0f3c/container", "/lab/@carol/@0f3c"):
        (tmp_path / path.strip("/")).mkdir(parents=True)
    assert not cgroups.remove(unified, "/lab/@bob")
    assert cgroups.remove(unified, "/lab/@carol")
    assert cgroups.children(unified, "/lab") == {"@alice", "@bob"}


def test_the_properties_of_a_slice() -> None:
    assert dict(slices.properties(Limits.of(ROLE))) == {
        "CPUQuotaPerSecUSec": 1_500_000,
        "CPUWeight": 200,
        "MemoryMax": 1 << 30,
        "MemorySwapMax": 1 << 30,
        "TasksMax": 50,
        "IOWeight": 300,
    }
    assert {value for _, value in slices.properties(Limits())} == {2**64 - 1}


def test_a_slice_with_a_container_in_a_job_is_in_use(unified: CgroupLayout, tmp_path: Path) -> None:
    (tmp_path / "wharf.slice/wharf-bob.slice/wharf-bob-1.slice/docker-0f.scope").mkdir(parents=True)
    assert cgroups.has_scope(unified, "/wharf.slice/wharf-bob.slice")
    assert not cgroups.has_scope(unified, "/lab")


def test_systemd_is_asked_once_for_a_slice_that_it_has_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def call(method: str, signature: str, words: Sequence[str]) -> None:
        calls.append(f"{method} {words[0]} {signature.count('(')}")
        if method == "StartTransientUnit":
            raise WharfError(Kind.INTERNAL, "Unit was already loaded or has a fragment file")

    monkeypatch.setattr(slices, "_call", call)
    slices.make("wharf-bob.slice", Limits(), lambda: False)
    slices.make("wharf-bob.slice", Limits(), lambda: True)
    assert slices.remove("wharf-bob.slice", lambda: False)
    assert calls == [
        "StartTransientUnit wharf-bob.slice 3",
        "SetUnitProperties wharf-bob.slice 1",
        "SetUnitProperties wharf-bob.slice 1",
        "StopUnit wharf-bob.slice 0",
    ]
