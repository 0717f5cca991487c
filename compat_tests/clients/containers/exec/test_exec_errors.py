"""Execs that are refused or can't start: the status, dockerd's sentence, and the state afterwards."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from compat_tests.clients.containers.exec.execs import create, inspect
from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.streams import demultiplex, hijack


@pytest.mark.core
@pytest.mark.parametrize(
    ("cmd", "config", "words"),
    [
        (["nosuchprogram"], {}, '"nosuchprogram": executable file not found in $PATH'),
        (["/etc/passwd"], {}, "permission denied"),
        (["true"], {"WorkingDir": "/no/such"}, "no such file or directory"),
    ],
)
def test_a_process_that_cannot_start(
    engine: Engine, box: str, cmd: list[str], config: dict[str, Any], words: str
) -> None:
    identity = create(engine, box, *cmd, **config)
    answer = engine.api.post(f"/exec/{identity}/start", {"Detach": True})
    assert answer.status in (400, 500)
    assert words in answer.message
    if engine.kind != "dockerd":
        assert answer.message.endswith(words), "dockerd before 29 appends the code of gRPC"
    assert inspect(engine, identity)["ExitCode"] in (126, 127)
    identity = create(engine, box, *cmd, **config)
    with hijack(engine, f"/exec/{identity}/start", {}) as stream:
        assert stream.status == 101
        ((kind, text),) = demultiplex(stream.read()).items()
    assert kind == 1
    assert words in text.decode()
    assert text.endswith(b"\r\n")
    assert inspect(engine, identity)["ExitCode"] in (126, 127)


def test_invalid_requests_are_refused(engine: Engine, box: str) -> None:
    post, get = engine.api.post, engine.api.get
    assert post(f"/containers/{box}/exec", {}).error == (400, "No exec command specified")
    assert post("/containers/nosuch/exec", {"Cmd": ["true"]}).error == (404, "No such container: nosuch")
    bad = post(f"/containers/{box}/exec", {"Cmd": ["true"], "DetachKeys": "ctrl-"})
    assert bad.error == (500, "Invalid escape keys (ctrl-) provided")
    missing = "No such exec instance: nosuch"
    assert get("/exec/nosuch/json").error == (404, missing)
    assert post("/exec/nosuch/start", {}).error == (404, missing)
    assert post("/exec/nosuch/resize", h=1, w=1).error == (404, missing)
    identity = create(engine, box, "true")
    for size, words in (
        ({"h": 1}, 'width "": invalid syntax'),
        ({"h": "", "w": 1}, 'height "": invalid syntax'),
        ({"h": "x", "w": 1}, 'height "x": invalid syntax'),
        ({"h": 1, "w": -1}, 'width "-1": value out of range'),
        ({"h": 1 << 32, "w": 1}, 'height "4294967296": value out of range'),
    ):
        for path in (f"/exec/{identity}/resize", f"/containers/{box}/resize"):
            assert post(path, **size).error == (400, f"invalid resize {words}")
    assert post(f"/exec/{identity}/start", {"Detach": True}).status == 200
    assert until(lambda: inspect(engine, identity)["Running"] is False, seconds=60)
    again = f"Error: Exec command {identity} has already run"
    assert post(f"/exec/{identity}/start", {"Detach": True}).error == (409, again)
    with hijack(engine, f"/exec/{identity}/start", {}) as stream:
        assert demultiplex(stream.read()) == {1: f"{again}\r\n".encode()}
    assert post(f"/exec/{identity}/resize", h=1, w=1).status == 404


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("nosuch", "unable to find user nosuch: no matching entries in passwd file"),
        ("0:nosuch", "unable to find group nosuch: no matching entries in group file"),
        ("nosuch:0", "unable to find user nosuch: no matching entries in passwd file"),
    ],
)
def test_unknown_user_is_refused(engine: Engine, box: str, user: str, words: str) -> None:
    answer = engine.api.post(f"/containers/{box}/exec", {"Cmd": ["true"], "User": user})
    assert answer.error == (400, words)
    assert words in engine.docker("exec", "-u", user, box, "true", check=False).stderr


def test_an_exec_of_a_container_that_ended(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"]) as box:
        identity = create(engine, box, "sleep", "600", Tty=True)
        assert engine.api.post(f"/exec/{identity}/start", {"Detach": True}).status == 200
        assert engine.api.post(f"/containers/{box}/kill").status == 204
        assert engine.api.post(f"/containers/{box}/wait").status == 200
        for path, body in (("resize?h=5&w=5", None), ("start", {})):
            answer = engine.api.post(f"/exec/{identity}/{path}", body)
            assert answer.error == (409, f"container {box} is not running")


def test_exec_in_paused_and_stopped_containers(engine: Engine, box: str) -> None:
    command = {"Cmd": ["true"]}
    with container(engine, start=False, Cmd=["true"]) as created:
        answer = engine.api.post(f"/containers/{created}/exec", command)
        assert answer.error == (409, f"container {created} is not running")
    waiting = create(engine, box, "true")
    assert engine.api.post(f"/containers/{box}/pause").status == 204
    for path, body in ((f"/containers/{box}/exec", command), (f"/exec/{waiting}/start", {"Detach": True})):
        answer = engine.api.post(path, body)
        assert answer.status == 409
        assert answer.message == f"Container {box} is paused, unpause the container before exec"
    assert engine.api.post(f"/containers/{box}/unpause").status == 204
    # An exec that was not started during a run does not exist in the next run.
    for verb in ("stop?t=0", "start"):
        assert engine.api.post(f"/containers/{box}/{verb}").status == 204
        assert engine.api.post(f"/exec/{waiting}/start", {"Detach": True}).status == 404


@pytest.mark.core
def test_start_of_an_exec_during_a_pause_or_stop(engine: Engine, box: str) -> None:
    """At any moment, the exec either runs or gets the error for a stopped container."""
    answers: set[tuple[int, str]] = set()
    stop = threading.Event()

    def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = engine.api.post(path, body)
        if answer.status >= 300:
            answers.add((answer.status, re.sub("instance: [0-9a-f]{64}", "instance", answer.message)))
        found: dict[str, Any] = answer.json() if answer.body else {}
        return found

    def work() -> None:
        while not stop.is_set():
            if name := ask(f"/containers/{box}/exec", {"Cmd": ["true"]}).get("Id"):
                ask(f"/exec/{name}/start", {"Detach": True})

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        for verbs in (("pause", "unpause"), ("kill", "start")):
            for _ in range(6):
                # Some execs run in between.
                engine.docker("exec", box, "true")
                for verb in verbs:
                    assert engine.api.post(f"/containers/{box}/{verb}").status == 204
    finally:
        stop.set()
        for worker in workers:
            worker.join(60)
    assert answers <= {
        (404, "No such exec instance"),
        (409, f"Container {box} is paused, unpause the container before exec"),
        (409, f"container {box} is not running"),
    }
