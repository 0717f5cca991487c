"""The websocket endpoint of attach: RFC 6455, as little as a container's streams need.

The caller gets a stream socket, as from :func:`server.http.hijack.hijack`; here the bytes pass through this process,
which wraps and unwraps frames. Output is sent as binary messages (text for clients before 1.28), whatever message
type comes in is input.
"""

import asyncio
import base64
import hashlib
import socket
import struct
from contextlib import suppress

from starlette.requests import Request

from engine.common.errors import invalid
from server.http.hijack import Hijacked, hijack

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CHUNK = 32 * 1024
# A terminal's input; a message beyond this is an attack on memory.
MAX_MESSAGE = 1024 * 1024

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class ProtocolError(Exception):
    """The client broke the protocol; ``code`` is sent with the close frame."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def frame(opcode: int, payload: bytes) -> bytes:
    """One unfragmented frame of a server (no mask)."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return head + payload


def unmask(payload: bytes, key: bytes) -> bytes:
    """Applies the client's mask (or takes it off: it is the same)."""
    count = len(payload)
    mask = (key * (count // 4 + 1))[:count]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(count, "big")


class Frames:
    """Takes a client's frames out of a byte stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(opcode, payload) of each complete frame.

        :raises ProtocolError: not masked, too large, reserved bits.
        """
        self._buffer += data
        found = []
        while (one := self._one()) is not None:
            found.append(one)
        return found

    def _one(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        if first & 0x70:
            raise ProtocolError(1002, "reserved bits are set")
        if not second & 0x80:
            raise ProtocolError(1002, "a client's frame must be masked")
        size, at = second & 0x7F, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(buffer) < at + width:
                return None
            size = int.from_bytes(buffer[at : at + width], "big")
            at += width
        if size > MAX_MESSAGE:
            raise ProtocolError(1009, "message too big")
        if first & 0x08 and (size > 125 or not first & 0x80):
            raise ProtocolError(1002, "a control frame is short and whole")
        if len(buffer) < at + 4 + size:
            return None
        key = bytes(buffer[at : at + 4])
        payload = bytes(buffer[at + 4 : at + 4 + size])
        del buffer[: at + 4 + size]
        return first & 0x0F, unmask(payload, key)


def check_handshake(request: Request) -> None:
    """:raises WharfError: INVALID_ARGUMENT: no websocket handshake of version 13."""
    headers = request.headers
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in headers.get("connection", "").lower():
        raise invalid("not a websocket handshake: missing Upgrade: websocket")
    if headers.get("sec-websocket-version") != "13" or not headers.get("sec-websocket-key"):
        raise invalid("not a websocket handshake of version 13")


class WebSocket:
    """A hijacked connection that speaks websocket, and the stream socket on its inner side."""

    def __init__(self, taken: Hijacked, key: str, protocol: str, *, text: bool) -> None:
        self._taken = taken
        self._key = key
        self._protocol = protocol
        self._opcode = _TEXT if text else _BINARY
        self._frames = Frames()
        self.sock, self._inner = socket.socketpair()
        self.sock.settimeout(0)
        self._inner.settimeout(0)

    async def accept(self) -> None:
        """Answers the handshake. Frames flow once :meth:`relay` runs."""
        digest = hashlib.sha1(self._key.encode() + _MAGIC, usedforsecurity=False).digest()
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest),
        ]
        if self._protocol:
            lines.append(b"Sec-WebSocket-Protocol: " + self._protocol.encode("latin-1"))
        lines += [name + b": " + value for name, value in self._taken.headers]
        await self._taken.send(b"\r\n".join(lines) + b"\r\n\r\n")

    async def relay(self) -> None:
        """Carries both directions until one side closes; closes both ends."""
        inward = asyncio.ensure_future(self._inward())
        try:
            await self._outward()
        finally:
            inward.cancel()
            await asyncio.gather(inward, return_exceptions=True)
            self._inner.close()
            self._taken.close()

    async def _outward(self) -> None:
        """Output → binary messages; the end of output → a close frame."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await loop.sock_recv(self._inner, _CHUNK):
                await self._taken.send(frame(self._opcode, data))
            await self._taken.send(frame(_CLOSE, struct.pack("!H", 1000)))

    async def _inward(self) -> None:
        """Messages → input; a close frame or a vanished client → the end of input."""
        loop = asyncio.get_running_loop()
        data = self._taken.early
        with suppress(OSError):
            try:
                while True:
                    for opcode, payload in self._frames.feed(data):
                        if not await self._handle(opcode, payload):
                            return
                    if not (data := await loop.sock_recv(self._taken.sock, _CHUNK)):
                        return
            except ProtocolError as error:
                await self._taken.send(frame(_CLOSE, struct.pack("!H", error.code) + str(error).encode()))
            finally:
                # A closed websocket is a client that left, which a half-closed stream is not.
                self._inner.shutdown(socket.SHUT_RDWR)

    async def _handle(self, opcode: int, payload: bytes) -> bool:
        if opcode in (_CONTINUATION, _TEXT, _BINARY):
            await asyncio.get_running_loop().sock_sendall(self._inner, payload)
        elif opcode == _PING:
            await self._taken.send(frame(_PONG, payload))
        elif opcode == _CLOSE:
            await self._taken.send(frame(_CLOSE, payload[:2]))
            return False
        elif opcode != _PONG:
            raise ProtocolError(1002, "unknown opcode")
        return True


async def websocket(request: Request, *, text: bool = False) -> WebSocket:
    """Takes the connection of a websocket handshake over; the caller then calls ``accept`` and ``relay``.

    :raises WharfError: INVALID_ARGUMENT: no such handshake.
    """
    check_handshake(request)
    key = request.headers["sec-websocket-key"]
    wanted = request.headers.get("sec-websocket-protocol", "").split(",")[0].strip()
    return WebSocket(await hijack(request), key, wanted, text=text)
