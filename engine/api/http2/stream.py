"""One gRPC call on a connection: its messages in both directions, and its status."""

import asyncio
import base64
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, unquote

from engine.api.http2.headers import Header
from engine.common.errors import Kind, WharfError

WINDOW = 4 << 20
"""The most bytes of one call buffered here until they are read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may use."""

    message: int = 16 << 20
    """The largest message accepted, in bytes."""
    held: int = 256 << 20
    """The most bytes that all calls of a connection may buffer here."""
    calls: int = 1000
    """The most calls of a connection at once."""


_OVERHEAD = 64
"""Overhead counted per message, because millions of empty ones use memory too."""
_DATA, _WINDOW_UPDATE, _END_STREAM = 0, 8, 1
_CANCEL, _REFUSED, _NO_ERROR, _HTTP_1_1_REQUIRED = 8, 7, 0, 13
_PREFIX = struct.Struct(">BL")
_HEAD = struct.Struct(">HBBBL")
_UPDATE = struct.Struct(">HBBBLL")


class Frames(Protocol):
    """The connection of a call, as the call uses it (:mod:`engine.api.http2.connection`)."""

    limits: Limits
    buffered: int
    """Unread bytes buffered by all calls of the connection."""
    window: int
    """The peer's connection window, in bytes."""
    frame_size: int
    """The peer's maximum frame size, in bytes."""

    @property
    def blocked(self) -> bool:
        """Whether the socket's send buffer is full."""

    def write(self, data: bytes) -> None:
        """Write whole frames."""

    def send_headers(self, id: int, fields: "Sequence[Header]", *, last: bool = False) -> None:
        """Write a header block."""

    def answer(self, id: int, fields: "Sequence[Header]", data: bytes, trailers: "Sequence[Header]") -> None:
        """Write a whole response."""

    def wake(self) -> None:
        """Wake all tasks that wait in :meth:`change`."""

    async def change(self) -> None:
        """Wait until sending may be possible again."""

    def finished(self, stream: "Stream") -> None:
        """This side of a call has ended."""

    def drop(self, stream: "Stream", code: int) -> None:
        """Reset a call."""


