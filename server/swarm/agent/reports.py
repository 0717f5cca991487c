"""Reports the statuses of tasks, many at once: each report is a commit of the managers."""

import asyncio
import logging
from contextlib import suppress

from engine.common.errors import Kind, WharfError
from server.swarm.agent.dispatcher import Dispatcher
from server.swarm.model.objects import TaskStatus

log = logging.getLogger(__name__)

#: Seconds between two reports; a status for which somebody waits is sent at once if the last report is older.
_INTERVAL = 0.1
#: Seconds that a status on the way to another one waits for it.
_PASSING = 0.3
#: Seconds after a failed report.
_RETRY = 1.0


class Reports:
    """Call ``add``, and ``run`` in a task. Only the newest status of a task is reported."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._pending: dict[str, TaskStatus] = {}
        self._due: float | None = None
        self._earliest = 0.0
        self._added = asyncio.Event()

    def add(self, task_id: str, status: TaskStatus, *, passing: bool = False) -> None:
        """``passing``: the next status will follow soon; this one is reported only if that takes long."""
        self._pending[task_id] = status
        due = asyncio.get_running_loop().time() + (_PASSING if passing else 0.0)
        self._due = due if self._due is None else min(self._due, due)
        self._added.set()

    def discard(self, task_id: str) -> None:
        """The task no longer exists."""
        self._pending.pop(task_id, None)

    async def run(self) -> None:
        """Reports until it is cancelled. What was not reported is observed again after a restart."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wait()
            batch, self._pending, self._due = self._pending, {}, None
            if not batch:
                continue
            try:
                await self._dispatcher.report(batch)
                self._earliest = loop.time() + _INTERVAL
            except Exception as error:
                if not isinstance(error, WharfError):
                    log.exception("the report failed")
                elif error.kind is not Kind.UNAVAILABLE:
                    log.error("the report failed: %s", error)
                self._pending = {**batch, **self._pending}
                self._due = self._earliest = loop.time() + _RETRY

    async def _wait(self) -> None:
        """Waits until a report is due."""
        loop = asyncio.get_running_loop()
        while True:
            self._added.clear()
            if self._due is None:
                await self._added.wait()
                continue
            delay = max(self._due, self._earliest) - loop.time()
            if delay <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._added.wait()
