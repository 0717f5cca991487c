"""Releases what a build reads when neither the build nor a step that it started needs it any more.

A step may outlive the build that started it, for builds that joined it (``shared.py``). Until it ends, the files that
it binds or copies must not change, and what it uses of its first build stays open.
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

    The last user that ends runs the exits, newest first, and waits for them. As an async context manager it releases
    the build's use at the end of the block.
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
        """Enters ``resource``, whose exit runs at the end. Raises what entering raises."""
        return await self._stack.enter_async_context(resource)

    def at_end(self, close: Callable[[], Awaitable[None] | None]) -> None:
        """Runs ``close`` at the end, and awaits what it returns. Call it before the end."""

        async def run() -> None:
            if (closing := close()) is not None:
                await closing

        self._stack.push_async_callback(run)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[None]:
        """Defers the end until the block ends. An exit that fails then is logged: it is no failure of the block.

        :raises WharfError: CANCELLED: it has ended.
        """
        if not self._users:
            raise WharfError(Kind.CANCELLED, "the build is over")
        self._users += 1
        try:
            yield
        finally:
            try:
                await self._end_use()
            except Exception:
                log.exception("a build's resources could not be released")

    async def release(self) -> None:
        """The build needs nothing any more. Returns at once if a step does. Raises what the exits raise."""
        if not self._released:
            self._released = True
            await self._end_use()

    async def _end_use(self) -> None:
        self._users -= 1
        if not self._users:
            # A cancelled caller must not leave it half done.
            await asyncio.shield(self._stack.aclose())
