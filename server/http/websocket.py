"""The websocket endpoint of attach (RFC 6455). ``wsproto`` parses and writes the frames.

The caller gets a stream socket, as from :func:`server.http.hijack.hijack`; this process relays the bytes. Output is
sent as binary messages (text for clients before 1.28); messages of any type are input.

Imported when the first client upgrades: ``wsproto`` costs 0.5 MiB of private memory.
"""

import asyncio
import codecs
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

from engine.common.errors import invalid
from server.http.hijack import Hijacked, hijack

_CHUNK = 32 * 1024


def check_handshake(request: Request) -> None:
    """Checks the handshake.

    :raises WharfError: INVALID_ARGUMENT: not a websocket handshake of version 13.
    """
    headers = request.headers
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in headers.get("connection", "").lower():
        raise invalid("not a websocket handshake: missing Upgrade: websocket")
    if headers.get("sec-websocket-version") != "13" or not headers.get("sec-websocket-key"):
        raise invalid("not a websocket handshake of version 13")


class WebSocket:
    """A hijacked websocket connection, and the stream socket on its inner side."""

    def __init__(self, taken: Hijacked, key: str, protocol: str, *, text: bool) -> None:
        self._taken = taken
        self._key = key
        self._protocol = protocol
        # A text message must be UTF-8, and a character may be cut by the end of a read.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if text else None
        self._connection = Connection(ConnectionType.SERVER, trailing_data=taken.early)
        self._sending = asyncio.Lock()
        self.sock, self._inner = socket.socketpair()
        self.sock.settimeout(0)
        self._inner.settimeout(0)

    async def accept(self) -> None:
        """Answers the handshake. Frames are relayed once :meth:`relay` runs."""
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + generate_accept_token(self._key.encode("latin-1")),
        ]
        if self._protocol:
            lines.append(b"Sec-WebSocket-Protocol: " + self._protocol.encode("latin-1"))
        lines += [name + b": " + value for name, value in self._taken.headers]
        await self._taken.send(b"\r\n".join(lines) + b"\r\n\r\n")

    async def relay(self) -> None:
        """Relays both directions until one side closes; closes both ends."""
        inward = asyncio.ensure_future(self._inward())
        try:
            await self._outward()
        finally:
            inward.cancel()
            await asyncio.gather(inward, return_exceptions=True)
            self._inner.close()
            self._taken.close()

    async def _send(self, event: Event) -> None:
        """Whole frames: both directions write to the client. Nothing once the websocket is closed."""
        async with self._sending:
            if self._connection.state is ConnectionState.OPEN or (
                self._connection.state is ConnectionState.REMOTE_CLOSING and isinstance(event, CloseConnection)
            ):
                await self._taken.send(self._connection.send(event))

    async def _outward(self) -> None:
        """Output → messages; the end of output → a close frame."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await loop.sock_recv(self._inner, _CHUNK):
                if self._decoder is None:
                    await self._send(BytesMessage(data))
                elif text := self._decoder.decode(data):
                    await self._send(TextMessage(text))
            await self._send(CloseConnection(CloseReason.NORMAL_CLOSURE))

    async def _inward(self) -> None:
        """Messages → input; a close frame, a broken protocol or a disconnect → the end of input."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            try:
                while True:
                    for event in self._connection.events():
                        await self._received(event)
                        if isinstance(event, CloseConnection):
                            return
                    if not (data := await loop.sock_recv(self._taken.sock, _CHUNK)):
                        return
                    self._connection.receive_data(data)
            finally:
                # A closed websocket is a disconnected client, unlike a half-closed stream.
                self._inner.shutdown(socket.SHUT_RDWR)

    async def _received(self, event: Event) -> None:
        if isinstance(event, Message):
            data = event.data.encode() if isinstance(event.data, str) else event.data
            await asyncio.get_running_loop().sock_sendall(self._inner, data)
        elif isinstance(event, Ping | CloseConnection):
            await self._send(event.response())


@asynccontextmanager
async def relayed(request: Request, *, text: bool = False) -> AsyncIterator[socket.socket]:
    """Accepts a websocket; the block gets the stream socket. At its end it waits until both sides have closed; an error
    in the block ends the relay.

    :raises WharfError: INVALID_ARGUMENT: no handshake of a websocket.
    """
    accepted = await websocket(request, text=text)
    await accepted.accept()
    relaying = asyncio.create_task(accepted.relay(), name="websocket relay")
    try:
        yield accepted.sock
        await relaying
    finally:
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)


async def websocket(request: Request, *, text: bool = False) -> WebSocket:
    """Takes the connection of a websocket handshake over; the caller then calls ``accept`` and ``relay``.

    :raises WharfError: INVALID_ARGUMENT: not such a handshake.
    """
    check_handshake(request)
    key = request.headers["sec-websocket-key"]
    subprotocol = request.headers.get("sec-websocket-protocol", "").split(",")[0].strip()
    return WebSocket(await hijack(request), key, subprotocol, text=text)
