"""A websocket (RFC 6455) over a connection that was taken over: its messages become bytes of a plain socket.

Only what ``attach/ws`` needs: binary messages out; text or binary in; ping, pong and close.
"""

import asyncio
import base64
import contextlib
import hashlib
import socket
import struct

from starlette.requests import Request

from engine.errors import WharfError, invalid

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_READ = 1 << 16
#: A single frame longer than this is refused; keyboards and pipes send less.
_MAX_FRAME = 1 << 20
_PROTOCOL_ERROR, _TOO_BIG, _NORMAL = 1002, 1009, 1000


def accept_head(request: Request) -> bytes:
    """The head that answers a websocket's opening.

    :raises WharfError: INVALID_ARGUMENT: this is none.
    """
    headers = request.headers
    key = headers.get("sec-websocket-key", "")
    if headers.get("upgrade", "").lower() != "websocket" or not key:
        raise invalid("not websocket protocol")
    if headers.get("sec-websocket-version", "") != "13":
        raise invalid("missing or bad WebSocket Version")
    accepted = base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest())
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accepted,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def frame(opcode: int, data: bytes) -> bytes:
    """One unmasked frame, as a server sends them."""
    size = len(data)
    if size < 126:
        head = bytes((0x80 | opcode, size))
    elif size < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
    return head + data


def unmask(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask, as one long number."""
    size = len(data)
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pattern, "big")).to_bytes(size, "big")


async def relay(client: socket.socket, early: bytes, inner: socket.socket) -> None:
    """Carries bytes between the websocket on ``client`` and ``inner`` until one of them ends; closes both."""
    reader, writer = await asyncio.open_connection(sock=client)
    plain_reader, plain_writer = await asyncio.open_connection(sock=inner)
    inbound = asyncio.create_task(_inbound(_Early(early, reader), writer, plain_writer), name="websocket in")
    outbound = asyncio.create_task(_outbound(plain_reader, writer), name="websocket out")
    try:
        await asyncio.wait({inbound, outbound}, return_when=asyncio.FIRST_COMPLETED)
        if outbound.done() and not outbound.cancelled() and outbound.exception() is None:
            with contextlib.suppress(OSError):
                writer.write(frame(_CLOSE, struct.pack(">H", _NORMAL)))
                await writer.drain()
    finally:
        inbound.cancel()
        outbound.cancel()
        await asyncio.gather(inbound, outbound, return_exceptions=True)
        for each in (writer, plain_writer):
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()


class _Early:
    """The client's bytes, those that came with its head first."""

    def __init__(self, early: bytes, reader: asyncio.StreamReader) -> None:
        self._early = early
        self._reader = reader

    async def exactly(self, size: int) -> bytes:
        taken, self._early = self._early[:size], self._early[size:]
        return taken + await self._reader.readexactly(size - len(taken)) if len(taken) < size else taken


async def _outbound(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_READ):
        writer.write(frame(_BINARY, data))
        await writer.drain()


async def _inbound(source: _Early, writer: asyncio.StreamWriter, plain: asyncio.StreamWriter) -> None:
    try:
        while True:
            opcode, data = await _receive(source)
            if opcode in (_TEXT, _BINARY, _CONTINUATION):
                plain.write(data)
                await plain.drain()
            elif opcode == _PING:
                writer.write(frame(_PONG, data))
                await writer.drain()
            elif opcode == _CLOSE:
                writer.write(frame(_CLOSE, data[:2]))
                await writer.drain()
                return
    except WharfError as error:
        code = _TOO_BIG if "large" in error.message else _PROTOCOL_ERROR
        writer.write(frame(_CLOSE, struct.pack(">H", code) + error.message.encode()[:120]))
        await writer.drain()
    except (OSError, EOFError):
        return


async def _receive(source: _Early) -> tuple[int, bytes]:
    first, second = await source.exactly(2)
    opcode, size = first & 0x0F, second & 0x7F
    if first & 0x70 or not second & 0x80:
        raise invalid("a frame that no client may send")
    if size == 126:
        (size,) = struct.unpack(">H", await source.exactly(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", await source.exactly(8))
    if size > _MAX_FRAME or (opcode >= _CLOSE and size > 125):
        raise invalid("the frame is too large")
    mask = await source.exactly(4)
    return opcode, unmask(await source.exactly(size), mask)
