"""Takes a connection over from HTTP: attach, exec, BuildKit's /grpc and /session, websockets.

    async def handler(request):
        body = await params.body(request, Options)        # first: nothing can be read afterwards
        ... everything that may fail with an HTTP status ...
        taken = await hijack(request)
        sock.send(taken.head("application/vnd.docker.raw-stream")) ...
        return None

The caller gets a connected, non-blocking stream socket, which it must close. On a plain connection it is the client's
own socket, so it can be passed to another process (SCM_RIGHTS). On TLS it is one end of a socket pair, and this process
relays between the other end and the client, including half-closes.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from server.http.cycle import Cycle, Part
from server.http.errors import error_body, status_of
from server.http.protocol import EngineProtocol

# The maximum number of bytes buffered in the relay, in each direction.
_RELAY_LIMIT = 256 * 1024


class ClientGone(ConnectionError):
    """The client of a hijacked connection has disconnected: no internal error, and no response is possible."""


@dataclass(slots=True)
class Hijacked:
    """A connection that no longer uses HTTP.

    ``sock``: see above. ``early``: bytes that the client sent after its request; they precede everything read from
    ``sock``. ``upgrade``: the protocol that the client requested, or "". ``relayed``: this process relays the bytes.
    ``http2``: the client speaks HTTP/2 already, and ``early`` begins with its preface.
    """

    sock: socket.socket
    early: bytes
    upgrade: str
    relayed: bool
    headers: list[tuple[bytes, bytes]]
    http2: bool = False

    def head(self, content_type: str = "") -> bytes:
        """The response head: ``101 UPGRADED`` if the client requested an upgrade, else ``200 OK``; none in HTTP/2."""
        if self.http2:
            return b""
        lines = [b"HTTP/1.1 101 UPGRADED" if self.upgrade else b"HTTP/1.1 200 OK"]
        if content_type:
            lines.append(b"Content-Type: " + content_type.encode("latin-1"))
        if self.upgrade:
            lines += [b"Connection: Upgrade", b"Upgrade: " + self.upgrade.encode("latin-1")]
        lines += [name + b": " + value for name, value in self.headers]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def error(self, error: BaseException) -> bytes:
        """A complete HTTP error, for a failure before :meth:`head` was sent."""
        body = error_body(error)
        head = (
            f"HTTP/1.1 {status_of(error)} Error\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n"
        ).encode()
        return head + b"".join(name + b": " + value + b"\r\n" for name, value in self.headers) + b"\r\n" + body

    async def send(self, data: bytes) -> None:
        """Sends all of ``data`` to the client.

        :raises ClientGone: it has closed the connection.
        """
        try:
            await asyncio.get_running_loop().sock_sendall(self.sock, data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ClientGone(error.errno, error.strerror) from error

    def close(self) -> None:
        """Closes this end. A copy in another process stays open."""
        self.sock.close()


def connection_of(request: Request) -> EngineProtocol:
    """The protocol object of a request."""
    return cast(EngineProtocol, request.scope["extensions"]["connection"])


def pusher(request: Request) -> Callable[[Part], bool] | None:
    """What sends a part of the request's response at once (``Cycle.push``); None without a connection, as in tests."""
    protocol = request.scope.get("extensions", {}).get("connection")
    return cast(Cycle, protocol.cycle).push if isinstance(protocol, EngineProtocol) else None


@contextmanager
def cancelled_by_disconnect(request: Request) -> Iterator[None]:
    """For the waiting part of a handler that otherwise runs to its end: within it, a disconnect cancels the request.

    :raises asyncio.CancelledError: the client has disconnected already.
    """
    protocol = connection_of(request)
    if protocol.half_closed:
        raise asyncio.CancelledError
    protocol.disconnect_cancels = True
    try:
        yield
    finally:
        protocol.disconnect_cancels = False


async def hijack(request: Request) -> Hijacked:
    """Takes the connection of ``request`` over. Nothing may be sent through ASGI afterwards.

    :raises asyncio.CancelledError: the client has disconnected.
    """
    protocol = connection_of(request)
    # The whole body belongs to the request, even if the handler did not read it.
    while protocol.cycle.more_body:
        if (await request.receive())["type"] == "http.disconnect":
            raise asyncio.CancelledError
    transport = protocol.transport
    # Flush pending output first: "100 Continue" or an earlier response.
    transport.set_write_buffer_limits(high=0)
    await protocol.flow.drain()
    if protocol.cycle.disconnected or transport.is_closing():
        raise asyncio.CancelledError
    early = protocol.detach()
    upgrade, headers = protocol.upgrade, list(protocol.server_state.default_headers)
    if not upgrade and request.headers.get("upgrade", "").lower() == "tcp":
        upgrade = "tcp"  # dockerd, and so its clients, need no Connection header
    original = transport.get_extra_info("socket")
    if transport.get_extra_info("ssl_object") is None and original is not None:
        sock = socket.socket(fileno=os.dup(original.fileno()))
        sock.settimeout(0)
        # Closes the loop's descriptor; the connection stays open in the copy.
        transport.abort()
        protocol.release_with_handler()
        return Hijacked(sock, early, upgrade, relayed=False, headers=headers, http2=protocol.http2)
    own, inner = socket.socketpair()
    own.settimeout(0)
    inner.settimeout(0)
    await _Relay.start(transport, inner, half_closed=protocol.half_closed, on_lost=protocol.release)
    return Hijacked(own, early, upgrade, relayed=True, headers=headers, http2=protocol.http2)


class _Side(asyncio.Protocol):
    """One of the two connections of a relay: forwards its input to the other, with back-pressure."""

    def __init__(self, on_lost: Callable[[], None] | None = None) -> None:
        self._on_lost = on_lost
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_RELAY_LIMIT)

    def _peer(self) -> asyncio.Transport | None:
        transport = self.other.transport if self.other is not None else None
        return None if transport is None or transport.is_closing() else transport

    def data_received(self, data: bytes) -> None:
        if (peer := self._peer()) is not None:
            peer.write(data)
        elif self.transport is not None:
            # The other side no longer reads.
            self.transport.abort()

    def eof_received(self) -> bool:
        """Forwards the half-close; closes when both directions have ended."""
        self.ended = True
        if (peer := self._peer()) is not None and peer.can_write_eof():
            peer.write_eof()
        return self.other is not None and not self.other.ended

    def pause_writing(self) -> None:
        if (peer := self._peer()) is not None:
            peer.pause_reading()

    def resume_writing(self) -> None:
        if (peer := self._peer()) is not None:
            peer.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._on_lost is not None:
            self._on_lost()
        if (peer := self._peer()) is not None:
            # Writes buffered data first.
            peer.close()


class _Relay:
    """Relays between a client's transport and one end of a socket pair."""

    @staticmethod
    async def start(
        transport: asyncio.Transport, sock: socket.socket, *, half_closed: bool, on_lost: Callable[[], None]
    ) -> None:
        """``on_lost``: called when the client's connection has ended."""
        client, inner = _Side(on_lost), _Side()
        client.other, inner.other = inner, client
        loop = asyncio.get_running_loop()
        client.connection_made(transport)
        transport.set_protocol(client)
        await loop.create_unix_connection(lambda: inner, sock=sock)
        if half_closed:
            client.eof_received()
        else:
            transport.resume_reading()
