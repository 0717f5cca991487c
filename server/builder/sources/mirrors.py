"""The mirrored directories of clients, kept between builds so that only changes are transferred.

Each mirror is a record of the cache (``source.local``), listed, pruned and collected like results of steps.
"""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.builder.cache.records import LOCAL, Cache, Record
from server.builder.operations.run_mounts import disk_usage
from server.builder.operations.selection import Checksums

_MEASURED = 64
"""Changed files after which a mirror's size is measured again."""


class Mirror:
    """A mirror in use by one build. ``changed``: the number of files written."""

    def __init__(self, path: str, checksums: Checksums) -> None:
        self.path, self.checksums = path, checksums
        self.changed = 0


class Mirrors:
    """A mirror is used by one build at a time: a concurrent build with the same key gets another directory."""

    def __init__(self, root: str, cache: Cache) -> None:
        self._root, self._cache = root, cache
        self._busy: set[str] = set()
        self._known: dict[str, dict[int, tuple[int, int, int, str]]] = {}

    @asynccontextmanager
    async def acquire(self, key: str, description: str) -> AsyncIterator[Mirror]:
        """Acquire a mirror for the block, with the cached checksums of its files."""
        number = 0
        while (path := os.path.join(self._root, f"{key}-{number}")) in self._busy:
            number += 1
        # Clients show the first twelve characters.
        record = f"{number}{key}-build-source"
        self._busy.add(path)
        self._cache.hold(record)
        try:
            if not await asyncio.to_thread(os.path.isdir, path):
                self._known.pop(path, None)
                await asyncio.to_thread(os.makedirs, path, 0o700)
            mirror = Mirror(path, Checksums(self._known.setdefault(path, {})))
            yield mirror
            await self._update_record(record, mirror, description)
        finally:
            self._cache.release(record)
            self._busy.discard(path)

    async def _update_record(self, id: str, mirror: Mirror, description: str) -> None:
        """Add the record, or update its last use and, after many changes, its size."""
        now = time.time_ns()
        known = any(record.id == id for record in await self._cache.find(id))
        if known:
            await self._cache.count_use([id], now_ns=now)
            if mirror.changed > _MEASURED:
                await self._cache.resize({id: await asyncio.to_thread(disk_usage, mirror.path)})
            return
        size = await asyncio.to_thread(disk_usage, mirror.path)
        await self._cache.add(Record(id, id, "", None, mirror.path, LOCAL, now, now, 1, size, description))

    async def remove(self, record: Record) -> bool:
        """Remove a mirror and its record, unless a build uses it."""
        path = record.path
        if path in self._busy:
            return False
        # Keeps builds from acquiring it while it is removed.
        self._busy.add(path)
        try:
            await self._cache.remove([record.id])
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        finally:
            self._busy.discard(path)
        return True

    async def clear_unknown(self) -> None:
        """At start, remove directories without a record."""
        known = {record.path for record in await self._cache.all() if record.kind == LOCAL}
        for name in await asyncio.to_thread(_names, self._root):
            path = os.path.join(self._root, name)
            if path not in known:
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


def _names(root: str) -> list[str]:
    return os.listdir(root) if os.path.isdir(root) else []
