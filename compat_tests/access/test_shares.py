"""The shares of users: their cgroups, counts, disk, times and accounts, on a lab of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.containers import UNIFIED, cgroup_of
from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User, lab

POLICY = """
[users]
{alice} = "small"
{bob} = "big"

[roles.small]
cpus = 0.5
cpu_weight = 50
memory = "96m"
pids = 40

[roles.big]
cpu_weight = 200
"""


@pytest.fixture(scope="module")
def shares() -> Iterator[Lab]:
    with lab("shares", POLICY, ("alice", "bob")) as made:
        yield made


def run(user: User, name: str, *words: str) -> None:
    user.docker("run", "-d", "--init", "--name", name, "busybox", *(words or ("sleep", "3600")))


def group(lab: Lab, user: User, name: str, controller: str) -> Path:
    """The cgroup above a user's container."""
    id = user.docker("inspect", "-f", "{{.Id}}", name).stdout.strip()
    own = cgroup_of(lab.engine, id, controller)
    while not own.name.startswith(("docker-", id)):
        own = own.parent
    return own.parent


def read(directory: Path, unified: str, separate: str) -> str:
    return (directory / (unified if UNIFIED else separate)).read_text().strip()


def reload(lab: Lab) -> None:
    os.kill(lab.engine.daemon.pid, signal.SIGHUP)


def test_the_limits_of_a_user_are_in_one_cgroup_above_the_containers(shares: Lab) -> None:
    alice, bob = shares["alice"], shares["bob"]
    for user in (alice, bob):
        run(user, "one")
        run(user, "two")
    cpu = group(shares, alice, "one", "cpu")
    assert cpu == group(shares, alice, "two", "cpu")
    assert group(shares, bob, "one", "cpu").parent == cpu.parent
    assert read(cpu, "cpu.max", "cpu.cfs_quota_us").split()[0] == "50000"
    assert read(cpu, "cpu.weight", "cpu.shares") == ("50" if UNIFIED else "512")
    bobs = group(shares, bob, "one", "cpu")
    assert read(bobs, "cpu.weight", "cpu.shares") == ("200" if UNIFIED else "2048")
    memory = group(shares, alice, "one", "memory")
    assert read(memory, "memory.max", "memory.limit_in_bytes") == str(96 << 20)
    assert read(group(shares, alice, "one", "pids"), "pids.max", "pids.max") == "40"
    for user in (alice, bob):
        user.docker("rm", "-f", "one", "two")


def test_a_fork_bomb_reaches_the_limit_of_its_user(shares: Lab) -> None:
    alice, bob = shares["alice"], shares["bob"]
    run(alice, "other")
    alice.docker("run", "-d", "--name", "bomb", "busybox", "sh", "-c", "for i in $(seq 200); do sleep 30 & done; wait")
    assert until(lambda: "can't fork" in alice.docker("logs", "bomb").stderr)
    assert int((group(shares, alice, "other", "pids") / "pids.current").read_text()) <= 40
    bob.docker("run", "--rm", "busybox", "sh", "-c", "for i in $(seq 60); do sleep 1 & done; wait")
    alice.docker("rm", "-f", "other", "bomb")


def test_a_memory_hog_is_killed_by_the_limit_of_its_user(shares: Lab) -> None:
    alice = shares["alice"]
    hog = "head -c 200m /dev/zero | tail -n 1 | wc -c"
    alice.docker("run", "--name", "hog", "busybox", "sh", "-c", f"{hog}; echo ended", check=False)
    assert "209715200" not in alice.docker("logs", "hog").stdout
    assert shares["bob"].docker("run", "--rm", "busybox", "sh", "-c", hog).stdout.strip() == "209715200"
    alice.docker("rm", "-f", "hog")


def test_the_cgroup_disappears_when_nothing_of_the_user_runs(shares: Lab) -> None:
    alice = shares["alice"]
    run(alice, "one")
    places = [group(shares, alice, "one", name) for name in ("cpu", "memory", "pids")]
    assert all(place.is_dir() for place in places)
    alice.docker("rm", "-f", "one")
    assert until(lambda: not any(place.is_dir() for place in places))


def test_a_new_policy_changes_the_limits_of_what_runs(shares: Lab) -> None:
    alice = shares["alice"]
    run(alice, "one")
    before = shares.policy.read_text()
    shares.policy.write_text(before.replace("pids = 40", "pids = 50").replace("cpus = 0.5\n", ""))
    reload(shares)
    pids, cpu = (group(shares, alice, "one", name) for name in ("pids", "cpu"))
    assert until(lambda: read(pids, "pids.max", "pids.max") == "50")
    assert read(cpu, "cpu.max", "cpu.cfs_quota_us").split()[0] == ("max" if UNIFIED else "-1")
    shares.policy.write_text(before)
    reload(shares)
    assert until(lambda: read(pids, "pids.max", "pids.max") == "40")
    alice.docker("rm", "-f", "one")


def test_the_limits_survive_a_restart(shares: Lab) -> None:
    alice = shares["alice"]
    run(alice, "one")
    shares.engine.restart()
    pids = group(shares, alice, "one", "pids")
    assert (pids / "pids.max").read_text().strip() == "40"
    run(alice, "two")
    assert group(shares, alice, "two", "pids") == pids
    alice.docker("rm", "-f", "one", "two")
    assert until(lambda: not pids.is_dir())
