"""Execs over the fake engine: creation, start by the standard calls, exit codes, and what is refused."""

import json
import os
import re
from typing import Any

import pytest

from server.containers.model import Container
from server.tests.daemon import Daemon


@pytest.fixture
def container(daemon: Daemon) -> Container:
    daemon.load("busybox:latest")
    return daemon.run("box")


def create(daemon: Daemon, *cmd: str, **fields: Any) -> str:
    answer = daemon.post("/containers/box/exec", {"Cmd": list(cmd), **fields})
    assert answer.status_code == 201, answer.text
    identity: str = answer.json()["Id"]
    assert re.fullmatch("[0-9a-f]{64}", identity)
    return identity


def start(daemon: Daemon, identity: str) -> None:
    answer = daemon.post(f"/exec/{identity}/start", {"Detach": True})
    assert (answer.status_code, answer.content) == (200, b"")


def shown(daemon: Daemon, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.get(f"/exec/{identity}/json").json()
    return found


def test_from_creation_to_the_exit_code(daemon: Daemon, container: Container) -> None:
    identity = create(
        daemon, "sh", "-c", "exit 3", Env=["A=1"], AttachStdout=True, Privileged=True, DetachKeys="ctrl-a"
    )
    assert shown(daemon, identity) == {
        "ID": identity,
        "Running": False,
        "ExitCode": None,
        "ProcessConfig": {"tty": False, "entrypoint": "sh", "arguments": ["-c", "exit 3"], "privileged": True},
        **{"OpenStdin": False, "OpenStderr": False, "OpenStdout": True, "CanRemove": False},
        **{"ContainerID": container.id, "DetachKeys": "AQ==", "Pid": 0},
    }
    assert daemon.get("/containers/box/json").json()["ExecIDs"] == [identity]
    start(daemon, identity)
    now = shown(daemon, identity)
    assert (now["Running"], now["ExitCode"], now["Pid"]) == (True, None, os.getpid())
    spec = json.loads(daemon.engine.tasks.processes["moby", container.id, identity].spec)
    assert (spec["args"], spec["env"], spec["cwd"]) == (["sh", "-c", "exit 3"], ["PATH=/bin", "A=1"], "/")
    daemon.engine.tasks.exit("moby", container.id, identity, 3)
    now = shown(daemon, identity)
    assert (now["Running"], now["ExitCode"]) == (False, 3)
    assert daemon.get("/containers/box/json").json()["ExecIDs"] is None
    events = daemon.events(event=["exec_create", "exec_start", "exec_die"])
    assert [event["Action"] for event in events] == [
        "exec_create: sh -c exit 3",
        "exec_start: sh -c exit 3",
        "exec_die",
    ]
    assert {event["Actor"]["Attributes"]["execID"] for event in events} == {identity}
    assert events[-1]["Actor"]["Attributes"]["exitCode"] == "3"
    # The engine has forgotten it.
    assert ("moby", container.id, identity) not in daemon.engine.tasks.processes


def test_starts_that_are_refused(daemon: Daemon, container: Container) -> None:
    def said(path: str, body: dict[str, Any]) -> tuple[int, str]:
        return daemon.refusal("POST", path, json=body)

    detach = {"Detach": True}
    identity = create(daemon, "true")
    start(daemon, identity)
    running = f"Error: Exec command {identity} is already running"
    assert said(f"/exec/{identity}/start", detach) == (409, running)
    daemon.engine.tasks.exit("moby", container.id, identity)
    assert shown(daemon, identity)["ExitCode"] == 0
    assert said(f"/exec/{identity}/start", detach) == (409, f"Error: Exec command {identity} has already run")
    waiting = create(daemon, "true")
    assert daemon.post("/containers/box/pause").status_code == 204
    paused = "is paused, unpause the container before exec"
    assert said(f"/exec/{waiting}/start", detach) == (409, f"Container {container.id} {paused}")
    assert said("/containers/box/exec", {"Cmd": ["true"]}) == (409, f"Container box {paused}")


def test_an_exec_ends_with_its_container(daemon: Daemon, container: Container) -> None:
    running, waiting = create(daemon, "sleep", "9"), create(daemon, "true")
    start(daemon, running)
    daemon.engine.tasks.exit("moby", container.id, status=137)
    assert daemon.post("/containers/box/wait").json() == {"StatusCode": 137}
    assert shown(daemon, running)["ExitCode"] == 137
    # One that was not started belongs to a run that is over.
    assert daemon.refusal("GET", f"/exec/{waiting}/json") == (404, f"No such exec instance: {waiting}")
    assert daemon.refusal("POST", f"/exec/{running}/resize?h=1&w=1") == (
        409,
        f"container {container.id} is not running",
    )


def test_resize_reaches_the_process(daemon: Daemon, container: Container) -> None:
    identity = create(daemon, "sh", Tty=True)
    start(daemon, identity)
    answer = daemon.post(f"/exec/{identity}/resize", h=24, w=65536 + 80)
    assert (answer.status_code, answer.content) == (200, b"")
    assert daemon.engine.tasks.processes["moby", container.id, identity].size == (80, 24)  # 16 bits, as in the kernel


def test_the_engine_refuses_the_process(daemon: Daemon, container: Container) -> None:
    identity = create(daemon, "true")
    del daemon.engine.tasks.processes["moby", container.id, ""]  # the task is gone, its event is still to come
    status, _ = daemon.refusal("POST", f"/exec/{identity}/start", json={"Detach": True})
    assert status in (404, 409)
    assert shown(daemon, identity)["ExitCode"] == 126


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("POST", "/containers/nope/exec", {"Cmd": ["true"]}, 404, "No such container: nope"),
        ("POST", "/containers/running/exec", {}, 400, "No exec command specified"),
        ("POST", "/containers/running/exec", {"Cmd": []}, 400, "No exec command specified"),
        (
            "POST",
            "/containers/running/exec",
            {"Cmd": ["true"], "DetachKeys": "ctrl-"},
            500,
            "Invalid escape keys (ctrl-) provided",
        ),
        (
            "POST",
            "/containers/running/exec",
            {"Cmd": ["true"], "Tty": True, "ConsoleSize": [1 << 16, 1]},
            400,
            "invalid console size: height and width are 16-bit numbers",
        ),
        ("GET", "/exec/nope/json", None, 404, "No such exec instance: nope"),
        ("POST", "/exec/nope/start", {}, 404, "No such exec instance: nope"),
        ("POST", "/exec/nope/resize?h=1&w=1", None, 404, "No such exec instance: nope"),
        ("POST", "/exec/nope/resize?h=1", None, 400, 'invalid resize width "": invalid syntax'),
        ("POST", "/exec/nope/resize?h=-1&w=1", None, 400, 'invalid resize height "-1": value out of range'),
        ("POST", "/exec/nope/resize?h=x&w=1", None, 400, 'invalid resize height "x": invalid syntax'),
    ],
)
def test_refusals(
    shared_daemon: Daemon, method: str, path: str, body: dict[str, Any] | None, status: int, sentence: str
) -> None:
    options = {} if body is None else {"json": body}
    assert shared_daemon.refusal(method, path, **options) == (status, sentence)
