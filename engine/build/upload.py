"""A layer's file into the content store."""

import aiofiles

from engine.api.client import Engine
from engine.layers.blob import Written

#: Bytes that are read and sent at a time.
PIECE = 1 << 20


async def upload(engine: Engine, ref: str, path: str, written: Written) -> None:
    """Commits what ``path`` holds as the blob that ``written`` describes, under the caller's lease.

    :raises WharfError: what the content store says.
    """
    labels = {"containerd.io/uncompressed": written.diff_id}
    async with (
        aiofiles.open(path, "rb", buffering=0) as file,
        engine.content.writer(ref, expected=written.digest, total=written.size) as writer,
    ):
        await writer.truncate()
        while data := await file.read(PIECE):
            await writer.write(data)
        await writer.commit(size=written.size, digest=written.digest, labels=labels)