class Stream:
    """Created by its connection; only the connection calls ``opened``, ``received``, ``end``, ``reset`` and
    ``fail``."""

    def __init__(self, connection: Frames, id: int, window: int) -> None:
        self.id, self.window = id, window
        self._connection = connection
        self.headers: dict[str, str] = {}
        """The peer's headers: a request's metadata, or a response's headers and trailers."""
        self._messages: list[bytes] = []
        self._partial = bytearray()
        self._waiting = self._owed = self._held = 0
        self._news = asyncio.Event()
        self._error: WharfError | None = None
        self.ended = False
        """The peer has half-closed."""
        self.sent = False
        """We have half-closed."""
        self.made = False
        """Whether we made the call: after the response, nobody reads what we would still send."""
        self.began = False
        """Whether the response headers are sent."""
        self.task: asyncio.Task[None] | None = None
        """The task that serves the call; it is cancelled with the call."""

    # for the connection

    def opened(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        for key, data in headers:
            name, value = key.decode("latin-1"), data.decode("latin-1")
            # gRPC metadata may repeat a name; the values form a list.
            self.headers[name] = f"{self.headers[name]},{value}" if name in self.headers else value
        self._news.set()

    def received(self, data: bytes, size: int) -> None:
        self._owed += size
        if self._owed > WINDOW:
            self.refuse(Kind.RESOURCE_EXHAUSTED, "more data than the window allows")
            return
        if not self._partial and len(data) >= 5:
            # Fast path: most frames are exactly one message.
            flag, length = _PREFIX.unpack_from(data)
            if length == len(data) - 5 and not flag:
                self._messages.append(data[5:])
                self._waiting += length + _OVERHEAD
                self._came()
                return
        partial = self._partial
        partial += data
        at = 0
        while len(partial) - at >= 5:
            flag, length = _PREFIX.unpack_from(partial, at)
            if flag:
                self.refuse(Kind.NOT_IMPLEMENTED, "compressed messages are not supported")
                return
            if length > self._connection.limits.message:
                self.refuse(Kind.RESOURCE_EXHAUSTED, f"a message of {length} bytes is too large")
                return
            if len(partial) - at - 5 < length:
                break
            self._messages.append(bytes(partial[at + 5 : at + 5 + length]))
            self._waiting += length + _OVERHEAD
            at += 5 + length
        del partial[:at]
        self._came()

    def _came(self) -> None:
        self._news.set()
        self._count()
        if self._connection.buffered > (held := self._connection.limits.held):
            self.refuse(Kind.RESOURCE_EXHAUSTED, f"the calls of this connection hold more than {held} bytes")
            return
        self._credit()

    def _count(self) -> None:
        """Report the buffered bytes to the connection."""
        held = self._waiting + len(self._partial)
        self._connection.buffered += held - self._held
        self._held = held

    def _forget(self) -> None:
        """Drop buffered messages."""
        self._messages.clear()
        self._partial.clear()
        self._waiting = 0
        self._count()

    def _credit(self) -> None:
        """Update the peer's window for received data, unless too much is unread."""
        if self._owed >= WINDOW // 4 and self._waiting < WINDOW // 2 and not self.ended:
            self._connection.write(_UPDATE.pack(0, 4, _WINDOW_UPDATE, 0, self.id, self._owed))
            self._owed = 0

    def refuse(self, kind: Kind, reason: str) -> None:
        """Fail a call whose peer sends unacceptable data."""
        self.fail(WharfError(kind, reason))
        self._connection.drop(self, _CANCEL)

    def end(self) -> None:
        self.ended = True
        self._news.set()
        if self.made:
            self._connection.wake()

    def reset(self, code: int) -> None:
        if code == _NO_ERROR and self.ended:
            return
        kind = {_CANCEL: Kind.CANCELLED, _REFUSED: Kind.UNAVAILABLE}.get(code, Kind.INTERNAL)
        self.fail(
            WharfError(kind, "the call was cancelled by its other side" if code == _CANCEL else f"stream error {code}")
        )

    def fail(self, error: WharfError) -> None:
        if not (self.ended and self.sent):
            self._error = self._error or error
            self._forget()
        self.ended = self.sent = True
        self._news.set()
        self.stop()

    def stop(self) -> None:
        """Cancel the task that serves the call, at most once: a stream reset followed by a lost connection must not
        cancel its clean-up."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()

    # receiving

    async def read_buffered(self) -> list[bytes]:
        """Return all buffered messages, at least one; an empty list at the end. Raises if the call broke off."""
        while not self._messages and not self.ended:
            self._news.clear()
            await self._news.wait()
        if self._error is not None:
            raise self._error
        messages, self._messages = self._messages, []
        self._waiting = 0
        self._count()
        self._credit()
        return messages

    async def read(self) -> bytes | None:
        """Return the next message; ``None`` at the end. Raises as :meth:`read_buffered`."""
        while not self._messages and not self.ended:
            self._news.clear()
            await self._news.wait()
        if self._error is not None:
            raise self._error
        if not self._messages:
            return None
        message = self._messages.pop(0)
        self._waiting -= len(message) + _OVERHEAD
        self._count()
        self._credit()
        return message

    @property
    def status_received(self) -> bool:
        """Whether the peer has ended the call with gRPC's status."""
        return "grpc-status" in self.headers

    def outcome(self) -> tuple[int, str, bytes]:
        """Return gRPC's status of an ended call, its message and its details; 2 (UNKNOWN) if the peer sent none."""
        text, details = self.headers.get("grpc-status", ""), self.headers.get("grpc-status-details-bin", "")
        code = int(text) if text.isdigit() else _UNKNOWN
        return code, unquote(self.headers.get("grpc-message", "")), _decoded(details)

    async def reply(self) -> bytes | None:
        """Return the only message of a response when the call has ended; ``None`` without one. Raises as
        :meth:`read_buffered`."""
        while not self.ended:
            self._news.clear()
            await self._news.wait()
        return await self.read()

    # sending

    def whole(self, message: bytes) -> bytes:
        """Take a message from the windows, if they and the socket allow to send it in one frame, and return it with
        its prefix; else return nothing."""
        connection, size = self._connection, len(message) + _PREFIX.size
        if connection.blocked or size > min(self.window, connection.window, connection.frame_size):
            return b""
        self.window -= size
        connection.window -= size
        return _PREFIX.pack(0, len(message)) + message

    async def send(self, message: bytes) -> None:
        """Send a message. Raises if the call has ended."""
        await self._push(_PREFIX.pack(0, len(message)) + message)

    async def send_all(self, messages: Iterable[bytes]) -> None:
        """Send messages in as few frames as possible."""
        await self._push(b"".join([_PREFIX.pack(0, len(message)) + message for message in messages]))

    async def _push(self, data: bytes) -> None:
        connection, size, at = self._connection, len(data), 0
        while at < size:
            most = min(self.window, connection.window, connection.frame_size)
            if self.sent or (self.ended and self.made):
                raise self._error or WharfError(Kind.CANCELLED, "the call has ended")
            if most <= 0 or connection.blocked:
                await connection.change()
                continue
            piece = data[at : at + most]
            at += len(piece)
            self.window -= len(piece)
            connection.window -= len(piece)
            header = _HEAD.pack(len(piece) >> 8, len(piece) & 0xFF, _DATA, 0, self.id)
            connection.write(header + piece)

    def done_writing(self) -> None:
        """Half-close: no more messages follow."""
        if not self.sent:
            self.sent = True
            self._connection.write(_HEAD.pack(0, 0, _DATA, _END_STREAM, self.id))
            self._connection.finished(self)

    def cancel(self) -> None:
        """Cancel the call, in any state."""
        self.sent = True
        self._connection.drop(self, _CANCEL if not self.ended else _NO_ERROR)
        self.ended = True
        self._forget()

    # serving

    def start(self) -> None:
        """Send the response headers, once."""
        if not self.began and not self.sent:
            self.began = True
            self._connection.send_headers(self.id, _ANSWER)

    def require_http1(self) -> None:
        """Reset a request that is no call of gRPC; the client may repeat it over HTTP/1.1."""
        self.sent = self.ended = True
        self._connection.drop(self, _HTTP_1_1_REQUIRED)
        self._forget()

    async def answer(self, message: bytes, metadata: Sequence[Header] = ()) -> None:
        """Send the only message of a response and end it with this metadata, in one piece where the windows allow
        it."""
        if not self.began and not self.sent and (data := self.whole(message)):
            self.began = True
            self._connection.answer(self.id, _ANSWER, data, (*_OK, *metadata) if metadata else _OK)
            self._finished()
            return
        self.start()
        await self.send(message)
        self.finish(metadata=metadata)

    def finish(self, code: int = 0, message: str = "", details: bytes = b"", metadata: Sequence[Header] = ()) -> None:
        """End the response with gRPC's status, and with this metadata."""
        if self.sent:
            return
        headers: list[Header] = [] if self.began else list(_ANSWER)
        headers += (("grpc-status", str(code)), *metadata)
        if message:
            headers.append(("grpc-message", quote(message, safe=_PLAIN)))
        if details:
            headers.append(("grpc-status-details-bin", base64.b64encode(details).decode().rstrip("=")))
        self._connection.send_headers(self.id, headers, last=True)
        self._finished()

    def _finished(self) -> None:
        """The response has been sent."""
        self.sent = True
        if not self.ended:
            # Reset with NO_ERROR: the rest of the request is not needed.
            self._connection.drop(self, _NO_ERROR)
        self._connection.finished(self)
        self._forget()


def _decoded(text: str) -> bytes:
    """The bytes of a binary header, whose padding may be missing; none if it is malformed."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""


_UNKNOWN = 2
_OK: Sequence[Header] = (("grpc-status", "0"),)
_ANSWER: Sequence[Header] = ((":status", "200"), ("content-type", "application/grpc"))
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
