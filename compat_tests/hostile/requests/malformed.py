"""Byte sequences close to HTTP/1.1: requests cut, duplicated, corrupted and split, by a seed."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

_PATHS = (
    b"/_ping",
    b"/info",
    b"/v1.45/containers/json",
    b"/containers/create",
    b"/session",
    b"/x" * 200,
    b"*",
    b"//..",
)
_LINES = (
    b"Host: d",
    b"Host: e",
    b"Content-Length: 5",
    b"Content-Length: 99999999999",
    b"Content-Length: -1",
    b"Content-Length: 5, 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding : chunked",
    b"Expect: 100-continue",
    b"Connection: close",
    b"Connection: Upgrade",
    b"Connection: keep-alive, upgrade, \xff",
    b"Upgrade: tcp",
    b"Upgrade: h2c",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Key: x",
    b"HTTP2-Settings: x",
    b"Content-Type: application/json",
    b"X-Registry-Auth: " + b"A" * 3000,
    b"X: " + b"y" * 70_000,
    b" folded",
    b": x",
    b"\0: \0",
)
_BODIES = (
    b"hello",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"fffffffffffffffff\r\n",
    b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    b"0\r\n" + b"A: b\r\n" * 100 + b"\r\n",
    b'{"Image":"busybox"}',
    b"\x81\x85abcdhello",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
)
#: Seconds to wait for the server's response.
PATIENCE = 0.05


def message(chance: random.Random) -> bytes:
    """Return one request, or a part of it."""
    method = chance.choice((b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PRI", b"get", b"\x16\x03", b""))
    version = chance.choice((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"", b"HTTP/1.1 x"))
    lines = [b" ".join((method, chance.choice(_PATHS), version))]
    lines += [b"Host: d"] * (chance.random() < 0.8) + chance.choices(_LINES, k=chance.randrange(5))
    data = chance.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r")).join([*lines, b"", b""])
    data += chance.choice(_BODIES) * chance.choice((0, 1, 1, 2))
    for _ in range(chance.choice((0, 0, 1, 3))):
        at = chance.randrange(len(data) + 1)
        data = chance.choice((data[:at], data[:at] + chance.randbytes(1) + data[at + 1 :], data[:at] + data))
    return data


def send(connect: Callable[[], socket.socket], chance: random.Random) -> bytes:
    """Send some messages on one connection, in pieces, and end in one of several ways. Returns what was received."""
    answer = b""
    with connect() as sock:
        sock.settimeout(PATIENCE)
        try:
            data = b"".join(message(chance) for _ in range(chance.choice((1, 1, 2, 5))))
            step = chance.choice((len(data), len(data), 7, 1000)) if len(data) < 20_000 else len(data)
            for at in range(0, len(data), max(step, 1)):
                sock.sendall(data[at : at + step])
            if chance.random() < 0.5:
                sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(65536):
                answer += part
        except OSError:
            pass  # the server has closed early, or waits for the rest
    return answer
