"""Job sockets: objects created through one are visible only through it, and are removed with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.access.python import list_in_container
from compat_tests.support import npm
from compat_tests.support.api import Api
from compat_tests.support.patience import FACTOR
from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User


def job(lab: Lab, short: str, **body: Any) -> tuple[str, User]:
    """A job socket of a user; its id, and the user as its client."""
    user = lab[short]
    answer = user.api.post("/wharf/v1/sockets", data=body)
    assert answer.status == 201, answer.body
    document = answer.json()
    return document["Id"], User(user.name, user.credentials, user.home, Path(document["Path"]))


@pytest.fixture(autouse=True)
def close_all(shared_lab: Lab) -> Iterator[None]:
    """Close what a failed test left."""
    yield
    for row in shared_lab.engine.api.get("/wharf/v1/sockets").json():
        shared_lab.engine.api.delete(f"/wharf/v1/sockets/{row['Id']}")


def test_objects_are_visible_only_through_the_socket_and_removed_with_it(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    id, ci = job(shared_lab, "alice", Labels={"ci-job": "17"})
    other_id, other = job(shared_lab, "alice")
    ci.docker("network", "create", "net")
    ci.docker("volume", "create", "data")
    ci.docker(
        "run", "-d", "--name", "web", "--network", "net", "-v", "data:/data", "-v", "/anonymous", "busybox", "top"
    )
    ci.docker("commit", "web", "mine")
    for client in (alice, bob, other):
        assert client.docker("ps", "-aq").stdout == ""
        assert client.docker("volume", "ls", "-q").stdout == ""
        assert client.docker("images", "--format", "{{.Repository}}").stdout == "busybox\n"
    assert ci.docker("ps", "--format", "{{.Names}}").stdout == "web\n"
    rows = {row["Id"]: row for row in alice.api.get("/wharf/v1/sockets").json()}
    assert rows.keys() == {id, other_id}
    assert rows[id]["Labels"] == {"ci-job": "17"}
    assert bob.api.get("/wharf/v1/sockets").json() == []
    assert bob.api.delete(f"/wharf/v1/sockets/{id}").error == (404, f"No such socket: {id}")
    assert alice.api.delete(f"/wharf/v1/sockets/{id}").status == 204
    engine = shared_lab.engine
    assert not ci.socket.exists()
    assert engine.docker("ps", "-aq").stdout == engine.docker("volume", "ls", "-q").stdout == ""
    assert engine.docker("network", "ls", "-q", "--filter", "name=net").stdout == ""
    assert "mine" not in engine.docker("images").stdout


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_testcontainers_need_no_ryuk(shared_lab: Lab) -> None:
    """The removal of the job socket is what the container of Testcontainers does that removes leftovers."""
    id, ci = job(shared_lab, "alice")
    script, folder = ci.home / "testcontainers.js", ci.home / "testcontainers"
    shutil.copy(npm.CLIENTS / script.name, script)
    folder.mkdir()
    for path in (script, folder):
        os.chown(path, ci.credentials.uid, ci.credentials.gid)
    env = {"NODE_PATH": str(npm.modules()), "TESTCONTAINERS_RYUK_DISABLED": "true"}
    ci.run("node", str(script), str(folder), env=env)
    ci.docker("run", "-d", "--label", "org.testcontainers=true", "busybox", "sleep", "600")
    assert shared_lab["alice"].api.delete(f"/wharf/v1/sockets/{id}").status == 204
    assert shared_lab.engine.docker("ps", "-aq").stdout == ""
    assert "testcontainers" not in shared_lab.engine.docker("images").stdout


def test_a_job_socket_creates_no_job_sockets(shared_lab: Lab) -> None:
    _, ci = job(shared_lab, "alice")
    assert ci.api.post("/wharf/v1/sockets", data={}).error == (403, "a job socket can't create job sockets")


def test_the_socket_ends_with_its_time(shared_lab: Lab) -> None:
    _, ci = job(shared_lab, "alice", TTL=round(3 * FACTOR))
    ci.docker("run", "-d", "busybox", "top")
    assert until(lambda: not ci.socket.exists())
    assert shared_lab.engine.docker("ps", "-aq").stdout == ""


def test_the_socket_ends_with_its_holder(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    held = {"user": alice.credentials.uid, "group": alice.credentials.gid}
    with subprocess.Popen(["sleep", "600"], **held) as holder:  # type: ignore[call-overload]
        _, ci = job(shared_lab, "alice", Holder=holder.pid)
        ci.docker("run", "-d", "busybox", "top")
        assert shared_lab["bob"].api.post("/wharf/v1/sockets", data={"Holder": holder.pid}).error == (
            400,
            f"invalid holder: {holder.pid} is no process of yours",
        )
        holder.kill()
        holder.wait()
    assert until(lambda: not ci.socket.exists())
    assert shared_lab.engine.docker("ps", "-aq").stdout == ""


def test_the_socket_survives_the_daemon(shared_lab: Lab) -> None:
    id, ci = job(shared_lab, "alice", TTL=600)
    name = ci.docker("run", "-d", "busybox", "top").stdout
    shared_lab.engine.kill("wharfd")
    shared_lab.engine.start()
    assert ci.docker("ps", "-q", "--no-trunc").stdout == name
    assert shared_lab["alice"].docker("ps", "-q").stdout == ""
    assert shared_lab["alice"].api.delete(f"/wharf/v1/sockets/{id}").status == 204
    assert shared_lab.engine.docker("ps", "-aq").stdout == ""


def test_requests_of_a_container_with_the_socket_are_those_of_the_job(shared_lab: Lab) -> None:
    """A CI job mounts the socket as its docker.sock."""
    alice = shared_lab["alice"]
    id, ci = job(shared_lab, "alice")
    inside = ci.docker("create", "--name", "inside", "busybox").stdout.strip()
    outside = alice.docker("create", "--name", "outside", "busybox").stdout.strip()
    shown = list_in_container(alice, ci.socket).stdout
    assert inside in shown
    assert outside not in shown
    alice.docker("rm", "outside")
    alice.api.delete(f"/wharf/v1/sockets/{id}")


def test_an_administrators_job(shared_lab: Lab) -> None:
    engine = shared_lab.engine
    document = engine.api.post("/wharf/v1/sockets", data={}).json()
    through = Api(Path(document["Path"]))
    id = through.post("/containers/create", data={"Image": "busybox"}).json()["Id"]
    assert [row["Id"] for row in engine.api.get("/containers/json", all=1).json()] == [id]  # sees all
    assert engine.api.delete(f"/wharf/v1/sockets/{document['Id']}").status == 204
    assert engine.api.get("/containers/json", all=1).json() == []
