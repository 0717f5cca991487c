"""Requests that hijack the connection: refusals before, the response head, and errors in the stream."""

import json

import pytest

from server.tests.daemon import Daemon

RAW = b"application/vnd.docker.raw-stream"
MULTIPLEXED = b"application/vnd.docker.multiplexed-stream"


def framed(text: bytes) -> bytes:
    """A frame of stdout."""
    return b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text


@pytest.fixture
def ended(daemon: Daemon) -> str:
    """An exec that cannot be started again."""
    daemon.load("busybox:latest")
    container = daemon.run("box")
    identity: str = daemon.post("/containers/box/exec", {"Cmd": ["true"]}).json()["Id"]
    assert daemon.post(f"/exec/{identity}/start", {"Detach": True}).status_code == 200
    daemon.engine.tasks.exit("moby", container.id, identity)
    assert daemon.get(f"/exec/{identity}/json").json()["ExitCode"] == 0
    return identity


@pytest.mark.parametrize(
    ("version", "tty", "upgrade", "status", "kind"),
    [
        ("1.42", False, True, b"101 UPGRADED", MULTIPLEXED),
        ("1.42", True, True, b"101 UPGRADED", RAW),
        ("1.41", False, True, b"101 UPGRADED", RAW),
        ("1.42", False, False, b"200 OK", RAW),
    ],
)
def test_the_head_and_an_error_in_the_stream(
    daemon: Daemon, ended: str, version: str, tty: bool, upgrade: bool, status: bytes, kind: bytes
) -> None:
    head, rest = daemon.hijack("POST", f"/v{version}/exec/{ended}/start", {"Tty": tty}, upgrade=upgrade)
    first, *lines = head.split(b"\r\n")
    assert first == b"HTTP/1.1 " + status
    assert b"Content-Type: " + kind in lines
    assert (b"Upgrade: tcp" in lines) is upgrade
    text = f"Error: Exec command {ended} has already run\r\n".encode()
    assert rest == (text if tty else framed(text))


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/exec/nope/start", 404, "No such exec instance: nope"),
        ("/containers/nope/attach?stream=1&stdout=1", 404, "No such container: nope"),
        ("/containers/created/attach?stream=1&stdin=1&detachKeys=ctrl-", 400, None),
    ],
)
def test_what_is_refused_before(shared_daemon: Daemon, path: str, status: int, sentence: str | None) -> None:
    head, rest = shared_daemon.hijack("POST", path, {})
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"application/json" in head.lower()
    assert sentence is None or json.loads(rest)["message"] == sentence
