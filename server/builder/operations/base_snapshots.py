"""The base images under a build's steps, laid out as snapshots when a step is to be made on them.

What is cached stands there already: a build of which all is cached asks for none.
"""

import asyncio
from collections.abc import Awaitable, Callable

from server.builder.plan.steps import Base, Step

LayOut = Callable[[Base], Awaitable[None]]


async def _nothing(_: Base) -> None:
    """For bases that are there."""


class Ground:
    """One build's. ``lay_out`` sees to it that a base image has its snapshots; called once for each."""

    def __init__(self, lay_out: LayOut = _nothing) -> None:
        self._lay_out = lay_out
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def under(self, *steps: Step | None) -> None:
        """Lays out what these steps stand on. Raises what that raises."""
        for step in steps:
            while step is not None and step.parent is not None:
                step = step.parent
            if step is None or not isinstance(step.operation, Base):
                continue
            task = self._tasks.get(step.operation.chain_id)
            if task is None:
                task = asyncio.create_task(self._do(step.operation))
                self._tasks[step.operation.chain_id] = task
            await asyncio.shield(task)

    async def _do(self, base: Base) -> None:
        await self._lay_out(base)

    async def close(self) -> None:
        """Cancels what still runs."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
