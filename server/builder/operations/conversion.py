"""Rewrites a layer with another compression, or with times limited to a given one."""

import asyncio
import os
from collections.abc import Callable

import aiofiles

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.common.layers.blob import LayerWriter, Written
from engine.common.layers.compression import Compression, decompressed
from engine.common.layers.tarread import TarReader
from engine.common.threads import run_to_completion
from server.builder.operations.copier import archive_entries
from server.builder.operations.temporary import temporary_directory
from server.builder.operations.upload import upload
from server.builder.plan.steps import Layer

MEDIA_TYPES = {
    Compression.GZIP: "application/vnd.oci.image.layer.v1.tar+gzip",
    Compression.ZSTD: "application/vnd.oci.image.layer.v1.tar+zstd",
    Compression.NONE: "application/vnd.oci.image.layer.v1.tar",
}


def rewrite(
    read: Callable[[int], bytes], out: Callable[[bytes], object], compression: Compression, clamp_ns: int | None
) -> Written:
    """Rewrite a layer's archive. ``clamp_ns``: the latest time of any entry. Blocks."""
    layer = LayerWriter(out, compression)
    archive = TarReader(decompressed(read))
    for entry, content in archive_entries(archive, iter(archive)):
        if clamp_ns is not None:
            entry.mtime_ns = min(entry.mtime_ns, clamp_ns)
        layer.tar.begin(entry)
        content(lambda piece: layer.tar.data(bytes(piece)))
        layer.tar.end(entry.size)
    return layer.finish()


async def convert(
    engine: Engine, layer: Layer, scratch: str, *, compression: Compression, clamp_ns: int | None = None
) -> Layer:
    """Write the converted layer to the content store, under the caller's lease."""
    async with temporary_directory(scratch, "convert") as directory:
        source, target = os.path.join(directory, "in"), os.path.join(directory, "out")
        async with aiofiles.open(source, "wb") as copy:
            async for piece in engine.content.read(layer.descriptor.digest):
                await copy.write(piece)

        def work() -> Written:
            with open(source, "rb") as file, open(target, "wb", 0) as out:
                return rewrite(file.read, out.write, compression, clamp_ns)

        written = await run_to_completion(asyncio.to_thread(work))
        await upload(engine, f"convert-{written.digest}", target, written)
    descriptor = Descriptor(MEDIA_TYPES[compression], written.digest, written.size)
    return Layer(descriptor, written.diff_id, layer.created_ns)
