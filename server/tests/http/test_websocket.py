"""Websockets on real sockets: messages, control frames, broken protocols."""

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest
from starlette.requests import Request

from server.http.routing import ApiRoute
from server.http.websocket import websocket
from server.tests.http.serving import Serving, read_all, read_until, serving


async def socket_echo(request: Request) -> None:
    web = await websocket(request, text=request.url.path == "/ws-text")
    await web.accept()
    loop = asyncio.get_running_loop()

    async def serve() -> None:
        with web.sock:
            while data := await loop.sock_recv(web.sock, 65536):
                await loop.sock_sendall(web.sock, data.upper())

    await asyncio.gather(web.relay(), serve())


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    routes = [ApiRoute("GET", path, socket_echo, waits=True) for path in ("/ws", "/ws-text")]
    with serving(tmp_path_factory.mktemp("api"), routes) as running:
        yield running


HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: d\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def client_frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    key = os.urandom(4)
    first, size = opcode | (0x80 if final else 0), len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else struct.pack("!BBH", first, 0x80 | 126, size)
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def server_frame(sock: socket.socket) -> tuple[int, bytes]:
    """Opcode and payload of one whole message."""
    first, size = sock.recv(2, socket.MSG_WAITALL)
    assert first & 0xF0 == 0x80
    if size == 126:
        size = int.from_bytes(sock.recv(2, socket.MSG_WAITALL), "big")
    return first & 0x0F, sock.recv(size, socket.MSG_WAITALL) if size else b""


def test_messages_and_control_frames(api: Serving) -> None:
    with api.connect() as sock:
        # RFC 6455's own example of a key and its answer; a frame is sent early.
        sock.sendall(HANDSHAKE % b"/ws" + client_frame(2, b"early"))
        head = read_until(sock, b"\r\n\r\n")
        assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
        assert server_frame(sock) == (2, b"EARLY")
        big = b"y" * 40000
        sock.sendall(client_frame(1, big))
        received = b""
        while len(received) < len(big):
            opcode, data = server_frame(sock)
            assert opcode == 2
            received += data
        assert received == big.upper()
        sock.sendall(client_frame(2, b"in ", final=False) + client_frame(9, b"hi") + client_frame(0, b"pieces"))
        answers = [server_frame(sock)]
        while sum(len(data) for opcode, data in answers if opcode == 2) < len(b"in pieces"):
            answers.append(server_frame(sock))
        assert b"".join(data for opcode, data in answers if opcode == 2) == b"IN PIECES"
        assert (10, b"hi") in answers
        sock.sendall(client_frame(8, b"\x03\xe8"))
        assert read_all(sock) == b"\x88\x02\x03\xe8"


def test_text_messages(api: Serving) -> None:
    """Messages are whole characters, and what is none is replaced."""
    with api.connect() as sock:
        sock.sendall(HANDSHAKE % b"/ws-text")
        read_until(sock, b"\r\n\r\n")
        sock.sendall(client_frame(2, b"gr\xc3"))
        assert server_frame(sock) == (1, b"GR")
        sock.sendall(client_frame(2, b"\xbcn \xff"))
        assert server_frame(sock) == (1, "üN \N{REPLACEMENT CHARACTER}".encode())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\x01x", 1002),  # not masked
        (b"\xc2\x81\0\0\0\0x", 1002),  # a reserved bit
        (b"\x83\x80\0\0\0\0", 1002),  # an unknown opcode
        (b"\x09\x80\0\0\0\0", 1002),  # a control frame in pieces
        (client_frame(1, b"\xff"), 1007),  # text that is not UTF-8
    ],
)
def test_a_broken_protocol_closes_the_websocket(api: Serving, data: bytes, code: int) -> None:
    with api.connect() as sock:
        sock.sendall(HANDSHAKE % b"/ws" + data)
        read_until(sock, b"\r\n\r\n")
        opcode, payload = server_frame(sock)
        assert (opcode, int.from_bytes(payload[:2], "big")) == (8, code)
        assert read_all(sock) == b""


def test_wsproto_is_imported_by_the_first_websocket() -> None:
    code = "import sys, server.daemon; assert not {'wsproto', 'h11'} & set(sys.modules), 'wsproto is imported'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_request_without_a_handshake(api: Serving) -> None:
    head, _, body = api.ask(b"GET /ws HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert "not a websocket handshake" in json.loads(body)["message"]
