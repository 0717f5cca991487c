"""Large request bodies (archives): received into a separate buffer instead of the protocol's.

The ordinary code copies each byte five times in the loop, in pieces of a few KiB. Here the kernel writes into the
buffer, and its data between the chunk marks becomes a piece of about 1 MiB with one copy.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request

from server.http.framing import BadFraming, Body
from server.http.hijack import connection_of
from server.http.protocol import EngineProtocol

_PIECE = 1 << 20
_MARGIN = 64 << 10  # with less free space in the buffer, the piece is passed on
_READY = 2  # pieces queued for the handler; then the client waits


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """Yields the body in pieces of about 1 MiB, whatever the client's chunks are.

    :raises ClientDisconnect: the client disconnected during the body.
    """
    protocol = connection_of(request)
    # The ordinary code receives the first message: most bodies have only one, and it sends "100 Continue".
    first, more = await _message(request)
    if more and protocol.transport.get_extra_info("ssl_object") is None and protocol.in_body is not None:
        if protocol.transport.is_closing():
            raise ClientDisconnect
        reader = _Reader(protocol, first)
        while piece := await reader.next():
            yield piece
        return
    parts, held = [first], len(first)
    while more:
        part, more = await _message(request)
        parts.append(part)
        held += len(part)
        if held >= _PIECE:
            yield b"".join(parts)
            parts, held = [], 0
    if held:
        yield b"".join(parts)


async def _message(request: Request) -> tuple[bytes, bool]:
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


class _Reader(asyncio.BufferedProtocol):
    """Replaces the protocol on the connection until the body's end."""

    def __init__(self, protocol: EngineProtocol, first: bytes) -> None:
        self._protocol = protocol
        self._body = cast(Body, protocol.in_body)
        self._buffer = memoryview(bytearray(_PIECE + _MARGIN))
        self._kept = 0  # bytes of an unfinished line, which precede the next ones
        self._at = 0
        self._parts: list[memoryview | bytes] = [first, protocol.early_body()]
        self._ready: list[bytes] = []
        self._progress = asyncio.Event()
        self._ended = False
        rest = bytes(protocol.received)
        protocol.received.clear()
        self._buffer[: len(rest)] = rest
        self._at = len(rest)
        self._put_into(self)

    def _put_into(self, protocol: Any) -> None:
        """Sets the transport's protocol. uvloop checks the kind of a protocol when reading starts."""
        transport = self._protocol.transport
        reading = transport.is_reading()
        transport.pause_reading()
        transport.set_protocol(protocol)
        if reading:
            transport.resume_reading()

    async def next(self) -> bytes:
        """The next piece; b"" at the end.

        :raises ClientDisconnect: the client disconnected during the body.
        """
        while not self._ready and not self._ended:
            if self._protocol.cycle.disconnected:
                raise ClientDisconnect
            self._protocol.flow.resume_reading()
            self._progress.clear()
            await self._progress.wait()
        piece = self._ready.pop(0) if self._ready else b""
        if not self._ended:
            self._protocol.flow.resume_reading()
        return piece

    # called by the transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[self._at :]

    def buffer_updated(self, nbytes: int) -> None:
        protocol = self._protocol
        end = self._at + nbytes
        begin = self._at - self._kept
        try:
            parts, used = self._body.split(self._buffer[begin:end])
        except BadFraming:
            self._ended = True
            self._put_into(protocol)
            protocol.reject_body()
            self._progress.set()
            return
        if not protocol.cycle.response_complete:  # else no handler reads it any more
            self._parts += parts
        self._kept = end - begin - used
        self._at = end
        if self._body.done:
            protocol.received += self._buffer[end - self._kept : end]
            self._flush()
            self._ended = True
            self._put_into(protocol)
            protocol.body_ended()
            self._progress.set()
        elif len(self._buffer) - end < _MARGIN or not self._parts:
            self._flush()

    def _flush(self) -> None:
        """Makes a piece of the buffered data and empties the buffer."""
        piece = b"".join(self._parts)
        self._parts.clear()
        if piece:
            self._ready.append(piece)
            self._progress.set()
            if len(self._ready) >= _READY:
                self._protocol.flow.pause_reading()
        self._buffer[: self._kept] = bytes(self._buffer[self._at - self._kept : self._at])
        self._at = self._kept

    def eof_received(self) -> bool:
        self._put_into(self._protocol)
        stays = self._protocol.eof_received()
        self._progress.set()
        return stays

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
        self._progress.set()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
