"""The life of users' cgroups, in directories of a made-up hierarchy of version 2."""

import asyncio
import os
from pathlib import Path

import pytest

from engine.common.system.cgroups import CgroupLayout
from server.access.policy import Policy
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
