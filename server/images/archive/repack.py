"""Layers that come compressed with xz or bzip2, which no media type of a layer names: they are stored with gzip.

dockerd decompresses what it imports and loads by any of gzip, zstd, xz and bzip2.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator

from engine.api.client import Engine
from engine.common.layers.compression import Compression, compressor, detect
from engine.common.layers.ends import TarEnd
from server.images.archive.asynctar import gather, plain
from server.images.archive.contents_reader import Blob

#: The compressions that OCI and Docker media types of layers name.
STORED = (Compression.NONE, Compression.GZIP, Compression.ZSTD)


async def storable(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """An archive's bytes in large pieces: as they come, or repacked if their compression is none of a layer. What is
    behind the end of an archive that is repacked is read, but not part of the result.

    :raises WharfError: INVALID_ARGUMENT for broken data.
    """
    pieces = gather(body)
    first = await anext(pieces, b"")
    if detect(first) in STORED:
        if first:
            yield first
        async for piece in pieces:
            yield piece
        return

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    async for piece in _repacked(whole(), TarEnd()):
        yield piece


async def repack(engine: Engine, blob: Blob) -> Blob:
    """The same layer in a compression that may be stored. Under a lease.

    :raises WharfError: INVALID_ARGUMENT for broken data.
    """
    if blob.compression in STORED:
        return blob
    ref, size = f"repack-{secrets.token_hex(8)}", 0
    try:
        async with engine.content.writer(ref) as writer:
            # With all of it: the layer's digest in the image's config counts what is behind the archive's end.
            async for piece in _repacked(engine.content.read(blob.digest), None):
                await writer.write(piece)
                size += len(piece)
            digest = await writer.found()
            await writer.commit(size=size, digest=digest)
    except BaseException:
        await asyncio.shield(engine.content.throw_away(ref))
        raise
    return Blob(digest, size, Compression.GZIP)


async def _repacked(body: AsyncIterator[bytes], end: TarEnd | None) -> AsyncIterator[bytes]:
    """The plain bytes of a stream, with ``end`` only those up to the archive's end, compressed with gzip."""
    packer = compressor(Compression.GZIP)
    async for piece in plain(body):
        kept = piece if end is None else memoryview(piece)[: end.of(piece)]
        if kept and (packed := await asyncio.to_thread(packer.compress, kept)):  # type: ignore[arg-type]
            yield packed
    yield packer.flush()
