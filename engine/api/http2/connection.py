"""The frames of one connection (RFC 9113), for clients and servers.

Flow control: a call may send :data:`~engine.api.http2.stream.WINDOW` unread bytes beyond its current message; all calls
together may buffer :attr:`~engine.api.http2.stream.Limits.held` bytes. Sending waits for the peer's windows and for the
socket.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import cast

import hpack

from engine.api.http2 import headers
from engine.api.http2.headers import Header
from engine.api.http2.stream import WINDOW, Limits, Stream
from engine.common import timeouts
from engine.common.errors import Kind, WharfError

timeouts.define("http2.goodbye", 5.0)  # to flush what was written to a peer

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 3, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME = 16384
"""The largest frame in either direction: the protocol's default."""
BLOCK = 1 << 20
"""The largest header block accepted."""
_HEADER_TABLE_SIZE, _MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 3, 4, 5
_DEFAULT_WINDOW, _MOST = 65535, (1 << 31) - 1
_CREDIT = 1 << 24
"""Received bytes after which the connection's window is updated."""
_UNREAD = 4 << 20
"""The most buffered replies to a peer that requests more without reading."""
_HEAD = struct.Struct(">HBBBL")
_LONG = struct.Struct(">L")
_SETTING = struct.Struct(">HL")


