"""Hijacked connections from a client's view: the response head, then raw bytes both ways; and stdcopy frames."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import time
from types import TracebackType
from typing import Any

from compat_tests.support.engines import Engine
from compat_tests.support.patience import FACTOR

DEADLINE = 60.0


class Stream:
    """One hijacked connection. ``status`` and ``headers`` are those of the response head."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(DEADLINE)
        self._rest = b""
        while b"\r\n\r\n" not in self._rest:
            data = sock.recv(65536)
            assert data, f"the connection closed in the head: {self._rest!r}"
            self._rest += data
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {key.title(): value for key, _, value in (line.partition(": ") for line in lines[1:])}

    def read(self) -> bytes:
        """Read until the server closes its side."""
        parts, self._rest = [self._rest], b""
        while more := self.sock.recv(1 << 18):
            parts.append(more)
        return b"".join(parts)

    def until(self, expected: bytes) -> bytes:
        """Read until ``expected`` appears; return everything up to and including it."""
        while expected not in self._rest:
            more = self.sock.recv(65536)
            assert more, f"the stream ended without {expected!r}: {self._rest!r}"
            self._rest += more
        found, _, self._rest = self._rest.partition(expected)
        return found + expected

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def end_input(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def hijack(
    engine: Engine, path: str, body: dict[str, Any] | None = None, *, upgrade: bool = True, early: bytes = b""
) -> Stream:
    """POST ``path``; ``early`` is sent in the same write as the request."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: docker", f"Content-Length: {len(data)}"]
    if data:
        lines.append("Content-Type: application/json")
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    sock = engine.api.raw(timeout=DEADLINE)
    try:
        sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data + early)
        return Stream(sock)
    except BaseException:
        sock.close()
        raise


def upgrade(sock: socket.socket, request: bytes) -> None:
    """Request an upgrade; read exactly the response head."""
    sock.sendall(request)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        assert piece, head
        head += piece
    assert head.startswith(b"HTTP/1.1 101"), head


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Parse the stdcopy frames of a stream; AssertionError if the stream is truncated."""
    found, at = [], 0
    while at < len(data):
        assert at + 8 <= len(data), f"a truncated frame at {at} of {len(data)}"
        kind, size = struct.unpack_from(">BxxxL", data, at)
        assert at + 8 + size <= len(data), f"a truncated frame at {at} of {len(data)}"
        found.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size
    return found


def demultiplex(data: bytes) -> dict[int, bytes]:
    """Return the bytes of each stream: 1 stdout, 2 stderr."""
    found: dict[int, list[bytes]] = {}
    for kind, part in frames(data):
        found.setdefault(kind, []).append(part)
    return {kind: b"".join(parts) for kind, parts in found.items()}


def raw_socket(result: Any) -> socket.socket:
    """Return the socket of docker-py's result for ``socket=True``."""
    sock: socket.socket = getattr(result, "_sock", result)
    return sock


def close_stream(result: Any) -> None:
    """Close docker-py's result completely: the wrapper, its response, and the connection below."""
    response, sock = getattr(result, "_response", None), raw_socket(result)
    if response is not None:
        response.close()
    result.close()
    sock.close()


class Terminal:
    """The docker CLI on a pseudo-terminal, as a person uses it."""

    def __init__(self, engine: Engine, *args: str, rows: int = 24, columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns, slave)
        self.process = subprocess.Popen(
            ["docker", *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=engine.environment(TERM="xterm"),
            start_new_session=True,
            # Its controlling terminal: otherwise the CLI gets no SIGWINCH.
            preexec_fn=_set_controlling_terminal,
        )
        os.close(slave)
        self._displayed = b""

    def resize(self, rows: int, columns: int, fd: int | None = None) -> None:
        import fcntl
        import termios

        fcntl.ioctl(self.master if fd is None else fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def enter(self, data: bytes) -> None:
        os.write(self.master, data)

    def until(self, expected: bytes) -> bytes:
        """Read until ``expected`` was displayed."""
        end = time.monotonic() + DEADLINE * FACTOR
        while expected not in self._displayed:
            ready, _, _ = select.select([self.master], [], [], 1)
            if not ready:
                assert time.monotonic() < end, f"no {expected!r} in {self._displayed!r}"
                # The CLI watches for resizes only after it has sent the initial size: repeat the signal.
                self.process.send_signal(signal.SIGWINCH)
                continue
            try:
                data = os.read(self.master, 65536)
            except OSError:
                data = b""
            assert data, f"the terminal closed without {expected!r}: {self._displayed!r}"
            self._displayed += data
        found, _, self._displayed = self._displayed.partition(expected)
        return found + expected

    def wait(self) -> int:
        """Drain the output until the program exits; return its status."""
        while True:
            try:
                ready, _, _ = select.select([self.master], [], [], DEADLINE * FACTOR)
                if not ready or not os.read(self.master, 65536):
                    break
            except OSError:
                break
        return self.process.wait(DEADLINE)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


def _set_controlling_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
