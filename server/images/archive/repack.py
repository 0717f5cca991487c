"""Repacks layers compressed with xz or bzip2 as gzip, because no layer media type names those compressions.

dockerd accepts gzip, zstd, xz and bzip2 for import and load.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator

from engine.api.client import Engine
from engine.common.layers.compression import Compression, compressor, detect
from engine.common.layers.tar_end import TarEnd
from server.images.archive.asynctar import gather, plain
from server.images.archive.contents_reader import Blob

#: The compressions that OCI and Docker media types of layers name.
STORED = (Compression.NONE, Compression.GZIP, Compression.ZSTD)


async def repack_if_needed(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield an archive in large pieces, repacked if no layer media type names its compression. Data after the end of a
    repacked archive is read but dropped.

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

    async for piece in _compress_gzip(whole(), TarEnd()):
        yield piece


async def repack(engine: Engine, blob: Blob) -> Blob:
    """Repack a layer in a compression that may be stored. Under a lease.

    :raises WharfError: INVALID_ARGUMENT for broken data.
    """
    if blob.compression in STORED:
        return blob
    ref, size = f"repack-{secrets.token_hex(8)}", 0
    try:
        async with engine.content.writer(ref) as writer:
            # Keep data after the end of the archive: the diff id in the image's config includes it.
            async for piece in _compress_gzip(engine.content.read(blob.digest), None):
                await writer.write(piece)
                size += len(piece)
            digest = await writer.current_digest()
            await writer.commit(size=size, digest=digest)
    except BaseException:
        await asyncio.shield(engine.content.discard_ingest(ref))
        raise
    return Blob(digest, size, Compression.GZIP)


async def _compress_gzip(body: AsyncIterator[bytes], end: TarEnd | None) -> AsyncIterator[bytes]:
    """Yield the stream decompressed and compressed again with gzip; with ``end``, up to the archive's end."""
    packer = compressor(Compression.GZIP)
    async for piece in plain(body):
        kept = piece if end is None else memoryview(piece)[: end.archive_bytes(piece)]
        if kept and (packed := await asyncio.to_thread(packer.compress, kept)):  # type: ignore[arg-type]
            yield packed
    yield packer.flush()
