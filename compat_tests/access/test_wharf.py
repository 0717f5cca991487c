"""The command wharf: as an administrator and as users, on the sockets of an engine with a policy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support import engines
from compat_tests.support.daemons import Completed, run_program
from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User

ROOT = Path(__file__).resolve().parents[2]


def command(user: User | None, *words: str) -> list[str]:
    """The command line of ``wharf`` as a user, or as root without one. A user gets a capability to read all files,
    because the tests' Python may be readable by root only."""
    argv = [sys.executable, "-m", "server.cli", *words]
    if user is None:
        return argv
    identity = ("--reuid", str(user.credentials.uid), "--regid", str(user.credentials.gid), "--clear-groups")
    return ["setpriv", *identity, "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search", *argv]


def environment(host: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "DOCKER_HOST": host}


def run(user: User | None, host: str, words: Sequence[str]) -> Completed:
    return run_program(command(user, *words), env=environment(host), check=False, timeout=60)


def of_root(lab: Lab, *words: str) -> str:
    return run(None, lab.engine.host, words).checked().stdout


def of(user: User, *words: str) -> str:
    return run(user, user.host, words).checked().stdout


def refusal(user: User | None, host: str, *words: str) -> str:
    """The sentence of a command that fails."""
    done = run(user, host, words)
    assert (done.status, done.stdout) == (1, "")
    return done.stderr.removeprefix("wharf: ").strip()


@pytest.fixture
def logged(shared_lab: Lab) -> Iterator[Lab]:
    """The lab with an audit log."""
    log = shared_lab.engine.resources.root / "command" / "audit.log"
    before = shared_lab.policy.read_text()
    shared_lab.policy.write_text(f'{before}\n[audit]\nfile = "{log}"\n')
    os.kill(shared_lab.engine.daemon.pid, signal.SIGHUP)
    try:
        assert until(log.exists)
        yield shared_lab
    finally:
        shared_lab.policy.write_text(before)
        os.kill(shared_lab.engine.daemon.pid, signal.SIGHUP)


def test_users(shared_lab: Lab) -> None:
    alice, bob, carol = (shared_lab[name] for name in ("alice", "bob", "carol"))
    alice.docker("run", "-d", "--name", "web", "busybox", "top")
    alice.docker("volume", "create", "data")
    alice.docker("network", "create", "net")
    try:
        rows = {row["User"]: row for row in json.loads(of_root(shared_lab, "users", "--json"))}
        assert {"", alice.name, bob.name} <= set(rows)
        found = rows[alice.name]
        assert [found[name] for name in ("Containers", "Running", "Volumes", "Networks")] == [1, 1, 1, 1]
        assert (rows[bob.name]["Role"], rows[bob.name]["Containers"]) == ("member", 0)
        assert rows[""]["Images"] == 1
        assert [row["User"] for row in json.loads(of(bob, "users", "--json"))] == [bob.name]
        table = of(alice, "users").splitlines()
        assert [line.split()[:4] for line in table] == [
            ["USER", "ROLE", "CONTAINERS", "RUNNING"],
            [alice.name, "member", "1", "1"],
        ]
        without_role = f"the policy of this engine gives no role to the user {carol.name}"
        assert refusal(carol, carol.host, "users") == without_role
    finally:
        alice.remove_all()


def test_the_own_policy(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    lines = [line.split() for line in of(alice, "policy", "show").splitlines()]
    assert ["role", "member"] in lines
    assert ["rights", "binds"] in lines
    assert ["rights", "all"] in [line.split() for line in of_root(shared_lab, "policy", "show").splitlines()]


def test_policy_check(shared_lab: Lab, tmp_path: Path) -> None:
    assert "valid; roles: member" in run(None, "unix:///nowhere", ["policy", "check", str(shared_lab.policy)]).stdout
    broken = tmp_path / "policy.toml"
    broken.write_text("[roles.a]\ncpus = -1\nbind = true\n")
    done = run(None, "unix:///nowhere", ["policy", "check", str(broken)])
    assert done.status == 1
    assert [line.split(": ")[1] for line in done.stdout.splitlines()] == ["roles.a.cpus", "roles.a.bind"]


def test_job_sockets(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    path = of(alice, "socket", "create", "--label", "ci-job=17", "--ttl", "2h", "--containers", "1").strip()
    try:
        alice.docker("-H", f"unix://{path}", "create", "busybox", "true")
        listed = of(alice, "sockets").splitlines()
        assert listed[0].split() == ["ID", "USER", "LABELS", "LIMITS", "EXPIRES", "HOLDER", "PATH"]
        assert f" {alice.name} " in listed[1]
        assert all(part in listed[1] for part in ("ci-job=17", "containers 1", path))
        assert len(of(bob, "sockets").splitlines()) == 1
        assert refusal(bob, bob.host, "socket", "rm", path) == f"no job socket has the path {path}"
    finally:
        assert of(alice, "socket", "rm", path).strip() == path
    assert len(of_root(shared_lab, "sockets").splitlines()) == 1
    assert not Path(path).exists()


def test_usage(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    loop = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    alice.docker("run", "--rm", "--name", "busy", "busybox", "sh", "-c", loop)

    def used() -> float:
        rows = json.loads(of_root(shared_lab, "usage", "--json"))
        return float(sum(row["CpuSeconds"] for row in rows if row["User"] == alice.name))

    assert until(lambda: used() > 0.05)
    (row,) = (row for row in json.loads(of(alice, "usage", "--containers", "--json")) if row["ContainerName"] == "busy")
    assert row["User"] == alice.name
    assert alice.name in of(alice, "usage", "--days", "1")
    assert alice.name not in of(bob, "usage")


def test_the_audit_log(logged: Lab) -> None:
    alice, bob = logged["alice"], logged["bob"]
    alice.docker("create", "--name", "before", "busybox", "true")
    follower = subprocess.Popen(
        command(None, "audit", "-f", "-n", "1", "--user", alice.name, "--json"),
        env=environment(logged.engine.host),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None
        line: dict[str, Any] = json.loads(follower.stdout.readline())
        assert (line["user"], line["status"], line["query"]["name"]) == (alice.name, 201, "before")
        bob.docker("volume", "create", "data")
        bob.docker("volume", "rm", "data")
        alice.docker("create", "--name", "after", "busybox", "true")
        assert json.loads(follower.stdout.readline())["query"]["name"] == "after"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 130
    finally:
        follower.kill()
        follower.communicate()
        alice.remove_all()
    lines = of_root(logged, "audit", "-n", "500").splitlines()
    assert any(f" {alice.name} 201 POST " in each and "name=after" in each for each in lines)
    of_bob = [json.loads(each) for each in of_root(logged, "audit", "--user", bob.name, "--json").splitlines()]
    assert [(each["method"], each["status"]) for each in of_bob] == [("POST", 201), ("DELETE", 204)]
    assert refusal(alice, alice.host, "audit") == "GET /wharf/v1/audit is for administrators of this engine"


def test_what_is_missing(shared_lab: Lab) -> None:
    alice, engine = shared_lab["alice"], shared_lab.engine
    assert refusal(alice, engine.host, "users").startswith("no permission to connect to ")
    absent = f"{engine.resources.socket}.none"
    assert refusal(None, f"unix://{absent}", "users") == f"no engine listens on {absent}: is wharfd running?"
    no_log = "this engine has no audit log: its policy has no table [audit]"
    assert refusal(None, engine.host, "audit") == no_log
    with engines.wharf("plain") as plain:
        assert refusal(None, plain.host, "users") == "this engine has no policy: all of its clients are administrators"
