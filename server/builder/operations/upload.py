"""Writes a layer to the content store, from a file or while the layer is generated."""

import asyncio
import os
import tempfile

import aiofiles

from engine.api.client import Engine
from engine.api.labels import UNCOMPRESSED
from engine.common.files.writing import write_all
from engine.common.layers.blob import Written

#: Bytes read and sent at a time.
PIECE = 1 << 20


class Spool:
    """Buffers a generated layer: a small one in memory, a larger one in a file of ``scratch``. Call ``close``."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._memory = bytearray()
        self._fd, self._path = -1, ""

    def write(self, data: bytes) -> None:
        """Append data. Blocks."""
        if self._fd < 0:
            self._memory += data
            if len(self._memory) <= PIECE:
                return
            self._fd, self._path = tempfile.mkstemp(prefix="layer-", dir=self._scratch)
            data, self._memory = bytes(self._memory), bytearray()
        write_all(self._fd, data)

    async def upload(self, engine: Engine, ref: str, written: Written) -> None:
        """Commit the data as the blob that ``written`` describes, under the caller's lease. Raises as
        :func:`upload`."""
        if self._path:
            await upload(engine, ref, self._path, written)
            return
        async with engine.content.writer(ref, expected=written.digest, total=written.size) as writer:
            await writer.truncate()
            await writer.write(bytes(self._memory))
            await writer.commit(size=written.size, digest=written.digest, labels={UNCOMPRESSED: written.diff_id})

    async def close(self) -> None:
        """Remove the file, if any."""
        if self._fd >= 0:
            os.close(self._fd)
            await asyncio.shield(asyncio.to_thread(os.unlink, self._path))


async def upload(engine: Engine, ref: str, path: str, written: Written) -> None:
    """Commit the file at ``path`` as the blob that ``written`` describes, under the caller's lease.

    :raises WharfError: the content store's error.
    """
    labels = {UNCOMPRESSED: written.diff_id}
    async with (
        aiofiles.open(path, "rb", buffering=0) as file,
        engine.content.writer(ref, expected=written.digest, total=written.size) as writer,
    ):
        await writer.truncate()
        while data := await file.read(PIECE):
            await writer.write(data)
        await writer.commit(size=written.size, digest=written.digest, labels=labels)
