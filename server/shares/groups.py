"""The cgroups of all users, and those of job sockets below them: made before the first container starts, limited by
the user's role or by the limits of the job socket, and removed when nothing runs in them."""

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from functools import partial

from engine.common.errors import WharfError
from engine.common.system.cgroups import CgroupLayout
from server.access.owners import user_of
from server.access.roles import Roles
from server.containers.spec.host import SYSTEMD
from server.shares import cgroups, slices
from server.shares.cgroups import Limits
from server.shares.naming import Group, group_of, is_group, user_group

log = logging.getLogger(__name__)


class UserGroups:
    """``parent``: the engine's cgroup parent, "" for the default. ``driver``: the engine's cgroup driver."""

    def __init__(self, roles: Roles, layout: CgroupLayout, parent: str, driver: str) -> None:
        self._roles = roles
        self._layout = layout
        self._parent = parent
        self._driver = driver
        self._lock = asyncio.Lock()
        # By owner: the limits that its cgroup has, and the number of starts and build steps that rely on it; the owners
        # that are jobs and had a cgroup.
        self._applied: dict[str, Limits] = {}
        self._leases: Counter[str] = Counter()
        self._jobs: set[str] = set()
        # What could not be enforced, each logged once.
        self._missing: set[str] = set()

    def path(self, owner: str) -> str:
        """The path of an owner's cgroup in every hierarchy."""
        return self._group(owner).path

    def parent(self, owner: str) -> str:
        """The parent cgroup of an owner's containers; "" for administrators, and for their job sockets without limits:
        the engine's."""
        return self._group(owner).parent if user_of(owner) or self._is_bounded(owner) else ""

    def _is_bounded(self, owner: str) -> bool:
        """Whether the owner is a job socket's with limits of its own for a cgroup."""
        bounds = self._roles.of_job(owner)
        return bounds is not None and Limits.of(bounds) != Limits()

    async def _limits(self, owner: str) -> Limits:
        """The limits of a user, or of a job socket."""
        role = await self._roles.of(owner)
        if owner == user_of(owner):
            return Limits.of(role)
        bounds = Limits.of(self._roles.of_job(owner))
        # Version 1 refuses a quota above that of the parent.
        cpus = [each for each in (bounds.cpus, role.cpus if role is not None else None) if each is not None]
        return replace(bounds, cpus=min(cpus)) if bounds.cpus is not None else bounds

    def _group(self, owner: str) -> Group:
        return group_of(owner, self._parent, self._driver)

    @contextlib.asynccontextmanager
    async def using(self, owner: str) -> AsyncIterator[str]:
        """The parent cgroup of an owner's containers, which exists with the limits of the user's role and of the job
        socket; in the block it isn't removed. "": see ``parent``.

        :raises WharfError, OSError: it can't be made.
        """
        parent, user = self.parent(owner), user_of(owner)
        if not parent:
            yield ""
            return
        self._leases[owner] += 1
        try:
            if owner != user and owner not in self._jobs:
                async with self._lock:
                    self._jobs.add(owner)
            for each in (user, *((owner,) if self._is_bounded(owner) else ())):
                limits = await self._limits(each)
                if self._applied.get(each) != limits or not cgroups.exists(self._layout, self.path(each)):
                    async with self._lock:
                        await asyncio.to_thread(self._apply, each, limits)
            yield parent
        finally:
            self._leases[owner] -= 1
            if not self._leases[owner]:
                del self._leases[owner]

    async def apply(self, owners: Iterable[str]) -> None:
        """Applies the present policy to the cgroups of these owners, which have running containers."""
        owners = {owner for owner in owners if self.parent(owner)}
        self._jobs |= {owner for owner in owners if owner != user_of(owner)}
        jobs = sorted(owner for owner in self._jobs & owners if self._is_bounded(owner))
        users = sorted(map(user_of, owners))
        # Version 1 refuses a quota below that of a child, and above that of the parent. So jobs come before their users
        # for lower quotas, and after them for higher ones.
        for owner in jobs:
            await self._apply_present(owner, report=False)
        for owner in dict.fromkeys((*users, *jobs)):
            await self._apply_present(owner)

    async def _apply_present(self, owner: str, *, report: bool = True) -> None:
        limits = await self._limits(owner)
        async with self._lock:
            try:
                await asyncio.to_thread(partial(self._apply, owner, limits, report=report))
            except (WharfError, OSError) as error:
                log.error("the limits of %s are not applied: %s", owner, error)

    def _apply(self, owner: str, limits: Limits, *, report: bool = True) -> None:
        """``report``: whether limits that can't be set are logged, each once."""
        group = self._group(owner)
        if self._driver == SYSTEMD:
            slices.make(group.parent, limits, lambda: cgroups.exists(self._layout, group.path))
        else:
            cgroups.make(self._layout, group.path)
            for reason in cgroups.limit(self._layout, group.path, limits):
                if report and reason not in self._missing:
                    self._missing.add(reason)
                    log.warning("policy: a limit of roles is not enforced on this host: %s", reason)
        self._applied[owner] = limits

    async def sweep(self, running: Callable[[], Iterable[str]]) -> None:
        """Removes the cgroups of users and jobs of whom nothing runs. ``running``: returns the owners of all containers
        that run."""
        async with self._lock:
            for job in sorted(self._jobs):
                if job not in {*running(), *self._leases}:
                    # Removed from the set first: a start from now on waits for the lock.
                    self._jobs.discard(job)
                    if await asyncio.to_thread(self._remove, self._group(job)):
                        self._applied.pop(job, None)
                    else:
                        self._jobs.add(job)
            for user in sorted(owner for owner in self._applied if owner == user_of(owner)):
                if user not in map(user_of, (*running(), *self._leases)):
                    limits = self._applied.pop(user)
                    if not await asyncio.to_thread(self._remove, user_group(user, self._parent, self._driver)):
                        self._applied[user] = limits

    def _remove(self, group: Group) -> bool:
        if self._driver != SYSTEMD:
            return cgroups.remove(self._layout, group.path)
        if cgroups.has_scope(self._layout, group.path):
            return False  # stopping the slice would stop its container
        return slices.remove(group.parent, lambda: cgroups.exists(self._layout, group.path))

    async def collect(self, owners: Iterable[str]) -> None:
        """At the daemon's start: removes the cgroups of users that an earlier daemon left. ``owners``: as in
        ``sweep``."""
        kept = {user_group(owner, self._parent, self._driver).path for owner in owners if owner}
        async with self._lock:
            await asyncio.to_thread(self._collect, kept)

    def _collect(self, kept: set[str]) -> None:
        above = os.path.dirname(user_group("x", self._parent, self._driver).path)
        for name in cgroups.children(self._layout, above):
            if is_group(name, self._parent, self._driver) and f"{above}/{name}" not in kept:
                self._remove(Group(name, f"{above}/{name}"))
