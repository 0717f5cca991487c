"""HTTP/2 with hostile and broken peers: the connection or the call ends, and no state is kept."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import hpack
import pytest
import uvloop

from engine.api.http2 import connection as h2
from engine.api.http2.connection import Connection, frame
from engine.api.http2.stream import WINDOW, Limits, Stream
from engine.common.errors import Kind, WharfError

HEAD = [(":method", "POST"), (":scheme", "http"), (":path", "/s/M"), ("content-type", "application/grpc")]
DEADLINE = 60.0
_LIMITS = Limits()


class Peer:
    """A client that sends raw frames."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: Connection,
        calls: "asyncio.Queue[Stream]",
    ) -> None:
        self.reader, self.writer, self.connection, self.calls = reader, writer, connection, calls
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def call(self, id: int = 1, *, last: bool = False) -> None:
        block = self.encoder.encode(HEAD)
        self.send(frame(h2.HEADERS, h2.END_HEADERS | (h2.END_STREAM if last else 0), id, block))

    async def frame(self, *kinds: int) -> tuple[int, int, int, bytes]:
        """Return the next frame of one of these types."""
        while True:
            high, low, kind, flags, id = struct.unpack(">HBBBL", await self.reader.readexactly(9))
            payload = await self.reader.readexactly(high << 8 | low)
            if kind in kinds:
                return kind, flags, id, payload

    async def goodbye(self, code: int) -> None:
        """Expect the connection to end with this code. Unread data may make the kernel send a reset before it."""
        try:
            _, _, _, payload = await self.frame(h2.GOAWAY)
            assert struct.unpack(">L", payload[4:8])[0] == code
            assert await self.reader.read() == b""
        except ConnectionResetError:
            pass
        await self.connection.closed

    async def opened(self) -> Stream:
        """Return the next accepted call."""
        return await self.calls.get()


def served(work: Callable[[Peer], Awaitable[None]], *, preface: bytes = h2.PREFACE, limits: Limits = _LIMITS) -> None:
    """Run a peer against a server connection."""

    async def run() -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.settimeout(0)
        reader, writer = await asyncio.open_connection(sock=theirs)
        calls: asyncio.Queue[Stream] = asyncio.Queue()
        peer = Peer(reader, writer, await Connection.from_socket(ours, b"", calls.put_nowait, limits=limits), calls)
        peer.send(preface + frame(h2.SETTINGS, 0, 0))
        try:
            async with asyncio.timeout(DEADLINE):
                await work(peer)
        finally:
            peer.connection.abort()
            writer.close()
            await peer.connection.closed

    asyncio.run(run())


def message(data: bytes) -> bytes:
    return struct.pack(">BL", 0, len(data)) + data


BAD = {
    "frame too large": (frame(h2.DATA, 0, 1, bytes(h2.FRAME + 1)), h2.FRAME_SIZE_ERROR),
    "data of no call": (frame(h2.DATA, 0, 1, b"x"), h2.PROTOCOL_ERROR),
    "data of the connection": (frame(h2.DATA, 0, 0, b"x"), h2.PROTOCOL_ERROR),
    "broken header block": (frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff"), h2.PROTOCOL_ERROR),
    "index of nothing": (frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xbe"), h2.PROTOCOL_ERROR),
    "a server's number": (frame(h2.HEADERS, h2.END_HEADERS, 2, b"\x83"), h2.PROTOCOL_ERROR),
    "padding beyond the frame": (frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED, 1, b"\xff\x83"), h2.PROTOCOL_ERROR),
    "empty padded frame": (frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED, 1), h2.PROTOCOL_ERROR),
    "interrupted block": (frame(h2.HEADERS, 0, 1, b"\x83") + frame(h2.PING, 0, 0, bytes(8)), h2.PROTOCOL_ERROR),
    "continued nothing": (frame(h2.CONTINUATION, 0, 1, b"\x83"), h2.PROTOCOL_ERROR),
    "promise": (frame(h2.PUSH_PROMISE, 0, 1, bytes(4)), h2.PROTOCOL_ERROR),
    "short settings": (frame(h2.SETTINGS, 0, 0, b"\0\4\0"), h2.PROTOCOL_ERROR),
    "window beyond all bounds": (frame(h2.SETTINGS, 0, 0, struct.pack(">HL", 4, 1 << 31)), h2.FLOW_CONTROL_ERROR),
    "tiny frames": (frame(h2.SETTINGS, 0, 0, struct.pack(">HL", 5, 1)), h2.PROTOCOL_ERROR),
    "short update": (frame(h2.WINDOW_UPDATE, 0, 0, b"\0"), h2.PROTOCOL_ERROR),
    "overflow of the window": (2 * frame(h2.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), h2.FLOW_CONTROL_ERROR),
}


