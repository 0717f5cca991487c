"""Reads a tar archive from an asynchronous stream, entry by entry, without a copy on disk.

Made for archives of a few large entries (saved images): the headers are parsed on the loop, decompression runs in a
thread.

Measured with 400 MB in six layers: 0.09 s of CPU; ``tarfile`` in a thread takes 0.14 s. There, each piece goes from
the loop to the thread and back, so that ``docker load`` takes 1.74 s of wharfd's CPU instead of 1.35 s.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

from engine.common.errors import invalid
from engine.common.layers import header as tar
from engine.common.layers.compression import Compression, decompressed, detect
from engine.common.layers.header import Header
from engine.common.layers.tarread import TarReader
from engine.common.threads import run_in_thread

_GATHER = 1 << 20
_META_LIMIT = 1 << 20


async def plain(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the decompressed stream in pieces of about 1 MiB.

    :raises WharfError: INVALID_ARGUMENT for broken data.
    """
    gathered = gather(body)
    first = await anext(gathered, b"")
    kind = detect(first)
    if kind is Compression.NONE:
        if first:
            yield first
        async for piece in gathered:
            yield piece
        return
    loop = asyncio.get_running_loop()
    head = [first]

    async def more() -> bytes:
        return await anext(gathered, b"")

    def read(_: int) -> bytes:
        if head:
            return head.pop()
        return asyncio.run_coroutine_threadsafe(more(), loop).result()

    pieces: Iterator[bytes] = decompressed(read, kind=kind)

    def step() -> bytes:
        return next(pieces, b"")

    while piece := await run_in_thread(step):
        yield piece


async def gather(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    parts: list[bytes] = []
    held = 0
    async for part in body:
        if len(part) >= _GATHER and not parts:
            yield part
            continue
        parts.append(part)
        held += len(part)
        if held >= _GATHER:
            yield b"".join(parts)
            parts, held = [], 0
    if parts:
        yield b"".join(parts)


class _Feed:
    """Iterates over the data fed so far; raises an exception, which the parser passes on, when it is exhausted."""

    def __init__(self) -> None:
        self.piece = b""

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> bytes:
        piece, self.piece = self.piece, b""
        if not piece:
            raise StopIteration
        return piece


class AsyncTar:
    """Iterates over entries; ``data`` yields the content of the current one, unread content is skipped."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._at = 0
        self._left = 0
        self._padding = 0

    async def _take(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            if self._at == len(self._buffer):
                self._buffer, self._at = await anext(self._pieces, b""), 0
                if not self._buffer:
                    break
            part = self._buffer[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def __aiter__(self) -> AsyncIterator[Header]:
        while True:
            async for _ in self.data():
                pass
            if self._padding and len(await self._take(self._padding)) < self._padding:
                raise invalid("unexpected EOF")
            header = await self._header()
            if header is None:
                break
            self._left = header.stored
            self._padding = -header.stored % 512
            yield header
        self._buffer, self._at = b"", 0
        async for _ in self._pieces:  # read the padding, so that the sender can finish
            pass

    async def _header(self) -> Header | None:
        """Read an entry's header. Extension headers are collected first and passed to the ordinary parser with it; the
        parser stops where the content would start."""
        blocks: list[bytes] = []
        while True:
            block = await self._take(512)
            if len(block) < 512:
                if block or blocks:
                    raise invalid("unexpected EOF")
                return None
            if not block.strip(b"\0") and not blocks:
                return None
            blocks.append(block)
            kind = block[156:157]
            if kind not in (b"x", b"g", b"L", b"K"):
                break
            try:
                size = int(block[124:136].strip(b" \0") or b"0", 8)
            except ValueError:
                raise invalid("archive/tar: invalid tar header") from None
            if size > _META_LIMIT or len(blocks) > 16:
                raise invalid("archive/tar: header field too long")
            padded = size + -size % 512
            extra = await self._take(padded)
            if len(extra) < padded:
                raise invalid("unexpected EOF")
            blocks.append(extra)
        feed = _Feed()
        feed.piece = b"".join(blocks)
        header = next(iter(TarReader(feed)), None)
        if header is not None and header.sparse is not None:
            raise invalid(f"{header.name}: sparse files are not supported in image archives")
        return header

    async def data(self) -> AsyncIterator[memoryview]:
        """Yield the current entry's content, uncopied. INVALID_ARGUMENT "unexpected EOF" if the stream ends early."""
        while self._left:
            if self._at == len(self._buffer):
                self._buffer, self._at = await anext(self._pieces, b""), 0
                if not self._buffer:
                    raise invalid("unexpected EOF")
            part = memoryview(self._buffer)[self._at : self._at + self._left]
            self._at += len(part)
            self._left -= len(part)
            yield part

    async def read(self, limit: int) -> bytes:
        """Return the whole content; INVALID_ARGUMENT if it has more than ``limit`` bytes."""
        if self._left > limit:
            raise invalid(f"archive entry of {self._left} bytes where at most {limit} are expected")
        return b"".join([part async for part in self.data()])


def regular(header: Header) -> bool:
    return header.type == tar.REGULAR
