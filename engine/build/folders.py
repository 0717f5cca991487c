"""Directories that are there for a while."""

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def folder(within: str, prefix: str) -> AsyncIterator[str]:
    """A new directory for the block. Who is cancelled, be it while it is made or removed, leaves nothing."""
    path = os.path.join(within, f"{prefix}-{secrets.token_hex(8)}")
    made = asyncio.ensure_future(asyncio.to_thread(os.makedirs, path, 0o700))

    async def remove() -> None:
        await asyncio.wait([made])
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    try:
        await asyncio.shield(made)
        yield path
    finally:
        await asyncio.shield(remove())
