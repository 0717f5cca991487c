"""The snapshots of a build's base images, unpacked when the first step runs on them.

A fully cached build needs no snapshot of a base image, so it unpacks none.
"""

import asyncio
from collections.abc import Awaitable, Callable

from server.builder.plan.steps import Base, Step

Unpack = Callable[[Base], Awaitable[None]]


async def _nothing(_: Base) -> None:
    """For base images that are unpacked already."""


class BaseSnapshots:
    """The base images of one build. ``unpack`` unpacks a base image's layers; it is called once per image."""

    def __init__(self, unpack: Unpack = _nothing) -> None:
        self._unpack = unpack
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def unpack(self, *steps: Step | None) -> None:
        """Unpack the base images of these steps. Raises what unpacking raises."""
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
        await self._unpack(base)

    async def close(self) -> None:
        """Cancel what still runs."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
