"""The shares of all owners: the service behind the Protocol ``Shares`` of ``server.containers.neighbours``."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

from api_models.container import ContainerConfig, HostConfig
from api_models.resources import Resources
from server.access.owners import user_of
from server.access.policy import Policy
from server.containers.context import ContainerContext
from server.shares.groups import UserGroups
from server.shares.limits import Counts, check_cpus, check_disk, check_labels
from server.shares.roles import Roles
from server.shares.usage import SOON, DiskUsage, ImageSizes

log = logging.getLogger(__name__)

#: Seconds between two searches for cgroups of users of whom nothing runs.
_SWEEP = 10.0


class Shares:
    """Make it before the containers are loaded; call ``open`` after that, and ``close`` at the end."""

    def __init__(self, policy: Policy, context: ContainerContext, image_sizes: ImageSizes) -> None:
        self._context = context
        self._roles = Roles(policy)
        self._groups = UserGroups(
            self._roles, context.facts.cgroups, context.config.cgroup_parent, context.facts.cgroup_driver
        )
        self._counts = Counts(context.registry)
        self._disk = DiskUsage(context, image_sizes)
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Applies the limits to the users of containers that run since an earlier daemon, and removes what it left."""
        await self._groups.apply(self._running())
        await self._groups.collect(self._running())
        self._spawn(self._repeat(self._sweep, _SWEEP), "cgroups of users")
        self._spawn(self._repeat(self._disk.refresh, SOON), "disk usage of users")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._groups.sweep(self._running())

    def apply(self, policy: Policy) -> None:
        """Applies a new policy, in the background also to containers that run."""
        self._roles.apply(policy)
        self._spawn(self._groups.apply(self._running()), "limits of users")

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

    @contextlib.asynccontextmanager
    async def creating(self, owner: str, config: ContainerConfig, host_config: HostConfig) -> AsyncIterator[None]:
        role = await self._roles.of(owner)
        if role is None:
            yield
            return
        check_labels(role, config)
        check_cpus(role, host_config)
        with self._counts.creating(role, owner):
            yield

    async def check_update(self, owner: str, resources: Resources) -> None:
        if (role := await self._roles.of(owner)) is not None:
            check_cpus(role, resources)

    async def check_disk(self, owner: str) -> None:
        """Before anything is made that uses the disk.

        :raises WharfError: PERMISSION_DENIED: the owner uses all that its role allows.
        """
        role = await self._roles.of(owner)
        if role is None or role.disk is None:
            return
        user = user_of(owner)
        if (await self._disk.get(user)).total >= role.disk:
            check_disk(role, await self._disk.fresh(user))
        self._disk.writes(user)

    async def _sweep(self) -> None:
        await self._groups.sweep(self._running())

    async def _repeat(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:
                log.exception("%s failed", work)
