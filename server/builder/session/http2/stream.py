"""One gRPC call on a connection: its messages each way, and how it ends."""

import asyncio
import base64
import struct
from collections.abc import Iterable, Sequence
from typing import Protocol
from urllib.parse import quote, unquote

from engine.common.errors import Kind, WharfError

Header = tuple[str, str]

WINDOW = 4 << 20
"""Bytes of one call that may wait here until somebody takes them."""
MESSAGE = 16 << 20
"""The largest message that is received."""
HELD = 256 << 20
"""Bytes that all calls of a connection may hold here together."""
_OVERHEAD = 64
"""What a message counts beyond its bytes: millions of empty ones take memory too."""
_DATA, _WINDOW_UPDATE, _END_STREAM = 0, 8, 1
_CANCEL, _REFUSED, _NO_ERROR = 8, 7, 0
_PREFIX = struct.Struct(">BL")
_HEAD = struct.Struct(">HBBBL")
_UPDATE = struct.Struct(">HBBBLL")


class Frames(Protocol):
    """The connection of a call, as the call uses it (:mod:`server.builder.session.http2.connection`)."""

    held: int
    """Bytes that all calls of the connection hold."""
    window: int
    """Bytes that the peer still takes, of all calls together."""
    frame_size: int
    """Bytes of the largest frame that the peer takes."""

    @property
    def blocked(self) -> bool:
        """Whether the socket takes no more for now."""

    def write(self, data: bytes) -> None:
        """Writes whole frames."""

    def send_headers(self, id: int, headers: "Sequence[Header]", *, last: bool = False) -> None:
        """Writes a block of headers."""

    def wake(self) -> None:
        """Wakes all that wait in :meth:`change`."""

    async def change(self) -> None:
        """Waits until there may be room to send."""

    def finished(self, stream: "Stream") -> None:
        """This side of a call has ended."""

    def drop(self, stream: "Stream", code: int) -> None:
        """Resets a call."""


