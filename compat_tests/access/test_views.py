"""Each user sees the own containers, with the unchanged docker CLI and docker-py."""

from __future__ import annotations

import functools
import os
import signal
import time

import pytest

from compat_tests.access.python import list_in_container
from compat_tests.support.polling import until
from compat_tests.support.users import Lab, User


def test_two_users_have_a_container_of_the_same_name(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    for user in (alice, bob):
        user.docker("run", "-d", "--name", "web", "-e", f"WHO={user.name}", "busybox", "sleep", "600")
        assert user.docker("ps", "--format", "{{.Names}}").stdout == "web\n"
        assert user.docker("exec", "web", "sh", "-c", "echo $WHO").stdout == f"{user.name}\n"
    names = shared_lab.engine.docker("ps", "--format", "{{.Names}}").stdout.split()
    assert names == ["web", "web"]
    bob.docker("rm", "-f", "web")
    assert alice.docker("inspect", "-f", "{{.State.Running}}", "web").stdout == "true\n"
    alice.docker("rm", "-f", "web")


def test_ids_of_others_are_unknown(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    id = alice.docker("run", "-d", "busybox", "sleep", "600").stdout.strip()
    for command in (("stop",), ("logs",), ("inspect", "--type", "container"), ("exec",), ("rm",)):
        words = (*command, id, *(("true",) if command == ("exec",) else ()))
        failed = bob.docker(*words, check=False)
        assert failed.status != 0
        assert "no such container" in failed.stderr.lower()
    assert bob.docker("ps", "-aq").stdout == ""
    alice.docker("rm", "-f", id)


def test_a_user_without_a_role_is_refused(shared_lab: Lab) -> None:
    carol = shared_lab["carol"]
    failed = carol.docker("ps", check=False)
    assert failed.status == 1
    assert f"the policy of this engine gives no role to the user {carol.name}" in failed.stderr


def test_events_are_those_of_the_user(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    id = alice.docker("create", "busybox").stdout.strip()
    alice.docker("rm", id)
    window = {"since": 1, "until": int(time.time()) + 1}
    assert id in {event["Actor"]["ID"] for event in alice.api.get("/events", **window).lines()}
    assert bob.api.get("/events", **window).body.find(id.encode()) == -1


def test_docker_py(shared_lab: Lab) -> None:
    docker = pytest.importorskip("docker")
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    with alice.credentials.effective():
        client = docker.DockerClient(base_url=alice.host, version="auto", timeout=90)
        container = client.containers.run("busybox", ["sleep", "600"], detach=True, name="py")
    try:
        assert [each["Names"] for each in bob.api.get("/containers/json", all=1).json()] == []
        assert [each["Names"] for each in alice.api.get("/containers/json", all=1).json()] == [["/py"]]
    finally:
        alice.api.delete(f"/containers/{container.id}", force=1)
        client.close()


PROJECT = """
services:
  server:
    image: busybox
    command: sh -c 'hostname > /data/who && httpd -f -p 80 -h /data'
    hostname: OWNER
    volumes: [data:/data]
    networks: [net]
  client:
    image: busybox
    command: sleep 600
    networks: [net]
    depends_on: [server]
networks: {net: {}}
volumes: {data: {}}
"""


def served_to_client(user: User) -> bool:
    """Whether the client gets the user's own file from the server."""
    ask = ("exec", "-T", "client", "wget", "-q", "-O", "-", "http://server/who")
    return user.docker("compose", "-p", "project", *ask, check=False).stdout == f"{user.name}\n"


def test_two_users_have_the_same_project_of_compose(shared_lab: Lab) -> None:
    """Names of containers, networks and volumes are equal, and the service `server` is each user's own."""
    users = [shared_lab["alice"], shared_lab["bob"]]
    for user in users:
        file = user.home / "compose.yaml"
        file.write_text(PROJECT.replace("OWNER", user.name))
        file.chmod(0o644)
        user.docker("compose", "-p", "project", "up", "-d")
    for user in users:
        assert set(user.docker("ps", "--format", "{{.Names}}").stdout.split()) == {
            "project-server-1",
            "project-client-1",
        }
        assert "project_net" in user.docker("network", "ls", "--format", "{{.Name}}").stdout
        assert user.docker("volume", "ls", "-q").stdout == "project_data\n"
        assert until(functools.partial(served_to_client, user))
    alice, bob = users
    bob.docker("compose", "-p", "project", "down", "-v", "-t", "0")
    assert bob.docker("ps", "-aq").stdout == bob.docker("volume", "ls", "-q").stdout == ""
    running = alice.docker("compose", "-p", "project", "ps", "--services", "--status", "running").stdout.split()
    assert sorted(running) == ["client", "server"]
    alice.docker("compose", "-p", "project", "down", "-v", "-t", "0")


def test_the_policy_is_reloaded(shared_lab: Lab) -> None:
    carol, before = shared_lab["carol"], shared_lab.policy.read_text()

    def lists() -> bool:
        return carol.docker("ps", "-q", check=False).status == 0

    try:
        shared_lab.policy.write_text(f'default_role = "member"\n{before}')
        os.kill(shared_lab.engine.daemon.pid, signal.SIGHUP)
        assert until(lists)
        shared_lab.policy.unlink()  # a missing policy opens nothing
        os.kill(shared_lab.engine.daemon.pid, signal.SIGHUP)
        assert until(lambda: "no such file" in shared_lab.engine.log())
        assert lists()
    finally:
        shared_lab.policy.write_text(before)
        os.kill(shared_lab.engine.daemon.pid, signal.SIGHUP)
    assert until(lambda: not lists())


def test_requests_of_a_container_are_those_of_its_owner(shared_lab: Lab) -> None:
    """Also requests of uid 0 in the container."""
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    mine = alice.docker("create", "--name", "mine", "busybox").stdout.strip()
    other = bob.docker("create", "--name", "other", "busybox").stdout.strip()
    for client, visible in ((alice, {mine}), (shared_lab.engine, {mine, other})):
        shown = list_in_container(client, alice.socket).stdout
        assert {id for id in (mine, other) if id in shown} == visible
    alice.docker("rm", mine)
    bob.docker("rm", other)
