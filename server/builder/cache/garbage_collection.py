"""Garbage collection of the build cache: applies the rules of ``builder.gc`` after the cache has grown."""

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from api_models.filters import Filters
from engine.common.errors import WharfError
from engine.common.timeline import Timeline
from server.builder.cache.pruning import PruneOptions, read_filters
from server.config import BuilderGc, GcRule

log = logging.getLogger(__name__)

# A build adds many records; one run handles them all.
_PAUSE = 2.0


class GarbageCollector:
    """``root``: a directory on the disk that percentages in rules refer to."""

    def __init__(self, settings: BuilderGc, root: Path, prune: Callable[[PruneOptions], Awaitable[object]]) -> None:
        self._settings = settings
        self._root = root
        self._prune = prune
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def schedule(self) -> None:
        """Schedule a run: the cache has grown."""
        if self._settings.enabled and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE, self._start)

    def _start(self) -> None:
        self._timer = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        else:
            self.schedule()

    def _rules(self) -> Sequence[GcRule]:
        own = self._settings
        return own.rules or (GcRule(everything=True, reserved=own.reserved, most=own.most, free=own.free),)

    async def _run(self) -> None:
        disk = (await asyncio.to_thread(shutil.disk_usage, self._root)).total

        def amount(size: int | str) -> int:
            return size if isinstance(size, int) else disk * int(size.removesuffix("%")) // 100

        for rule in self._rules():
            filters: dict[str, list[str]] = {}
            for key, value in rule.filters:
                filters.setdefault(key, []).append(value)
            try:
                texts, before_ns = read_filters(Filters(filters))
                options = PruneOptions(
                    everything=rule.everything,
                    filters=texts,
                    before_ns=before_ns,
                    keep_bytes=amount(rule.reserved),
                    most_bytes=amount(rule.most),
                    free_bytes=amount(rule.free),
                )
                with Timeline("build cache GC"):
                    await self._prune(options)
            except WharfError as error:
                log.warning("clean-up of the build cache: %s", error.message)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
