"""Releases the resources of a build once neither the build nor any step that it started uses them.

A step may outlive the build that started it if other builds joined the step (``shared_tasks.py``). Until the step ends,
the files that it mounts or copies must not change, and the other resources that it uses must stay open.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

from engine.common.errors import Kind, WharfError

T = TypeVar("T")

log = logging.getLogger("wharf.build")


class Lifetime:
    """Counts users: the build, from construction until :meth:`release`, and each block of :meth:`use`.

    When the last user ends, the exit callbacks run, newest first, and are awaited. As an async context manager it calls
    :meth:`release` at the end of the block.
    """

    def __init__(self) -> None:
        self._users = 1
        self._released = False
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Lifetime":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    async def enter(self, resource: AbstractAsyncContextManager[T]) -> T:
        """Enter ``resource``; its exit runs when the last user ends. Raises what entering raises."""
        return await self._stack.enter_async_context(resource)

    def at_end(self, close: Callable[[], Awaitable[None] | None]) -> None:
        """Run ``close`` when the last user ends, and await what it returns. Must be called before that."""

        async def run() -> None:
            if (closing := close()) is not None:
                await closing

        self._stack.push_async_callback(run)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[None]:
        """Count the block as a user. A failure of the exit callbacks is logged, not raised: the block did not fail.

        :raises WharfError: CANCELLED: the last user has ended already.
        """
        if not self._users:
            raise WharfError(Kind.CANCELLED, "the build has ended")
        self._users += 1
        try:
            yield
        finally:
            try:
                await self._end_use()
            except Exception:
                log.exception("a build's resources could not be released")

    async def release(self) -> None:
        """End the build's own use. Returns at once while a step still uses the resources. Raises what the exits
        raise."""
        if not self._released:
            self._released = True
            await self._end_use()

    async def _end_use(self) -> None:
        self._users -= 1
        if not self._users:
            # A cancelled caller must not interrupt the callbacks.
            await asyncio.shield(self._stack.aclose())
