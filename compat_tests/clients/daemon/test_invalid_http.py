"""Invalid input on the API's socket: no HTTP, endless requests, silent clients. The daemon survives and stays small."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket

import pytest

from compat_tests.support import images
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import open_descriptors, private_memory
from compat_tests.support.polling import until

HEAD = b"Host: d\r\n"


def exchange(engine: Engine, sent: bytes, *, end: bool = False) -> bytes:
    """Return what is received until the engine closes or falls silent."""
    with engine.api.raw(timeout=30) as sock, contextlib.suppress(OSError):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(sent)
            if end:
                sock.shutdown(socket.SHUT_WR)
        return sock.recv(65536)
    return b""


def test_invalid_http_is_answered_and_closed(engine: Engine) -> None:
    create = b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\n"
    for sent in (
        *(
            bytes(range(256)) * 8,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r.",
        ),
        *(b"GET /_ping HTTP/1.1\r\n\r\n", b"GET /_ping HTTP/3.0\r\n" + HEAD + b"\r\n", b"\0" * 20),
        create + b"Content-Length: -1\r\n\r\n",
        create + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        create + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        create + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        create + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ):
        assert exchange(engine, sent).startswith(b"HTTP/1.1 400 "), sent[:80]
    assert exchange(engine, b"GET /_ping HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert exchange(engine, create + b"Content-Length: 100\r\n\r\n{", end=True)[:13] in (b"", b"HTTP/1.1 400 ")
    assert engine.api.get("/_ping").status == 200


def test_endless_heads_and_bodies_are_cut_off(engine: Engine) -> None:
    before = private_memory([engine.daemon.pid])
    for start, piece, status in (
        (b"GET /_ping HTTP/1.1\r\n" + HEAD, b"X-Long: " + b"x" * 60000 + b"\r\n", b"431"),
        (b"GET /", b"x" * 65536, b"431"),
        *(
            (
                b"POST " + path + b" HTTP/1.1\r\n" + HEAD
                + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
                b'10000\r\n"' + b"a" * 0xFFFF + b"\r\n",
                status,
            )
            for path, status in (
                (b"/containers/create", b"400"),
                (b"/networks/create", b"400"),
                (b"/exec/x/start", b"400"),
                (b"/nosuch", b"404"),
            )
        ),
    ):  # fmt: skip
        with engine.api.raw(timeout=30) as sock:
            with contextlib.suppress(OSError):
                sock.sendall(start)
                for _ in range(1000):
                    sock.sendall(piece)
            with contextlib.suppress(OSError):
                assert sock.recv(1000).split()[1:2] in ([status], []), start[:40]
    assert engine.api.get("/_ping").status == 200
    assert private_memory([engine.daemon.pid]) - before < 32 * 1024 * 1024


@pytest.mark.parametrize(
    ("path", "packed"),
    [
        ("/build?t=stalled", False),
        ("/build?t=stalled", True),
        ("/images/load", True),
        ("/images/create?fromSrc=-", True),
    ],
)
def test_stalled_uploads_do_not_occupy_threads(engine: Engine, path: str, packed: bool) -> None:
    data = images.layer({"Dockerfile": b"FROM scratch\n", "big": os.urandom(4 << 20)})
    body = gzip.compress(data, 1) if packed else data
    head = f"POST {path} HTTP/1.1\r\nContent-Type: application/x-tar\r\nContent-Length: {len(body)}\r\n".encode() + HEAD
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            sock = stack.enter_context(contextlib.closing(engine.api.raw(timeout=30)))
            with contextlib.suppress(TimeoutError):  # clients served later are not read either
                sock.sendall(head + b"\r\n" + body[: len(body) // 2])
        small = images.layer({"Dockerfile": b"FROM scratch\nLABEL a=b\n", "other": os.urandom(2 << 20)})
        archive = {"Content-Type": "application/x-tar"}
        built = engine.api.request("POST", "/build?q=1", body=small, headers=archive, timeout=90)
        assert built.status == 200
        identity = built.lines()[-1]["stream"].strip()
        assert identity.startswith("sha256:")
        assert engine.api.delete(f"/images/{identity}").status == 200


def test_idle_and_slow_clients_do_not_block_others(engine: Engine) -> None:
    before = open_descriptors(engine.daemon.pid)
    with contextlib.ExitStack() as stack:
        for number in range(1500):
            sock: list[socket.socket] = []

            def connected(sock: list[socket.socket] = sock) -> bool:
                # With a full backlog, a blocking connect would wait; a non-blocking one fails.
                with contextlib.suppress(BlockingIOError):
                    sock.append(engine.api.raw(timeout=30))
                return bool(sock)

            assert until(connected)
            stack.enter_context(sock[0])
            if number % 3 == 0:
                sock[0].sendall(b"GET /_ping HT")
            elif number % 3 == 1:
                sock[0].sendall(b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: 100\r\n\r\n{")
        assert engine.api.get("/_ping").status == 200
        assert open_descriptors(engine.daemon.pid) > 1500
    assert until(lambda: open_descriptors(engine.daemon.pid) < before + 100)
    assert engine.api.get("/info").status == 200
