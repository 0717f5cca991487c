"""The shares of all owners: the service behind the Protocol ``Shares`` of ``server.containers.neighbours``."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine

from server.access.policy import Policy
from server.containers.context import ContainerContext
from server.shares.groups import UserGroups
from server.shares.roles import Roles

log = logging.getLogger(__name__)

#: Seconds between two searches for cgroups of users of whom nothing runs.
_SWEEP = 10.0


class Shares:
    """Make it before the containers are loaded; call ``open`` after that, and ``close`` at the end."""

    def __init__(self, policy: Policy, context: ContainerContext) -> None:
        self._context = context
        self._roles = Roles(policy)
        self._groups = UserGroups(
            self._roles, context.facts.cgroups, context.config.cgroup_parent, context.facts.cgroup_driver
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Applies the limits to the users of containers that run since an earlier daemon, and removes what it left."""
        await self._groups.apply(self._running())
        await self._groups.collect(self._running())
        self._spawn(self._sweep(), "cgroups of users")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._groups.sweep(self._running())

    async def apply(self, policy: Policy) -> None:
        """Applies a new policy, also to containers that run."""
        self._roles.apply(policy)
        await self._groups.apply(self._running())

    def _spawn(self, work: Coroutine[object, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _running(self) -> list[str]:
        return [one.owner for one in self._context.registry if one.owner and one.state.running]

    @contextlib.asynccontextmanager
    async def cgroup(self, owner: str) -> AsyncIterator[str]:
        async with self._groups.using(owner) as parent:
            yield parent

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            try:
                await self._groups.sweep(self._running())
            except Exception:
                log.exception("cgroups of users could not be removed")
