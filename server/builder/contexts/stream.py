"""The bytes of a context, from a client or a URL: an archive to extract, or the text of a Dockerfile."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import TypeVar

from engine.common.errors import invalid
from engine.common.layers.compression import Compression, detect
from engine.common.layers.extract import apply
from engine.common.layers.target import Options, Target
from engine.common.limits import DOCKERFILE_BYTES
from engine.common.threads import run_in_thread, run_to_completion

_AT_ONCE = 256 << 10
T = TypeVar("T")


class Stream:
    """A blocking ``read`` for a thread, over an asynchronous stream."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self.whole = False
        """Whether the buffered head is the whole stream."""
        self._requested: Future[bytes] | None = None
        self._stopped = False

    async def read_head(self) -> bytes:
        """Read ahead; :meth:`read` returns the same bytes again. A small context is buffered completely, so that the
        thread needs no round trips to the loop."""
        pieces, size = [self._head], len(self._head)
        while size < _AT_ONCE:
            piece = await self._more()
            if not piece:
                self.whole = True
                break
            pieces.append(piece)
            size += len(piece)
        self._head = b"".join(pieces)
        return self._head

    async def is_archive(self) -> bool:
        """Whether the stream starts with the header of an uncompressed tar."""
        while len(self._head) < 512 and (piece := await self._more()):
            self._head += piece
        return self._head[257:262] == b"ustar"

    async def read_all(self, limit: int) -> bytes:
        """Return the whole stream.

        :raises WharfError: INVALID_ARGUMENT: it is longer than ``limit`` bytes.
        """
        data = bytearray(self._head)
        while piece := await self._more():
            data += piece
            if len(data) > limit:
                raise invalid(f"the Dockerfile is larger than {limit} bytes")
        return bytes(data)

    async def _more(self) -> bytes:
        async for piece in self._body:
            if piece:
                return piece
        return b""

    def read(self, size: int) -> bytes:
        if self._head or self.whole:
            piece, self._head = self._head, b""
            return piece
        requested = self._requested = asyncio.run_coroutine_threadsafe(self._more(), self._loop)
        if self._stopped:
            requested.cancel()
        return requested.result()

    def stop(self) -> None:
        """End the stream for the reader; a thread may be blocked in :meth:`read` on a client that sends nothing."""
        self._stopped = True
        if self._requested is not None:
            self._requested.cancel()


async def extract(stream: Stream, root: str, then: Callable[[], T]) -> T:
    """Extract a tar of any compression with root as owner, as dockerd does; return the result of ``then``, which runs
    in the same thread.

    :raises WharfError: INVALID_ARGUMENT: a broken archive.
    """
    kind = detect(await stream.read_head())

    def work() -> T:
        apply(stream.read, Target(root), compression=kind, diff_id="-", options=Options(owner=(0, 0)))
        return then()

    # A cancelled build must wait until the thread has stopped using the directory.
    return await run_to_completion(asyncio.to_thread(work) if stream.whole else run_in_thread(work), stream.stop)


async def extract_or_read(body: AsyncIterator[bytes], root: str) -> tuple[str | None, str]:
    """Extract an archive, or return the text of other content, which is a Dockerfile; and the content's digest.

    :raises WharfError: INVALID_ARGUMENT: a broken archive, or a text longer than ``DOCKERFILE_BYTES``.
    """
    digest = hashlib.sha256()

    async def hashed() -> AsyncIterator[bytes]:
        async for piece in body:
            digest.update(piece)
            yield piece

    pieces = hashed()
    stream = Stream(pieces)
    head = await stream.read_head()
    text = None
    if detect(head) is Compression.NONE and not await stream.is_archive():
        text = (await stream.read_all(DOCKERFILE_BYTES)).decode(errors="replace")
    else:
        await extract(stream, root, lambda: None)
        async for _ in pieces:  # hash what follows the end of the archive
            pass
    return text, f"sha256:{digest.hexdigest()}"
