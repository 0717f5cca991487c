"""The cache session of one build: the records that it uses and those that it writes."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import replace

from engine.api.client import Engine
from engine.common.errors import WharfError
from server.builder.cache.records import Cache, Record
from server.builder.operations.difference import clean_up
from server.builder.plan.steps import Result
from server.builder.solver.keys import Definition

log = logging.getLogger("wharf.build")


class CacheSession:
    """Holds records against pruning while the build runs. Call ``close`` at the build's end."""

    def __init__(self, engine: Engine, cache: Cache) -> None:
        self._engine, self._cache = engine, cache
        self._held: list[str] = []
        self._used: set[str] = set()
        self._forgotten: list[str] = []
        self._last: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def hold(self, record: str) -> None:
        """Keep a record from being pruned until ``close``."""
        self._cache.hold(record)
        self._held.append(record)

    def use(self, record: str) -> None:
        """Count a use of the record."""
        self._used.add(record)

    def defer(self, work: Coroutine[None, None, None]) -> None:
        """Run work in the background; ``close`` waits for it."""
        self._tasks.append(asyncio.create_task(work))

    def record(self, record: Record, parent: Result) -> None:
        """Add a record in the background. The next step does not wait for it; ``close`` does."""
        self._last = asyncio.create_task(self._record(record, parent, self._last))
        self._tasks.append(self._last)

    async def _record(self, record: Record, parent: Result, before: "asyncio.Task[None] | None") -> None:
        """Add a record with its size and parents. ``before``: the task that may be adding its parent."""
        if before is not None:
            await asyncio.wait([before])
        size = 0
        if record.layer is not None:
            size = record.layer.descriptor.size + (await self._engine.snapshots.usage(record.chain_id)).size
        below = await self._cache.find(parent.key) if parent.key else []
        parents = tuple(item.id for item in below[:1])
        try:
            await self._cache.add(replace(record, size=size, parents=parents))
        except WharfError as error:
            # The step itself succeeded; the next build runs it again. Its lease stays until this build ends.
            log.warning("step %s is not cached: %s", record.description, error.message)
            self._forgotten.append(record.id)
            return
        self._cache.verified.add(record.id)

    def link(self, definition: Definition, result: Result) -> None:
        """Store which content-based key a definition led to."""
        if definition.key != result.key:
            self.defer(self._cache.link(definition.key, result.key, since_ns=definition.made_ns))

    async def close(self) -> None:
        """Wait for pending writes and release the records."""
        await asyncio.gather(*self._tasks)
        for record in self._forgotten:
            await clean_up(self._engine.leases.delete(record))
        for record in self._held:
            self._cache.release(record)
        await self._cache.count_use(self._used, now_ns=time.time_ns())