class ProtocolError(Exception):
    """The peer violates the protocol: the connection ends with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def frame(kind: int, flags: int, id: int, payload: bytes = b"") -> bytes:
    """Encode a frame."""
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, id) + payload


class Connection(asyncio.Protocol):
    """One end of a connection. With ``accept`` it is a server, which calls ``accept`` for each new call."""

    def __init__(
        self,
        accept: Callable[[Stream], None] | None = None,
        *,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        peer: str = "the client of the build",
    ) -> None:
        """``peer``: the other side, for the sentence about a lost connection."""
        self._accept = accept
        self._peer = peer
        self.limits = limits
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._preface = len(PREFACE) if accept is not None else 0
        self._decoder = hpack.Decoder(max_header_list_size=BLOCK)
        self._table_update = b""
        self._block: tuple[int, int, bytearray] | None = None
        """An incomplete header block: the call, the flags, and the bytes so far."""
        self._streams: dict[int, Stream] = {}
        self._newest = 0
        self._next = 1
        self._received = 0
        self._answers = bytearray()
        self._paused = False
        self._changed = asyncio.Event()
        self.buffered = 0
        """Unread bytes buffered by all calls, as the calls report them."""
        self.window = _DEFAULT_WINDOW
        self._initial, self.frame_size = _DEFAULT_WINDOW, FRAME
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.greeted = asyncio.Event()
        """Set when the peer has sent its settings, or the connection is lost."""
        self._away = self._began = False

    @classmethod
    async def from_socket(
        cls,
        sock: socket.socket,
        early: bytes,
        accept: Callable[[Stream], None] | None = None,
        *,
        limits: Limits = Limits(),  # noqa: B008  # frozen
    ) -> "Connection":
        """Take over a connected socket. ``early``: bytes that were read from it before."""
        connection, loop = cls(accept, limits=limits), asyncio.get_running_loop()
        await connection._take(loop.create_connection(lambda: connection, sock=sock), early)
        return connection

    @classmethod
    async def connect(cls, path: str, *, limits: Limits, peer: str) -> "Connection":
        """Connect to a server's unix socket. Raises OSError."""
        connection, loop = cls(limits=limits, peer=peer), asyncio.get_running_loop()
        await connection._take(loop.create_unix_connection(lambda: connection, path), b"")
        return connection

    async def _take(self, connecting: Coroutine[object, object, object], early: bytes) -> None:
        # uvloop takes over a socket only when this completes. If it fails or is cancelled before, the descriptor is
        # closed a second time, possibly after its number was reused.
        making = asyncio.ensure_future(connecting)
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            await asyncio.wait([making])
            self.abort()
            raise
        self.begin(early)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def begin(self, early: bytes) -> None:
        """Send the preface and settings, and parse what has arrived. Nothing happens before this call."""
        assert self._transport is not None
        settings = ((_MAX_CONCURRENT_STREAMS, self.limits.calls), (_INITIAL_WINDOW_SIZE, WINDOW))
        start = b"" if self._accept is not None else PREFACE
        start += frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in settings))
        self.write(start + frame(WINDOW_UPDATE, 0, 0, _LONG.pack(_MOST - _DEFAULT_WINDOW)))
        data, self._rest, self._began = early + self._rest, b"", True
        if data and not self._transport.is_closing():
            self.data_received(data)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.wake()

    def eof_received(self) -> None:
        """The peer has closed: close."""

    def connection_lost(self, exc: Exception | None) -> None:
        gone = WharfError(Kind.UNAVAILABLE, f"the connection to {self._peer} was lost")
        for stream in list(self._streams.values()):
            stream.fail(gone)
        self._streams.clear()
        self._away = True
        self.greeted.set()
        self.wake()
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        if not self._began:
            self._rest = data
            return
        at, end = 0, len(data)
        try:
            if self._preface:
                at = min(self._preface, end)
                start = len(PREFACE) - self._preface
                if data[:at] != PREFACE[start : start + at]:
                    raise ProtocolError(PROTOCOL_ERROR, "no preface")
                self._preface -= at
            while end - at >= 9:
                high, low, kind, flags, id = _HEAD.unpack_from(data, at)
                stop = at + 9 + (high << 8 | low)
                if stop - at - 9 > FRAME:
                    raise ProtocolError(FRAME_SIZE_ERROR, "frame too large")
                if stop > end:
                    break
                if kind == DATA and self._block is None:
                    self._data(flags, id & _MOST, data[at + 9 : stop])
                else:
                    self._frame(kind, flags, id & _MOST, data[at + 9 : stop])
                at = stop
            self._answer()
        except (ProtocolError, hpack.HPACKError, struct.error, IndexError) as error:
            self._rest = b""
            self.close(error.code if isinstance(error, ProtocolError) else PROTOCOL_ERROR)
            return
        self._rest = data[at:]

    # receiving

    def _data(self, flags: int, id: int, data: bytes) -> None:
        self._received += len(data)
        if self._received >= _CREDIT:
            self.write(frame(WINDOW_UPDATE, 0, 0, _LONG.pack(self._received)))
            self._received = 0
        stream = self._streams.get(id)
        if stream is None:
            if id > self._newest or not id:
                raise ProtocolError(PROTOCOL_ERROR, "data of no call")
            return
        stream.received(_unpadded(data) if flags & PADDED else data, len(data))
        if flags & END_STREAM:
            self._ended(stream)

    def _frame(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if self._block is not None:
            if kind != CONTINUATION or id != self._block[0]:
                raise ProtocolError(PROTOCOL_ERROR, "header block interrupted")
            self._continue(flags, payload)
        elif kind == HEADERS:
            if flags & PADDED:
                payload = _unpadded(payload)
            if flags & PRIORITIZED:
                payload = payload[5:]
            self._block = (id, flags, bytearray())
            self._continue(flags, payload)
        elif kind == SETTINGS:
            if not flags & ACK:
                self._settings(payload)
        elif kind == PING:
            if not flags & ACK:
                self._answers += frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE:
            self._open(id, _LONG.unpack(payload)[0] & _MOST)
        elif kind == RST_STREAM:
            stream = self._remove(id)
            if stream is not None:
                stream.reset(_LONG.unpack(payload)[0])
                self.wake()
        elif kind == GOAWAY:
            # GOAWAY: running calls may end; no new ones start.
            self._away = True
            self._leave()
        elif kind in (PUSH_PROMISE, CONTINUATION):
            raise ProtocolError(PROTOCOL_ERROR, "unexpected frame")

    def _continue(self, flags: int, payload: bytes) -> None:
        assert self._block is not None
        id, first, block = self._block
        block += payload
        if len(block) > BLOCK:
            raise ProtocolError(COMPRESSION_ERROR, "header block too large")
        if flags & END_HEADERS:
            self._block = None
            self._headers(id, headers.decode(self._decoder, bytes(block)), last=bool(first & END_STREAM))

    def _headers(self, id: int, pairs: headers.Pairs, *, last: bool) -> None:
        stream = self._streams.get(id)
        if stream is None:
            if self._accept is None or id <= self._newest:
                return  # of a cancelled call
            if not id & 1:
                raise ProtocolError(PROTOCOL_ERROR, "a client's calls have odd numbers")
            self._newest = id
            if len(self._streams) >= self.limits.calls:
                self.write(frame(RST_STREAM, 0, id, _LONG.pack(REFUSED_STREAM)))
                return
            stream = self._add(id)
            stream.opened(pairs)
            if last:
                self._ended(stream)
            if not self._away:
                self._accept(stream)
            return
        stream.opened(pairs)
        if last:
            self._ended(stream)

    def _add(self, id: int) -> Stream:
        stream = self._streams[id] = Stream(self, id, self._initial)
        return stream

    def _ended(self, stream: Stream) -> None:
        stream.end()
        if stream.sent:
            self._remove(stream.id)

    def _remove(self, id: int) -> Stream | None:
        stream = self._streams.pop(id, None)
        self._leave()
        return stream

    def _leave(self) -> None:
        """Close once there are no calls left, after GOAWAY of a client, which waits for that, or ours."""
        if self._away and self._accept is not None and not self._streams:
            asyncio.get_running_loop().call_soon(self.close)

    def _settings(self, payload: bytes) -> None:
        for key, value in _SETTING.iter_unpack(payload):
            if key == _INITIAL_WINDOW_SIZE:
                if value > _MOST:
                    raise ProtocolError(FLOW_CONTROL_ERROR, "window too large")
                for stream in self._streams.values():
                    stream.window += value - self._initial
                self._initial = value
            elif key == _HEADER_TABLE_SIZE:
                self._table_update = headers.NO_TABLE
            elif key == _MAX_FRAME_SIZE:
                if not FRAME <= value < 1 << 24:
                    raise ProtocolError(PROTOCOL_ERROR, "frame size")
                self.frame_size = min(value, 1 << 20)
        self._answers += frame(SETTINGS, ACK, 0)
        self.greeted.set()
        self.wake()

    def _open(self, id: int, size: int) -> None:
        stream = self._streams.get(id)
        if not id:
            self.window += size
            if self.window > _MOST:
                raise ProtocolError(FLOW_CONTROL_ERROR, "window too large")
        elif stream is not None:
            stream.window += size
            if stream.window > _MOST:
                raise ProtocolError(FLOW_CONTROL_ERROR, "window too large")
        self.wake()

    # sending

    def write(self, data: bytes) -> None:
        """Write whole frames, unless the connection is closed."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _answer(self) -> None:
        """Send pending control replies together; disconnect a peer that requests replies without reading them.

        Ends of calls count as replies too, as no window limits them.
        """
        if self._transport is not None and self._transport.get_write_buffer_size() > _UNREAD:
            raise ProtocolError(ENHANCE_YOUR_CALM, "replies are not read")
        if self._answers:
            self.write(bytes(self._answers))
            self._answers.clear()

    @property
    def blocked(self) -> bool:
        """Whether the socket's send buffer is full."""
        return self._paused

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait until sending may be possible again."""
        await self._changed.wait()

    def send_headers(self, id: int, fields: Sequence[Header], *, last: bool = False) -> None:
        """Write a header block."""
        self.write(self._header_frames(id, fields, last=last))

    def _header_frames(self, id: int, fields: Sequence[Header], *, last: bool = False) -> bytes:
        block, self._table_update = self._table_update + headers.encode(fields), b""
        if len(block) <= FRAME:
            return frame(HEADERS, END_HEADERS | (END_STREAM if last else 0), id, block)
        pieces = [block[at : at + FRAME] for at in range(0, len(block), FRAME)]
        frames = b""
        for number, piece in enumerate(pieces):
            flags = END_STREAM if last and not number else 0
            flags |= END_HEADERS if number == len(pieces) - 1 else 0
            frames += frame(CONTINUATION if number else HEADERS, flags, id, piece)
        return frames

    @property
    def usable(self) -> bool:
        """Whether new calls can be made."""
        return not self._away and self._transport is not None and not self._transport.is_closing()

    def request(self, path: str, metadata: Sequence[Header], message: bytes | None = None) -> Stream:
        """Start a call. A ``message`` is the only one of the request: it is written at once, and the call half-closed,
        where the windows allow that; otherwise ``sent`` of the call is False, and the caller sends it.

        Raises UNAVAILABLE if the peer has disconnected.
        """
        if not self.usable:
            raise WharfError(Kind.UNAVAILABLE, f"{self._peer} has disconnected")
        stream = self._add(self._next)
        stream.made = True
        self._newest, self._next = self._next, self._next + 2
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        head += [("te", "trailers"), ("content-type", "application/grpc"), *metadata]
        frames = self._header_frames(stream.id, head)
        if message is not None and (data := stream.whole(message)):
            frames += frame(DATA, END_STREAM, stream.id, data)
            stream.sent = True
        self.write(frames)
        return stream

    def answer(self, id: int, fields: Sequence[Header], data: bytes, trailers: Sequence[Header]) -> None:
        """Write a whole response."""
        frames = self._header_frames(id, fields) + frame(DATA, 0, id, data)
        self.write(frames + self._header_frames(id, trailers, last=True))

    def finished(self, stream: Stream) -> None:
        """Our side of a call has ended."""
        if stream.ended:
            self._remove(stream.id)

    def drop(self, stream: Stream, code: int) -> None:
        """Reset a call."""
        if self._remove(stream.id) is not None:
            self.write(frame(RST_STREAM, 0, stream.id, _LONG.pack(code)))
            self.wake()

    def leave(self) -> None:
        """Serve no new calls, and close when the last one has ended."""
        if self.usable:
            self._away = True
            self.write(frame(GOAWAY, 0, 0, _LONG.pack(self._newest) + _LONG.pack(NO_ERROR)))
            self._leave()

    def close(self, code: int = NO_ERROR) -> None:
        """Send GOAWAY and close when the output is flushed; a peer that doesn't read delays this only briefly."""
        self._away = True
        if self._transport is not None and not self._transport.is_closing():
            with suppress(OSError):
                self._transport.write(frame(GOAWAY, 0, 0, _LONG.pack(self._newest) + _LONG.pack(code)))
            self._transport.close()
            asyncio.get_running_loop().call_later(timeouts.seconds("http2.goodbye"), self.abort)

    def abort(self) -> None:
        """Close without flushing."""
        self._away = True
        if self._transport is not None:
            self._transport.abort()


def _unpadded(data: bytes) -> bytes:
    padding = data[0]
    if padding >= len(data):
        raise ProtocolError(PROTOCOL_ERROR, "more padding than frame")
    return data[1 : len(data) - padding]
