"""Temporary directories."""

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.common.system import private


@asynccontextmanager
async def temporary_directory(within: str, prefix: str, below: str = "") -> AsyncIterator[str]:
    """Create a directory for the block. With ``below``, also a world-readable directory in it, whose path is returned.

    The directory is removed even if the caller is cancelled while it is created or removed.
    """
    path = os.path.join(within, f"{prefix}-{secrets.token_hex(8)}")
    inner = os.path.join(path, below) if below else path

    def make() -> None:
        private.make_directory(path)
        if below:
            os.mkdir(inner, 0o755)

    made = asyncio.ensure_future(asyncio.to_thread(make))

    async def remove() -> None:
        await asyncio.wait([made])
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    try:
        await asyncio.shield(made)
        yield inner
    finally:
        await asyncio.shield(remove())