@pytest.mark.parametrize("name", BAD)
def test_protocol_errors_close_the_connection(name: str) -> None:
    data, code = BAD[name]

    async def work(peer: Peer) -> None:
        peer.send(data)
        await peer.goodbye(code)

    served(work)


def test_no_preface_no_connection() -> None:
    async def work(peer: Peer) -> None:
        await peer.goodbye(h2.PROTOCOL_ERROR)

    served(work, preface=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def test_endless_header_blocks_end_the_connection() -> None:
    async def work(peer: Peer) -> None:
        peer.send(frame(h2.HEADERS, 0, 1, b""))
        piece = frame(h2.CONTINUATION, 0, 1, bytes(h2.FRAME))
        for _ in range(h2.BLOCK // h2.FRAME + 1):
            peer.send(piece)
        await peer.goodbye(h2.COMPRESSION_ERROR)

    served(work)


def test_small_blocks_of_many_headers_end_the_connection() -> None:
    async def work(peer: Peer) -> None:
        # One large header in the dynamic table, referenced repeatedly.
        block = peer.encoder.encode([*HEAD, ("a", "x" * 3000)], huffman=False)
        peer.send(frame(h2.HEADERS, h2.END_HEADERS, 1, block + b"\xbe" * 1000))
        await peer.goodbye(h2.PROTOCOL_ERROR)

    served(work)


def test_unread_ping_replies_close_the_connection() -> None:
    async def work(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        pings = frame(h2.PING, 0, 0, bytes(8)) * 10_000
        while not peer.connection.closed.done():
            peer.send(pings)
            try:
                await peer.writer.drain()
            except ConnectionError:
                break
            if peer.connection._transport is not None and peer.connection._transport.is_closing():
                break
        peer.connection.abort()
        await peer.connection.closed

    served(work)


@pytest.mark.parametrize(
    "messages", [message(bytes(h2.FRAME - 5)), message(b"") * (h2.FRAME // 5)], ids=["large", "empty"]
)
def test_call_beyond_its_window_is_reset(messages: bytes) -> None:
    async def work(peer: Peer) -> None:
        peer.call()
        call = await peer.opened()
        piece = frame(h2.DATA, 0, 1, messages)
        for _ in range(2 * WINDOW // h2.FRAME):  # unread data, and the window updates so far
            peer.send(piece)
        _, _, id, _ = await peer.frame(h2.RST_STREAM)
        assert id == 1
        with pytest.raises(WharfError) as failed:
            await call.read_buffered()
        assert failed.value.kind is Kind.RESOURCE_EXHAUSTED
        assert peer.connection.buffered == 0
        # The connection stays open; further data of the call is ignored.
        peer.send(piece)
        peer.call(3)
        await peer.opened()

    served(work)


@pytest.mark.parametrize(
    ("head", "kind"), [((1, 4), Kind.NOT_IMPLEMENTED), ((0, Limits().message + 1), Kind.RESOURCE_EXHAUSTED)]
)
def test_unread_messages(head: tuple[int, int], kind: Kind) -> None:
    async def work(peer: Peer) -> None:
        peer.call()
        call = await peer.opened()
        peer.send(frame(h2.DATA, 0, 1, struct.pack(">BL", *head)))
        with pytest.raises(WharfError) as failed:
            await call.read()
        assert failed.value.kind is kind

    served(work)


def test_messages_come_in_any_pieces() -> None:
    async def work(peer: Peer) -> None:
        peer.call()
        call = await peer.opened()
        data = message(b"") + message(b"one") + message(bytes(100_000))
        framed = b"".join(frame(h2.DATA, 0, 1, data[at : at + 9999]) for at in range(0, len(data), 9999))
        framed += frame(h2.DATA, h2.END_STREAM | h2.PADDED, 1, b"\3" + message(b"end") + bytes(3))
        for at in range(0, len(framed), 777):
            peer.send(framed[at : at + 777])
        assert [await call.read() for _ in range(5)] == [b"", b"one", bytes(100_000), b"end", None]

    served(work)


def test_a_reset_ends_what_serves_the_call() -> None:
    async def work(peer: Peer) -> None:
        peer.call()
        call = await peer.opened()
        told, ended, tidy = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def serve() -> None:
            try:
                await asyncio.sleep(DEADLINE)
            except asyncio.CancelledError:
                told.set()
                # clean-up must run despite further events of the connection
                await ended.wait()
                tidy.set()

        task = call.task = asyncio.create_task(serve())
        await asyncio.sleep(0)
        peer.send(frame(h2.RST_STREAM, 0, 1, struct.pack(">L", h2.CANCEL)))
        await told.wait()
        call.stop()
        call.fail(WharfError(Kind.UNAVAILABLE, "the connection is lost, too"))
        ended.set()
        await asyncio.wait([task])
        assert tidy.is_set()
        with pytest.raises(WharfError) as failed:
            await call.read()
        assert failed.value.kind is Kind.CANCELLED
        call.finish()  # after the end: ignored

    served(work)


def test_sending_waits_for_the_window_and_ends_with_the_call() -> None:
    async def work(peer: Peer) -> None:
        peer.send(frame(h2.SETTINGS, 0, 0, struct.pack(">HL", 4, 10)))
        peer.call(last=True)
        call = await peer.opened()
        call.start()
        sending = asyncio.create_task(call.send(b"x" * 25))
        assert (await peer.frame(h2.DATA))[3] == message(b"x" * 25)[:10]
        peer.send(frame(h2.WINDOW_UPDATE, 0, 1, struct.pack(">L", 7)))
        assert (await peer.frame(h2.DATA))[3] == message(b"x" * 25)[10:17]
        assert not sending.done()
        peer.send(frame(h2.RST_STREAM, 0, 1, struct.pack(">L", h2.CANCEL)))
        with pytest.raises(WharfError):
            await sending

    served(work)


def test_too_many_calls_at_once_are_refused() -> None:
    async def work(peer: Peer) -> None:
        for number in range(1001):
            peer.call(2 * number + 1)
        _, _, id, payload = await peer.frame(h2.RST_STREAM)
        assert (id, struct.unpack(">L", payload)[0]) == (2001, h2.REFUSED_STREAM)

    served(work)


def test_disconnect_cancels_calls() -> None:
    async def work(peer: Peer) -> None:
        peer.call()
        call = await peer.opened()
        peer.writer.close()
        with pytest.raises(WharfError) as failed:
            await call.read()
        assert failed.value.kind is Kind.UNAVAILABLE
        with pytest.raises(WharfError):
            peer.connection.request("/s/M", ())

    served(work)


def test_an_answer_and_its_error() -> None:
    async def work(peer: Peer) -> None:
        peer.call(last=True)
        call = await peer.opened()
        call.start()
        await call.send(b"hello")
        call.finish(5, "50 % of it\nis ä", b"\0\1")
        _, _, _, block = await peer.frame(h2.HEADERS)
        assert dict(peer.decoder.decode(block, raw=True))[b":status"] == b"200"
        assert (await peer.frame(h2.DATA))[3] == message(b"hello")
        _, flags, _, block = await peer.frame(h2.HEADERS)
        found = {str(name): str(value) for name, value in peer.decoder.decode(block)}
        assert flags & h2.END_STREAM
        assert found["grpc-status"] == "5"
        assert found["grpc-message"] == "50 %25 of it%0Ais %C3%A4"
        assert found["grpc-status-details-bin"] == "AAE"

    served(work)


def test_a_peer_that_forbids_a_table_of_headers_learns_that_there_is_none() -> None:
    async def work(peer: Peer) -> None:
        peer.send(frame(h2.SETTINGS, 0, 0, struct.pack(">HL", 1, 0)))
        for id in (1, 3):
            peer.call(id, last=True)
            (await peer.opened()).finish(5, "no")
        blocks = [(await peer.frame(h2.HEADERS))[3] for _ in range(2)]
        peer.decoder.max_allowed_table_size = 0
        for block in blocks:
            assert dict(peer.decoder.decode(block, raw=True))[b"grpc-status"] == b"5"
        assert blocks[0] == b"\x20" + blocks[1]

    served(work)


def test_early_disconnect_leaks_no_descriptor() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        theirs.close()
        connection = await Connection.from_socket(ours, b"", lambda _: None)
        async with asyncio.timeout(DEADLINE):
            await connection.closed
        connection.abort()
        # The loop closes the descriptor; a second close could hit a reused number.
        assert ours.fileno() == -1

    uvloop.run(run())


def test_buffers_of_all_calls_are_limited() -> None:
    async def work(peer: Peer) -> None:
        # Incomplete messages, which no call can read.
        start = struct.pack(">BL", 0, Limits().message) + bytes(h2.FRAME - 5)
        for number in range(9):
            peer.call(2 * number + 1)
            peer.send(frame(h2.DATA, 0, 2 * number + 1, start))
        assert (await peer.frame(h2.RST_STREAM))[2] == 17
        assert peer.connection.buffered == 8 * h2.FRAME
        for _ in range(8):
            (await peer.opened()).finish()
        assert peer.connection.buffered == 0

    served(work, limits=Limits(held=8 * h2.FRAME))


def test_unread_ends_of_calls_close_the_connection() -> None:
    async def work(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        id = 1
        while not peer.connection.closed.done() and id < 20_000:
            peer.call(id, last=True)
            (await peer.opened()).finish(12, f"{id}" + "x" * 1000)
            id += 2
            transport = peer.connection._transport
            if transport is not None and transport.is_closing():
                break
        assert id < 20_000
        peer.connection.abort()
        await peer.connection.closed

    served(work)
