"""Directories that are there for a while."""

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.common.system import private


@asynccontextmanager
async def folder(within: str, prefix: str, below: str = "") -> AsyncIterator[str]:
    """A new directory for the block, with one ``below`` it that all may read; the innermost is given.

    Who is cancelled, be it while it is made or removed, leaves nothing.
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
