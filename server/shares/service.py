"""The shares of all owners: the service behind the Protocol ``Shares`` of ``server.containers.neighbours``."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from pathlib import Path

from api_models.container import ContainerConfig, HostConfig
from api_models.resources import Resources
from server.access.owners import user_of
from server.access.policy import Policy, Role
from server.access.refusal import refused
from server.access.roles import Roles
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.run.cgroup import cgroup_of
from server.shares.accounting import INTERVAL, Accounting
from server.shares.cgroups import Limits
from server.shares.groups import UserGroups
from server.shares.limits import Counts, check_cpus, check_disk, check_labels
from server.shares.sampler import Reading, Target, read_all
from server.shares.store import Store
from server.shares.times import Measure, Times
from server.shares.usage import SOON, DiskUsage, ImageSizes

log = logging.getLogger(__name__)

#: Seconds between two searches for cgroups of users of whom nothing runs.
_SWEEP = 10.0


class Shares:
    """Make it before the containers are loaded; call ``open`` after that, and ``close`` after the containers' end.

    ``image_sizes``: see ``DiskUsage``; ``active``, ``gpu_use``: see ``Times``; ``links``: see ``Accounting``.
    """

    def __init__(
        self,
        roles: Roles,
        context: ContainerContext,
        *,
        image_sizes: ImageSizes,
        active: Callable[[Container], Awaitable[bool]],
        gpu_use: Measure,
        links: Callable[[Container], list[str]],
    ) -> None:
        self._context = context
        self._roles = roles
        self._groups = UserGroups(
            self._roles, context.facts.cgroups, context.config.cgroup_parent, context.facts.cgroup_driver
        )
        self._counts = Counts(context.registry)
        self._disk = DiskUsage(context, image_sizes)
        self._store = Store(Path(context.config.data_root))
        self._links = links
        self._times = Times(context, self._roles, self._store, read=self._read, active=active, gpu_use=gpu_use)
        self.accounting = Accounting(context, self._store, read=self._read, layer=self._layer, links=links)
        self.accounting.keep = roles.policy.accounting.keep
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Applies the limits to the users of containers that run since an earlier daemon, and removes the cgroups that
        it left."""
        await self.accounting.load()
        await self._groups.apply(self._running())
        await self._groups.collect(self._running())
        self._spawn(self._repeat(self._sweep, _SWEEP), "cgroups of users")
        self._spawn(self._repeat(self._measure, SOON / 2), "disk usage of users")
        self._spawn(self._repeat(self.accounting.sample, INTERVAL), "accounts of containers")
        self._spawn(self._limit_times(), "limits of time")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._groups.sweep(self._running)
        await asyncio.to_thread(self._store.close)

    def apply(self, policy: Policy) -> None:
        """Applies a new policy, in the background also to containers that run."""
        self._roles.apply(policy)
        self.accounting.keep = policy.accounting.keep
        self._times.recheck()
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

    def cgroup_parent(self, owner: str) -> str:
        return self._groups.parent(owner)

    @contextlib.asynccontextmanager
    async def creating(self, owner: str, config: ContainerConfig, host_config: HostConfig) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            role = await self._roles.of(owner)
            if role is not None:
                check_labels(role, config)
            for scope, bounds in await self._bounds(owner):
                check_cpus(bounds, host_config, scope)
                if ":" in scope and host_config.cgroup_parent and Limits.of(bounds) != Limits():
                    raise refused("--cgroup-parent: the containers of this job socket have limits together")
                await stack.enter_async_context(self._counts.creating(bounds, scope))
            yield

    async def check_update(self, owner: str, resources: Resources) -> None:
        for scope, bounds in await self._bounds(owner):
            check_cpus(bounds, resources, scope)

    async def _bounds(self, owner: str) -> list[tuple[str, Role]]:
        """The scopes that an owner's objects are in (``is_within``), each with its limits: the user and its role, and
        the job socket. The rights of a job socket's role are meaningless here."""
        found = (user_of(owner), await self._roles.of(owner)), (owner, self._roles.of_job(owner))
        return [(scope, role) for scope, role in found if role is not None]

    async def ports(self, owner: str) -> tuple[int, int] | None:
        """The first and the last host port that the role of an owner allows; None: it has no range."""
        role = await self._roles.of(owner)
        return role.ports if role is not None else None

    async def check_disk(self, owner: str) -> None:
        """Before anything is made that uses the disk.

        :raises WharfError: PERMISSION_DENIED: the owner uses all that its role allows.
        """
        for scope, role in await self._bounds(owner):
            if role.disk is not None:
                if (await self._disk.get(scope)).total >= role.disk:
                    check_disk(role, await self._disk.fresh(scope), scope)
                self._disk.writes(scope)

    async def ended(self, container: Container) -> None:
        await self.accounting.ended(container)

    async def _limit_times(self) -> None:
        await self._context.recovered.wait()
        await self._times.run()

    async def _read(self, containers: Iterable[Container]) -> dict[str, Reading]:
        """What these containers have used, by id."""
        context = self._context
        targets = {one.id: Target(cgroup_of(context, one), self._links(one)) for one in containers}
        return await asyncio.to_thread(read_all, context.facts.cgroups, targets) if targets else {}

    def _layer(self, container: Container) -> int:
        """Bytes; 0 if they are not measured yet, as those of administrators never are."""
        disk = self._disk.known(user_of(container.owner))
        return disk.containers.get(container.name, 0) if disk is not None else 0

    async def _measure(self) -> None:
        for user in sorted({user_of(owner) for owner in self._running()}):
            await self._disk.get(user)
        await self._disk.refresh(lambda scope: scope == user_of(scope) or self._roles.of_job(scope) is not None)

    async def _sweep(self) -> None:
        await self._groups.sweep(self._running)

    async def _repeat(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:
                log.exception("%s failed", work)
