"""The directories of ``RUN --mount=type=cache``: their users and their removal.

A cache has the directories ``<key>``, ``<key>-1`` …; each is used by one step, or by steps that share it, as in
BuildKit (solver/llbsolver/mounts): ``shared`` joins the steps that share a directory, or takes a free one; ``private``
takes a free one; both create a new one if all are in use. ``locked`` waits until one is free.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from server.builder.cache.records import Cache, Record

Fill = Callable[[str], Awaitable[None]]
"""Creates a directory with its initial content."""
Describe = Callable[[str, str], Record]
"""Makes the record of a directory from its id and path."""


@dataclass(slots=True)
class _Use:
    """The steps that use one directory."""

    key: str
    sharing: str
    count: int = 0
    ready: asyncio.Lock = field(default_factory=asyncio.Lock)


def record_id(name: str) -> str:
    """The id of a directory's cache record."""
    return f"{name}-build-mount"


class CacheMounts:
    """``root``: the parent of the directories; ``scratch``: a directory of the same file system for partial ones."""

    def __init__(self, cache: Cache, root: str, scratch: str) -> None:
        self._cache, self.root, self._scratch = cache, root, scratch
        self._uses: dict[str, _Use] = {}
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def use(self, key: str, sharing: str, fill: Fill, describe: Describe) -> AsyncIterator[str]:
        """Acquire a directory of a cache for the block; it can't be removed meanwhile. Raises what ``fill`` raises."""
        name, use = await self._claim(key, sharing)
        record, path = record_id(name), os.path.join(self.root, name)
        try:
            async with use.ready:
                if not await asyncio.to_thread(os.path.isdir, path):
                    await self._make(path, fill)
                if not await self._cache.contains(record):
                    await self._cache.add(describe(record, path))
            yield path
        finally:
            await asyncio.shield(self._leave(name, use))

    async def remove(self, record: Record) -> bool:
        """Remove a directory and its record, unless a step uses it."""
        name = os.path.basename(record.path)
        async with self._changed:
            if name in self._uses:
                return False
            await self._cache.remove([record.id])
            # Move it away first: the next step creates a new directory, even while the removal still runs.
            directory = await asyncio.to_thread(tempfile.mkdtemp, prefix="removed-", dir=self._scratch)
            await asyncio.to_thread(_move, record.path, os.path.join(directory, name))
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        return True

    async def _claim(self, key: str, sharing: str) -> tuple[str, _Use]:
        async with self._changed:
            while (name := await self._choose(key, sharing)) is None:
                await self._changed.wait()
            use = self._uses.setdefault(name, _Use(key, sharing))
            use.count += 1
            self._cache.hold(record_id(name))
            return name, use

    async def _choose(self, key: str, sharing: str) -> str | None:
        """Choose the directory for a step; ``None`` if the step must wait."""
        if sharing == "shared":
            for name, use in self._uses.items():
                if use.key == key and use.sharing == "shared":
                    return name
        number = 0
        while True:
            name = f"{key}-{number}" if number else key
            if name not in self._uses:
                exists = await asyncio.to_thread(os.path.isdir, os.path.join(self.root, name))
                if exists or sharing != "locked" or not number:
                    return name
                return None  # all directories are in use
            number += 1

    async def _make(self, path: str, fill: Fill) -> None:
        directory = await asyncio.to_thread(tempfile.mkdtemp, prefix="cache-mount-", dir=self._scratch)
        try:
            made = os.path.join(directory, "made")
            await fill(made)
            await asyncio.to_thread(os.rename, made, path)
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _leave(self, name: str, use: _Use) -> None:
        async with self._changed:
            self._cache.release(record_id(name))
            use.count -= 1
            if not use.count:
                del self._uses[name]
            self._changed.notify_all()


def _move(path: str, target: str) -> None:
    with suppress(FileNotFoundError):
        os.rename(path, target)
