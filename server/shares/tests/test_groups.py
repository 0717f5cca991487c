"""The life of users' cgroups, in directories of a made-up hierarchy of version 2."""

import asyncio
import os
from pathlib import Path

import pytest

from engine.common.system.cgroups import CgroupLayout
from server.access.policy import Policy, Role
from server.access.roles import Roles
from server.containers.spec.host import CGROUPFS
from server.shares.groups import UserGroups

POLICY = {"users": {"alice": "member", "bob": "member"}, "roles": {"member": {"pids": 40}}}


@pytest.fixture
def groups(tmp_path: Path) -> UserGroups:
    roles = Roles(Policy(POLICY), by_name=lambda name: None)
    layout = CgroupLayout("v2", frozenset(("pids",)), {}, {"": "/"}, str(tmp_path))
    return UserGroups(roles, layout, "/lab", CGROUPFS)


def shown(root: Path) -> list[str]:
    return sorted(str(Path(place).relative_to(root)) for place, names, _ in os.walk(root) if not names)


def test_a_cgroup_lives_as_long_as_something_runs(groups: UserGroups, tmp_path: Path) -> None:
    async def body() -> None:
        running: list[str] = []
        async with groups.using("alice") as parent:
            assert parent == "/lab/@alice"
            await groups.sweep(lambda: running)
            assert shown(tmp_path) == ["lab/@alice"]
            running.append("alice")
        await groups.sweep(lambda: running)
        assert shown(tmp_path) == ["lab/@alice"]
        running.clear()
        await groups.sweep(lambda: running)
        assert shown(tmp_path) == ["lab"]
        async with groups.using("") as parent:
            assert parent == ""

    asyncio.run(body())


def test_the_cgroup_of_a_job_is_removed_before_that_of_its_user(groups: UserGroups, tmp_path: Path) -> None:
    async def body() -> None:
        async with groups.using("alice:1") as parent:
            assert parent == "/lab/@alice/@1"
            (tmp_path / "lab/@alice/@1").mkdir()  # by the runtime
            await groups.sweep(lambda: [])
            assert shown(tmp_path) == ["lab/@alice/@1"]
        await groups.sweep(lambda: ["alice"])
        assert shown(tmp_path) == ["lab/@alice"]
        await groups.sweep(lambda: [])
        assert shown(tmp_path) == ["lab"]

    asyncio.run(body())


def test_a_start_of_the_daemon_collects_what_another_left(groups: UserGroups, tmp_path: Path) -> None:
    for name in ("@alice", "@bob", "0f3c"):
        (tmp_path / "lab" / name).mkdir(parents=True)
    asyncio.run(groups.collect(["bob:1", ""]))
    assert shown(tmp_path) == ["lab/0f3c", "lab/@bob"]


JOBS = {"alice:1": Role(pids=10, cpus=8.0), ":2": Role(pids=5), ":3": Role(containers=1)}


@pytest.fixture
def with_jobs(tmp_path: Path) -> UserGroups:
    policy = Policy({**POLICY, "roles": {"member": {"pids": 40, "cpus": 2.0}}})
    roles = Roles(policy, bounds_of_job=JOBS.get, by_name=lambda name: None)
    for place in ("@alice/@1", "@alice/@9", "@~/@2"):
        for above in (tmp_path / "lab" / place, (tmp_path / "lab" / place).parent):
            above.mkdir(parents=True, exist_ok=True)
            for name in ("cpu.max", "pids.max"):
                (above / name).write_text("")
    layout = CgroupLayout("v2", frozenset(("cpu", "pids")), {}, {"": "/"}, str(tmp_path))
    return UserGroups(roles, layout, "/lab", CGROUPFS)


def pids(root: Path, place: str) -> str:
    return (root / "lab" / place / "pids.max").read_text()


def test_a_job_socket_with_limits_has_them_in_a_cgroup_of_its_own(with_jobs: UserGroups, tmp_path: Path) -> None:
    async def body() -> None:
        async with with_jobs.using("alice:1") as parent:
            assert parent == with_jobs.parent("alice:1") == "/lab/@alice/@1"
            assert (pids(tmp_path, "@alice"), pids(tmp_path, "@alice/@1")) == ("40", "10")
            # Not above the role's: version 1 refuses a quota above that of the parent.
            assert (tmp_path / "lab/@alice/@1/cpu.max").read_text() == "200000 100000"
        async with with_jobs.using("alice:9"):
            assert pids(tmp_path, "@alice/@9") == ""
        async with with_jobs.using(":2") as parent:
            assert parent == with_jobs.parent(":2") == "/lab/@~/@2"
            assert (pids(tmp_path, "@~"), pids(tmp_path, "@~/@2")) == ("max", "5")
        async with with_jobs.using(":3") as parent:
            assert parent == with_jobs.parent(":3") == ""

    asyncio.run(body())


def test_the_limits_of_jobs_survive_a_new_policy_and_a_new_daemon(with_jobs: UserGroups, tmp_path: Path) -> None:
    asyncio.run(with_jobs.apply(["alice:1", ":2", ":3", ""]))
    assert [pids(tmp_path, place) for place in ("@alice", "@alice/@1", "@~/@2")] == ["40", "10", "5"]
