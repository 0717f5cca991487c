"""Runs the loops of a manager. A loop that fails is logged and begins again: it computes everything from the state."""

import asyncio
import logging
from collections.abc import Sequence

from engine.common.errors import WharfError
from server.swarm.host import Part

log = logging.getLogger(__name__)

#: Seconds between an exception of a loop and its next run: the first pause, and the longest.
_PAUSE, _LONGEST = 0.5, 30.0


class Parts:
    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._added: list[Part] = []

    def add(self, part: Part) -> None:
        """A part that ``start`` begins, too."""
        self._added.append(part)

    def start(self, parts: Sequence[Part]) -> None:
        for part in (*self._added, *parts):
            self._tasks.append(asyncio.create_task(_run(part), name=f"swarm-{type(part).__name__.lower()}"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []


async def _run(part: Part) -> None:
    pause = _PAUSE
    while True:
        began = asyncio.get_running_loop().time()
        try:
            await part.run()
        except WharfError as error:
            log.warning("%s of the swarm failed, and begins again: %s", type(part).__name__, error.message)
        except Exception:
            log.exception("%s of the swarm failed, and begins again", type(part).__name__)
        else:
            return
        if asyncio.get_running_loop().time() - began > _LONGEST:
            pause = _PAUSE
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST)