class Stream:
    """Made by its connection, which alone calls ``opened``, ``received``, ``end``, ``reset`` and ``fail``."""

    def __init__(self, connection: Frames, id: int, window: int) -> None:
        self.id, self.window = id, window
        self._connection = connection
        self.headers: dict[str, str] = {}
        """The peer's: of a call that is served its metadata, of one that is made those of the answer and its end."""
        self._messages: list[bytes] = []
        self._partial = bytearray()
        self._waiting = self._owed = self._held = 0
        self._news = asyncio.Event()
        self._error: WharfError | None = None
        self.over = False
        """The peer sends nothing more."""
        self.sent = False
        """We send nothing more."""
        self.made = False
        """Whether the call is ours: once it is answered, nobody reads what we would still send."""
        self.began = False
        """Whether the head of an answer has left."""
        self.task: asyncio.Task[None] | None = None
        """What serves the call; it ends with it."""

    # the connection's side

    def opened(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        for key, data in headers:
            name, value = key.decode("latin-1"), data.decode("latin-1")
            # gRPC's metadata may repeat a name: its values are a list.
            self.headers[name] = f"{self.headers[name]},{value}" if name in self.headers else value
        self._news.set()

    def received(self, data: bytes, size: int) -> None:
        self._owed += size
        if self._owed > WINDOW:
            self.refuse(Kind.RESOURCE_EXHAUSTED, "more data than the window allows")
            return
        if not self._partial and len(data) >= 5:
            # Most frames are one message.
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
            if length > MESSAGE:
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
        if self._connection.held > HELD:
            self.refuse(Kind.RESOURCE_EXHAUSTED, f"the calls of this connection hold more than {HELD} bytes")
            return
        self._credit()

    def _count(self) -> None:
        """Tells the connection what this call holds."""
        held = self._waiting + len(self._partial)
        self._connection.held += held - self._held
        self._held = held

    def _forget(self) -> None:
        """Drops what nobody will take."""
        self._messages.clear()
        self._partial.clear()
        self._waiting = 0
        self._count()

    def _credit(self) -> None:
        """Opens the window again for what was received, unless too much waits to be taken."""
        if self._owed >= WINDOW // 4 and self._waiting < WINDOW // 2 and not self.over:
            self._connection.write(_UPDATE.pack(0, 4, _WINDOW_UPDATE, 0, self.id, self._owed))
            self._owed = 0

    def refuse(self, kind: Kind, reason: str) -> None:
        """Gives a call up whose peer sends what can't be taken."""
        self.fail(WharfError(kind, reason))
        self._connection.drop(self, _CANCEL)

    def end(self) -> None:
        self.over = True
        self._news.set()
        if self.made:
            self._connection.wake()

    def reset(self, code: int) -> None:
        if code == _NO_ERROR and self.over:
            return
        kind = {_CANCEL: Kind.CANCELLED, _REFUSED: Kind.UNAVAILABLE}.get(code, Kind.INTERNAL)
        self.fail(
            WharfError(kind, "the call was cancelled by its other side" if code == _CANCEL else f"stream error {code}")
        )

    def fail(self, error: WharfError) -> None:
        if not (self.over and self.sent):
            self._error = self._error or error
            self._forget()
        self.over = self.sent = True
        self._news.set()
        self.stop()

    def stop(self) -> None:
        """Cancels what serves the call. Only once: a stream that is reset and a connection that is lost, one after the
        other, must not disturb it while it tidies up."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()

    # receiving

    async def take(self) -> list[bytes]:
        """All messages that have come, at least one; none at the end. Raises when the call broke off."""
        while not self._messages and not self.over:
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
        """The next message; ``None`` at the end. Raises as :meth:`take`."""
        while not self._messages and not self.over:
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

    def outcome(self) -> tuple[int, str]:
        """gRPC's status and message of a call that is over; 2 (UNKNOWN) if the peer gave none."""
        text = self.headers.get("grpc-status", "")
        return (int(text) if text.isdigit() else 2), unquote(self.headers.get("grpc-message", ""))

    # sending

    async def send(self, message: bytes) -> None:
        """Sends one message. Raises when the call is over."""
        await self._push(_PREFIX.pack(0, len(message)) + message)

    async def send_all(self, messages: Iterable[bytes]) -> None:
        """Sends messages, in as few frames as they fit in."""
        await self._push(b"".join([_PREFIX.pack(0, len(message)) + message for message in messages]))

    async def _push(self, data: bytes) -> None:
        connection, size, at = self._connection, len(data), 0
        while at < size:
            room = min(self.window, connection.window, connection.frame_size)
            if self.sent or (self.over and self.made):
                raise self._error or WharfError(Kind.CANCELLED, "the call is over")
            if room <= 0 or connection.blocked:
                await connection.change()
                continue
            piece = data[at : at + room]
            at += len(piece)
            self.window -= len(piece)
            connection.window -= len(piece)
            header = _HEAD.pack(len(piece) >> 8, len(piece) & 0xFF, _DATA, 0, self.id)
            connection.write(header + piece)

    def done_writing(self) -> None:
        """Says that no more messages come."""
        if not self.sent:
            self.sent = True
            self._connection.write(_HEAD.pack(0, 0, _DATA, _END_STREAM, self.id))
            self._connection.finished(self)

    def cancel(self) -> None:
        """Leaves the call, whatever its state."""
        self.sent = True
        self._connection.drop(self, _CANCEL if not self.over else _NO_ERROR)
        self.over = True
        self._forget()

    # serving

    def start(self) -> None:
        """Begins the answer, once."""
        if not self.began and not self.sent:
            self.began = True
            self._connection.send_headers(self.id, _ANSWER)

    def finish(self, code: int = 0, message: str = "", details: bytes = b"") -> None:
        """Ends the answer with gRPC's status."""
        if self.sent:
            return
        headers: list[Header] = [] if self.began else list(_ANSWER)
        headers.append(("grpc-status", str(code)))
        if message:
            headers.append(("grpc-message", quote(message, safe=_PLAIN)))
        if details:
            headers.append(("grpc-status-details-bin", base64.b64encode(details).decode().rstrip("=")))
        self.sent = True
        self._connection.send_headers(self.id, headers, last=True)
        if not self.over:
            # gRPC's way to say that the rest of the request isn't wanted.
            self._connection.drop(self, _NO_ERROR)
        self._connection.finished(self)
        self._forget()


_ANSWER: Sequence[Header] = ((":status", "200"), ("content-type", "application/grpc"))
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
