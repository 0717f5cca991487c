"""A layer made anew from a layer: in another compression, or with no time later than a given one."""

import asyncio
import os
import tempfile
from collections.abc import Callable

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.build.copying import archive_entries
from engine.build.steps import Layer
from engine.layers.blob import LayerWriter, Written
from engine.layers.compression import Compression, decompressed
from engine.layers.tarread import TarReader

MEDIA_TYPES = {
    Compression.GZIP: "application/vnd.oci.image.layer.v1.tar+gzip",
    Compression.ZSTD: "application/vnd.oci.image.layer.v1.tar+zstd",
    Compression.NONE: "application/vnd.oci.image.layer.v1.tar",
}
_PIECE = 1 << 20


def rewrite(
    read: Callable[[int], bytes], out: Callable[[bytes], object], compression: Compression, clamp_ns: int | None
) -> Written:
    """Blocks. ``clamp_ns``: no entry's time is later."""
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
    """The layer in the content store, under the lease of the caller."""
    folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="convert-", dir=scratch)
    source, target = os.path.join(folder, "in"), os.path.join(folder, "out")
    try:
        with await asyncio.to_thread(open, source, "wb") as file:
            async for piece in engine.content.read(layer.descriptor.digest):
                await asyncio.to_thread(file.write, piece)

        def work() -> Written:
            with open(source, "rb") as file, open(target, "wb", 0) as out:
                return rewrite(file.read, out.write, compression, clamp_ns)

        written = await asyncio.to_thread(work)
        await upload(engine, f"convert-{written.digest}", target, written)
    finally:
        for path in (source, target):
            await asyncio.to_thread(_unlink, path)
        await asyncio.to_thread(os.rmdir, folder)
    descriptor = Descriptor(MEDIA_TYPES[compression], written.digest, written.size)
    return Layer(descriptor, written.diff_id, layer.created_ns)


def _unlink(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


async def upload(engine: Engine, ref: str, path: str, written: Written) -> None:
    """A layer's file into the content store."""
    labels = {"containerd.io/uncompressed": written.diff_id}
    file = await asyncio.to_thread(open, path, "rb", 0)
    try:
        async with engine.content.writer(ref, expected=written.digest, total=written.size) as writer:
            await writer.truncate()
            while data := await asyncio.to_thread(file.read, _PIECE):
                await writer.write(data)
            await writer.commit(size=written.size, digest=written.digest, labels=labels)
    finally:
        file.close()
