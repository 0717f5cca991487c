"""`docker attach`: before start, while running, replay, detach, websocket."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import struct
import time
from typing import Any

import pytest
from docker.types import LogConfig

from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.streams import Stream, Terminal, close_stream, demultiplex, frames, hijack, raw_socket

INPUT = {"OpenStdin": True, "StdinOnce": True}
ALL = "stream=1&stdin=1&stdout=1&stderr=1"
RAW, MULTIPLEXED = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"


def exit_code(engine: Engine, identity: str) -> int:
    return int(engine.api.post(f"/containers/{identity}/wait").json()["StatusCode"])


@pytest.mark.core
def test_attached_before_start_nothing_is_missed(engine: Engine) -> None:
    script = "i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); done; echo err >&2"
    for _ in range(3):
        with container(engine, start=False, Cmd=["sh", "-c", script]) as box:
            with hijack(engine, f"/containers/{box}/attach?stream=1&stdout=1&stderr=1") as stream:
                assert (stream.status, stream.headers["Content-Type"]) == (101, MULTIPLEXED)
                assert engine.api.post(f"/containers/{box}/start").status == 204
                found = demultiplex(stream.read())
            assert found[1].split() == [str(number).encode() for number in range(200)]
            assert found[2] == b"err\n"


@pytest.mark.core
def test_input_before_and_after_start_and_its_end(engine: Engine) -> None:
    config: dict[str, Any] = {"Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
    with container(engine, start=False, **config) as box:
        # dockerd loses bytes that come with the request head.
        early = b"" if engine.kind == "dockerd" else b"with the head, "
        with hijack(engine, f"/containers/{box}/attach?{ALL}", early=early) as stream:
            stream.write(b"before, ")
            assert engine.api.post(f"/containers/{box}/start").status == 204
            stream.write(b"after")
            stream.end_input()
            assert demultiplex(stream.read()) == {1: early + b"before, after"}
        assert exit_code(engine, box) == 0


def test_response_head(engine: Engine) -> None:
    def head(path: str, *, upgrade: bool, tty: bool = False) -> tuple[int, str]:
        with container(engine, Cmd=["sleep", "600"], Tty=tty) as box:
            with hijack(engine, f"{path}/containers/{box}/attach?stream=1&stdout=1", upgrade=upgrade) as stream:
                return stream.status, stream.headers["Content-Type"]

    assert head("/v1.42", upgrade=True) == (101, MULTIPLEXED)
    assert head("/v1.41", upgrade=True) == (101, RAW)
    assert head("/v1.42", upgrade=False) == (200, RAW)
    assert head("/v1.42", upgrade=True, tty=True) == (101, RAW)


def test_replay_then_stream(engine: Engine) -> None:
    script = "echo first; echo second >&2; read line; echo got $line"
    with container(engine, Cmd=["sh", "-c", script], OpenStdin=True) as box:
        logs = f"/containers/{box}/logs"
        assert until(lambda: engine.api.get(logs, stdout=1, stderr=1).body.count(b"\n") == 2, seconds=60)
        with hijack(engine, f"/containers/{box}/attach?logs=1&stdout=1&stderr=1") as stream:
            assert sorted(frames(stream.read())) == [(1, b"first\n"), (2, b"second\n")]
        with hijack(engine, f"/containers/{box}/attach?logs=1&{ALL}") as stream:
            stream.until(b"first\n")
            stream.write(b"x\n")
            stream.until(b"got x\n")
            stream.read()
        with hijack(engine, f"/containers/{box}/attach?logs=1&stderr=1") as stream:
            assert frames(stream.read()) == [(2, b"second\n")]


@pytest.mark.core
def test_container_is_stopped_when_attach_ends(engine: Engine) -> None:
    for code in range(3, 8):
        with container(engine, start=False, Cmd=["sh", "-c", f"echo x; exit {code}"]) as box:
            with hijack(engine, f"/containers/{box}/attach?{ALL}") as stream:
                assert engine.api.post(f"/containers/{box}/start").status == 204
                stream.read()
            state = engine.api.get(f"/containers/{box}/json").json()["State"]
            assert (state["Status"], state["ExitCode"]) == ("exited", code)


@pytest.mark.core
def test_concurrent_clients_get_the_same_output(engine: Engine) -> None:
    with container(engine, Cmd=["cat"], OpenStdin=True) as box:
        path = f"/containers/{box}/attach?{ALL}"
        with hijack(engine, path) as one, hijack(engine, path) as two:
            one.write(b"from one\n")
            for stream in (one, two):
                stream.until(b"from one\n")
            two.write(b"from two\n")
            for stream in (one, two):
                stream.until(b"from two\n")
        with hijack(engine, path) as three:
            three.write(b"still here\n")
            three.until(b"still here\n")


def test_detach_and_attach_again_on_a_terminal(engine: Engine) -> None:
    began = int(time.time()) - 1
    with container(engine, Cmd=["sh"], OpenStdin=True, Tty=True) as box:
        with Terminal(engine, "attach", box) as terminal:
            terminal.enter(b"echo o-$((2+3))\n")
            terminal.until(b"o-5")
            terminal.enter(b"\x10\x11")
            terminal.wait()
        with Terminal(engine, "attach", "--detach-keys", "ctrl-a,q", box) as terminal:
            terminal.enter(b"echo o-$((3+3))\n")
            terminal.until(b"o-6")
            terminal.enter(b"\x10\x11\x01q")
            terminal.wait()
        # The CLI detects the keys itself and disconnects; for other clients the engine detects them.
        with hijack(engine, f"/containers/{box}/attach?{ALL}") as stream:
            stream.write(b"\x10\x11")
            stream.read()
        assert engine.api.get(f"/containers/{box}/json").json()["State"]["Running"] is True
        filters = json.dumps({"container": [box], "event": ["attach", "detach"]})

        def actions() -> list[str]:
            answer = engine.api.get("/events", since=began, until=int(time.time()) + 1, filters=filters)
            return [event["Action"] for event in answer.lines()]

        expected = ["attach", "attach", "attach", "detach"]
        assert until(lambda: actions() == expected, seconds=60), actions()


def test_invalid_attach_requests_are_refused(engine: Engine) -> None:
    def refused(path: str) -> int:
        with hijack(engine, path) as stream:
            stream.read()
            return stream.status

    assert refused("/containers/nosuch/attach?stream=1") == 404
    with container(engine, Cmd=["sleep", "600"]) as box:
        assert refused(f"/containers/{box}/attach?stream=1&detachKeys=ctrl-") == 400
        for keys in ("ctrl-A,a", "%C3%A9", ",", "del"):
            assert refused(f"/containers/{box}/attach?stream=1&detachKeys={keys}") == 400
        assert engine.api.post(f"/containers/{box}/pause").status == 204
        assert refused(f"/containers/{box}/attach?stream=1&stdout=1") == 409
        assert engine.api.post(f"/containers/{box}/unpause").status == 204


def test_disconnect_before_start(engine: Engine) -> None:
    with container(engine, start=False, Cmd=["echo", "hi"]) as box:
        path = f"/containers/{box}/attach?stream=1&stdout=1"
        hijack(engine, path).close()
        with hijack(engine, path) as stream:
            assert engine.api.post(f"/containers/{box}/start").status == 204
            assert demultiplex(stream.read()) == {1: b"hi\n"}


def test_failed_start_disconnects_the_client(engine: Engine) -> None:
    with container(engine, start=False, Cmd=["nosuchprogram"]) as box:
        with hijack(engine, f"/containers/{box}/attach?stream=1&stdout=1&stderr=1") as stream:
            assert engine.api.post(f"/containers/{box}/start").status == 400
            assert stream.read() == b""


def test_a_slow_client_loses_nothing(engine: Engine) -> None:
    """The client reads nothing until the container has written far more than sockets and pipes can buffer."""
    count = 300_000
    with container(engine, start=False, Cmd=["seq", str(count)]) as box:
        with hijack(engine, f"/containers/{box}/attach?stream=1&stdout=1") as stream:
            assert engine.api.post(f"/containers/{box}/start").status == 204
            stream.until(b"1\n")
            found = demultiplex(b"\x01\0\0\0\0\0\0\0" + _realigned(stream))
        assert found[1].split()[-1] == str(count).encode()
        assert found[1].count(b"\n") >= count - 1


def _realigned(stream: Stream) -> bytes:
    """Return the remainder of a partial frame as a frame of its own, and everything after it."""
    data = stream.read()
    at = data.find(b"\x01\0\0\0")
    assert at >= 0
    return b"\x01\0\0\0" + struct.pack(">I", at) + data


def test_run_on_a_terminal(engine: Engine) -> None:
    with Terminal(engine, "run", "--rm", "-it", "--network", "none", "busybox", "sh", rows=30, columns=90) as terminal:
        terminal.until(b"# ")
        terminal.enter(b"until [ \"$(stty size)\" = '30 90' ]; do sleep 0.1; done; echo is-$((3+4))\n")
        terminal.until(b"is-7")
        terminal.enter(b"exit 9\n")
        assert terminal.wait() == 9


class WebSocket:
    """A minimal client for the test."""

    def __init__(self, engine: Engine, path: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock = engine.api.raw(timeout=60)
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: docker",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            "Origin: http://localhost",
        ]
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        self._data = b""
        while b"\r\n\r\n" not in self._data:
            self._some()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        assert b" 101 " in head.split(b"\r\n")[0], head
        expected = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False)
        assert base64.b64encode(expected.digest()) in head

    def _some(self) -> None:
        data = self.sock.recv(65536)
        assert data, "the websocket closed"
        self._data += data

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            self._some()
        data_read, self._data = self._data[:size], self._data[size:]
        return data_read

    def receive(self) -> tuple[int, bytes]:
        first, size = self._take(2)
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        return first & 0x0F, self._take(size)

    def send(self, data: bytes, opcode: int = 2) -> None:
        mask = b"\x11\x22\x33\x44"
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        self.sock.sendall(bytes((0x80 | opcode, 0x80 | len(data))) + mask + masked)


def test_attach_by_websocket(engine: Engine) -> None:
    with container(engine, Cmd=["cat"], OpenStdin=True, StdinOnce=True) as box:
        client = WebSocket(engine, f"/containers/{box}/attach/ws?stream=1&stdin=1&stdout=1")
        try:
            client.send(b"through a websocket\n")
            got = b""
            while not got.endswith(b"websocket\n"):
                opcode, data = client.receive()
                assert opcode == 2
                got += data
            assert got == b"through a websocket\n"
            client.send(struct.pack(">H", 1000), opcode=8)
        finally:
            client.sock.close()
        # StdinOnce: the container's stdin closes with its client.
        assert exit_code(engine, box) == 0


def test_attach_socket_of_docker_py(engine: Engine) -> None:
    with container(engine, Cmd=["cat"], OpenStdin=True, StdinOnce=True) as box:
        py_container: Any = engine.client.containers.get(box)
        found = py_container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        sock = raw_socket(found)
        sock.sendall(b"x\n")
        sock.shutdown(socket.SHUT_WR)
        data = b""
        while more := sock.recv(4096):
            data += more
        close_stream(found)
        assert demultiplex(data) == {1: b"x\n"}
        assert exit_code(engine, box) == 0


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("terminal", [False, True])
def test_logs_and_stream_join_without_gap(engine: Engine, driver: str, *, terminal: bool) -> None:
    """With `logs` and `stream`, each client gets every byte once, whenever it attaches, even within an unfinished
    line."""
    script = "seq 1 3000; printf pro; until [ -e /go ]; do sleep 0.1; done; echo mpt; seq 1 1000"
    created = engine.client.containers.create(
        "busybox", ["sh", "-c", script], tty=terminal, network_mode="none", log_config=LogConfig(type=driver)
    )
    lines = [*range(1, 3001), "prompt", *range(1, 1001), ""]
    whole = ("\r\n" if terminal else "\n").join(map(str, lines)).encode()
    before = whole[: whole.index(b"pro") + 3]

    def newcomer() -> tuple[Any, bytes]:
        """Attach a client; return it with the output up to the unfinished line."""
        pieces = created.attach(stdout=True, stderr=True, logs=True, stream=True)
        data = b""
        while len(data) < len(before):
            data += next(pieces)
        return pieces, data

    try:
        created.start()
        clients = [newcomer() for _ in range(3)]  # the first within the line, the others after "pro"
        assert all(data == before for _, data in clients)
        assert created.exec_run(["touch", "/go"]).exit_code == 0
        assert all(data + b"".join(pieces) == whole for pieces, data in clients)
        for pieces, _ in clients:
            pieces.close()
    finally:
        created.remove(force=True)


@pytest.mark.parametrize(
    ("options", "config", "input", "result"),
    [
        (["-a"], {"Cmd": ["sh", "-c", "echo out; echo err >&2; exit 7"]}, "", (7, "out\n", "err\n")),
        (["-i"], {"Cmd": ["sh", "-c", "read x; echo got $x; exit 3"], **INPUT}, "it\n", (3, "got it\n", "")),
        (["-ai"], {"Cmd": ["cat"], **INPUT}, "all of it", (0, "all of it", "")),
        # Input without a reader is discarded.
        (["-ai"], {"Cmd": ["sh", "-c", "read x; echo got $x; exit 4"]}, "it\n", (4, "got\n", "")),
        (["-a"], {"Cmd": ["sh", "-c", "exit 5"], "Tty": True}, "", (5, "", "")),
        # With a restart policy, the exit code of the first run.
        (["-a"], {"Cmd": ["sh", "-c", "exit 6"], "HostConfig": {"RestartPolicy": {"Name": "always"}}}, "", (6, "", "")),
        (["-a"], {"Cmd": ["sh", "-c", "echo x; exit 8"], "HostConfig": {"AutoRemove": True}}, "", (8, "x\n", "")),
    ],
)
def test_start_attached(
    engine: Engine, options: list[str], config: dict[str, Any], input: str, result: tuple[int, str, str]
) -> None:
    with container(engine, start=False, **config) as box:
        done = engine.docker("start", *options, box, input=input, check=False)
        assert (done.status, done.stdout, done.stderr) == result


@pytest.mark.parametrize("verb", ["start", "attach"])
def test_signals_are_forwarded_to_the_container(engine: Engine, verb: str) -> None:
    script = "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    with container(engine, start=verb == "attach", Cmd=["sh", "-c", script], Tty=False) as box:
        args = ("start", "-a", box) if verb == "start" else ("attach", box)
        with engine.popen(*args, stdin=None) as client:
            try:
                assert until(lambda: "ready" in engine.docker("logs", box).stdout)
                # The container is ready for signals once it is attached, which an event reports.
                assert until(lambda: attached(engine, box))
                client.send_signal(signal.SIGTERM)
                out, _ = client.communicate(timeout=60)
                # `docker start` 29 detaches when it has forwarded the signal, with status 0.
                assert (out[-6:], client.returncode) in ((b"asked\n", 9), *[(b"ready\n", 0)] * (verb == "start"))
                assert engine.docker("wait", box).stdout == "9\n"
                assert engine.docker("logs", box).stdout == "ready\nasked\n"
            finally:
                client.kill()


def attached(engine: Engine, box: str) -> bool:
    filters = json.dumps({"container": [box], "event": ["attach"]})
    return bool(engine.api.get("/events", since=0, until=int(time.time()) + 1, filters=filters).lines())
