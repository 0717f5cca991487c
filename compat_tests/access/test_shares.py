"""The shares of users: their cgroups, counts, disk, times and accounts, on a lab of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.containers import UNIFIED, cgroup_of
from compat_tests.support.host.resources import systemd_cgroups
from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User, lab

POLICY = """
published_images = ["docker.io/library/*"]
[users]
{alice} = "small"
{bob} = "big"
{carol} = "brief"
{dave} = "idle"

[roles.small]
containers = 4
disk = "20m"
cpus = 0.5
cpu_weight = 50
memory = "96m"
pids = 40

[roles.brief]
max_run_time = 10

[roles.idle]
idle_limit = 5
keep = true

[roles.big]
cpu_weight = 200
"""
USERS = ("alice", "bob", "carol", "dave")


@pytest.fixture(scope="module")
def shares() -> Iterator[Lab]:
    with lab("shares", POLICY, USERS) as made:
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


def test_a_step_of_a_build_has_the_limits_of_its_user(shares: Lab) -> None:
    script = b"FROM busybox\nRUN head -c 200m /dev/zero | tail -n 1 | wc -c > /size && test $(cat /size) = 209715200\n"
    for kit in ("0", "1"):
        words = ("docker", "build", "-")
        assert shares["bob"].run(*words, input=script, env={"DOCKER_BUILDKIT": kit}).status == 0
        failed = shares["alice"].run(*words, input=script, env={"DOCKER_BUILDKIT": kit}, check=False)
        assert failed.status != 0
        assert "RUN head" in failed.stderr + failed.stdout
    for name in ("alice", "bob"):
        shares[name].docker("system", "prune", "-af")


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


def test_info_shows_the_own_limits(shares: Lab) -> None:
    shown = shares["alice"].docker("info", "-f", "{{.NCPU}} {{.MemTotal}} {{.Containers}}").stdout.split()
    assert shown == ["1", str(96 << 20), "0"]
    of_all = shares.engine.docker("info", "-f", "{{.NCPU}} {{.MemTotal}}").stdout.split()
    assert shares["bob"].docker("info", "-f", "{{.NCPU}} {{.MemTotal}}").stdout.split() == of_all


def test_more_cpus_than_the_role_has_are_refused(shares: Lab) -> None:
    alice = shares["alice"]
    refused = alice.docker("create", "--cpus", "1", "busybox", check=False)
    assert "range of CPUs is from 0.01 to 0.50, as the policy allows you no more" in refused.stderr
    alice.docker("create", "--name", "half", "--cpus", "0.5", "busybox", "true")
    assert alice.docker("start", "-a", "half").status == 0
    assert "range of CPUs" in alice.docker("update", "--cpus", "1", "half", check=False).stderr
    alice.docker("rm", "half")


def test_the_number_of_containers(shares: Lab) -> None:
    alice = shares["alice"]
    for name in ("c1", "c2", "c3", "c4"):
        alice.docker("create", "--name", name, "busybox")
    refused = alice.docker("create", "busybox", check=False)
    assert "the policy allows you 4 containers, and 4 exist: c1, c2, c3, c4" in refused.stderr
    shares["bob"].docker("run", "--rm", "busybox", "true")
    alice.docker("rm", "c1", "c2", "c3", "c4")
    alice.docker("run", "--rm", "busybox", "true")


def test_the_disk(shares: Lab) -> None:
    alice = shares["alice"]
    alice.docker("run", "--name", "full", "busybox", "sh", "-c", "head -c 25m /dev/urandom > /file")

    def refused() -> bool:
        return alice.docker("volume", "create", "more", check=False).status != 0

    assert until(refused)
    message = "the policy allows you 20.97MB of disk, and"
    for words in (
        ("volume", "create", "another"),
        ("create", "busybox"),
        ("pull", "127.0.0.1:9/nothing"),
        ("import", "-"),
        ("commit", "full", "mine"),
        ("cp", "/etc/hostname", "full:/"),
    ):
        failed = alice.docker(*words, check=False)
        assert message in failed.stderr, words
        assert "full" in failed.stderr
    for kit in ("0", "1"):
        words, file = ("docker", "build", "-"), b"FROM busybox\nRUN true\n"
        assert message in alice.run(*words, input=file, env={"DOCKER_BUILDKIT": kit}, check=False).stderr
    shares["bob"].docker("run", "--rm", "busybox", "true")
    alice.docker("rm", "full")
    alice.docker("volume", "rm", "-f", "more")
    assert until(lambda: not refused(), seconds=20)
    alice.docker("volume", "rm", "more")


def test_the_label_keep_needs_a_right(shares: Lab) -> None:
    refused = shares["alice"].docker("create", "--label", "wharf.keep", "busybox", check=False)
    assert "the policy does not allow you the label wharf.keep" in refused.stderr


def events(user: User, *words: str) -> list[dict[str, object]]:
    shown = user.docker("events", "--since", "10m", "--until", "-1s", "--format", "{{json .}}", *words).stdout
    return [json.loads(line) for line in shown.splitlines()]


def exited(user: User, name: str) -> bool:
    return user.docker("inspect", "-f", "{{.State.Running}}", name).stdout.strip() == "false"


def test_the_maximum_run_time(shares: Lab) -> None:
    carol = shares["carol"]
    busy = "trap exit TERM; while :; do :; done"
    carol.docker("run", "-d", "--restart", "always", "--name", "busy", "busybox", "sh", "-c", busy)
    assert until(lambda: exited(carol, "busy"), seconds=30)
    warned, stopped = carol.docker("logs", "busy").stderr.splitlines()[-2:]
    assert re.fullmatch("wharf: in [01] seconds this container is stopped: .* max_run_time is 10 seconds", warned)
    assert stopped == "wharf: this container is stopped: the policy's max_run_time is 10 seconds"
    actions = [event["Action"] for event in events(carol, "--filter", "container=busy")]
    assert [each for each in actions if str(each).startswith("limit")] == ["limit_warning", "limit_reached"]
    carol.docker("rm", "busy")


def test_the_idle_limit_and_the_label_that_exempts(shares: Lab) -> None:
    dave = shares["dave"]
    run(dave, "idle")
    dave.docker("run", "-d", "--init", "--label", "wharf.keep", "--name", "kept", "busybox", "sleep", "3600")
    shares.engine.restart()
    assert until(lambda: exited(dave, "idle"), seconds=30)
    assert (
        "wharf: this container is stopped: the policy's idle_limit is 5 seconds" in dave.docker("logs", "idle").stderr
    )
    assert not exited(dave, "kept")
    dave.docker("rm", "-f", "idle", "kept")


def test_a_gpu_whose_use_is_unknown(shares: Lab) -> None:
    """Its container is idle only if the role says so."""
    dave = shares["dave"]
    shares.engine.cdi.mkdir(exist_ok=True)
    node = {"path": "/dev/gpu0", "hostPath": "/dev/null"}
    devices = [{"name": "0", "containerEdits": {"deviceNodes": [node]}}]
    specification = {"cdiVersion": "0.6.0", "kind": "lab.example/gpu", "devices": devices}
    (shares.engine.cdi / "lab.json").write_text(json.dumps(specification))
    words = ("run", "-d", "--init", "--device", "lab.example/gpu=0", "--name", "gpu", "busybox", "sleep", "3600")
    id = dave.docker(*words).stdout.strip()
    run(dave, "idle")
    assert until(lambda: exited(dave, "idle"), seconds=30)
    time.sleep(2)
    assert not exited(dave, "gpu")
    unknown = (
        f"container={id} the use of its GPUs is unknown, so it is never idle: lab.example/gpu=0: no driver of this"
    )
    assert shares.engine.log().count(unknown) == 1
    before = shares.policy.read_text()
    shares.policy.write_text(before.replace("idle_limit = 5\n", "idle_limit = 5\nignore_unmeasured_gpus = true\n"))
    reload(shares)
    assert until(lambda: exited(dave, "gpu"), seconds=30)
    shares.policy.write_text(before)
    reload(shares)
    dave.docker("rm", "-f", "gpu", "idle")


def test_an_exec_of_an_earlier_daemon_keeps_a_container(shares: Lab) -> None:
    dave = shares["dave"]
    run(dave, "busy")
    run(dave, "idle")
    dave.docker("exec", "-d", "busy", "tail", "-f", "/dev/null")
    shares.engine.restart()
    assert until(lambda: exited(dave, "idle"), seconds=30)
    time.sleep(2)
    assert not exited(dave, "busy")
    script = "for p in /proc/[0-9]*; do grep -q tail $p/comm && kill ${p#/proc/}; done; true"
    dave.docker("exec", "busy", "sh", "-c", script)
    assert until(lambda: exited(dave, "busy"), seconds=30)
    dave.docker("rm", "busy", "idle")


def test_a_client_that_is_attached_keeps_a_container(shares: Lab) -> None:
    dave = shares["dave"]
    waited = dave.docker("run", "--init", "--name", "attached", "busybox", "sleep", "8")
    assert waited.status == 0
    assert "wharf:" not in waited.stderr
    dave.docker("rm", "attached")


def rows(lab: Lab, copied: Path) -> list[sqlite3.Row]:
    """The accounts, from a copy: the daemon has locked its database."""
    for file in (lab.engine.resources.root / "data").glob("accounts.db*"):
        shutil.copy(file, copied)
    with contextlib.closing(sqlite3.connect(copied / "accounts.db")) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM usage").fetchall()


def test_what_a_container_has_used_is_recorded_at_its_exit(shares: Lab, tmp_path: Path) -> None:
    bob = shares["bob"]
    script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; wget -q -T 1 http://1.2.3.4/; true"
    bob.docker("run", "--rm", "--name", "account", "busybox", "sh", "-c", script)
    (row,) = [each for each in rows(shares, tmp_path) if each["name"] == "account"]
    assert row["owner"] == bob.name
    assert 0.05 < row["cpu_seconds"] < 200
    assert row["memory_gib_hours"] > 0
    assert row["sent_bytes"] > 0
    assert len(row["day"]) == len("2026-01-31")


@pytest.mark.skipif(not systemd_cgroups(), reason="the host's engines use no other driver")
def test_directories_beside_slices() -> None:
    parent = f"/wharftest{os.getpid()}fs"
    words = ("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", parent)
    with lab("cgroupfs", POLICY, USERS, *words) as made:
        alice = made["alice"]
        run(alice, "one")
        place = group(made, alice, "one", "pids")
        assert place == Path(f"/sys/fs/cgroup{parent}/@{alice.name}")
        assert (place / "pids.max").read_text().strip() == "40"
        assert (place / "cpu.weight").read_text().strip() == "50"
        alice.docker("rm", "-f", "one")
        assert until(lambda: not place.is_dir())
    Path(f"/sys/fs/cgroup{parent}").rmdir()
