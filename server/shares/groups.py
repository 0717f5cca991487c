"""The cgroups of all users: made before a user's first container starts, limited by the user's role, and removed when
nothing of the user runs."""

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable

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
        # The limits that a user's cgroup has; by owner, the number of starts and build steps that rely on its cgroup;
        # the owners that are jobs and had a cgroup.
        self._applied: dict[str, Limits] = {}
        self._leases: Counter[str] = Counter()
        self._jobs: set[str] = set()
        # What could not be enforced, each logged once.
        self._missing: set[str] = set()

    def path(self, owner: str) -> str:
        """The path of an owner's cgroup in every hierarchy."""
        return self._group(owner).path

    def parent(self, owner: str) -> str:
        """The parent cgroup of an owner's containers; "" for administrators: the engine's."""
        return self._group(owner).parent if owner else ""

    def _group(self, owner: str) -> Group:
        return group_of(owner, self._parent, self._driver)

    @contextlib.asynccontextmanager
    async def using(self, owner: str) -> AsyncIterator[str]:
        """The parent cgroup of an owner's containers, which exists with the limits of the user's role; in the block it
        isn't removed. "" for administrators: the engine's.

        :raises WharfError, OSError: it can't be made.
        """
        user = user_of(owner)
        if not user:
            yield ""
            return
        self._leases[owner] += 1
        try:
            if owner != user and owner not in self._jobs:
                async with self._lock:
                    self._jobs.add(owner)
            limits = Limits.of(await self._roles.of(owner))
            if self._applied.get(user) != limits or not cgroups.exists(self._layout, self.path(user)):
                async with self._lock:
                    await asyncio.to_thread(self._apply, user, limits)
            yield self._group(owner).parent
        finally:
            self._leases[owner] -= 1
            if not self._leases[owner]:
                del self._leases[owner]

    async def apply(self, owners: Iterable[str]) -> None:
        """Applies the present policy to the cgroups of these owners, which have running containers."""
        owners = set(owners)
        self._jobs |= {owner for owner in owners if owner != user_of(owner)}
        for user in sorted({user_of(owner) for owner in owners} - {""}):
            limits = Limits.of(await self._roles.of(user))
            async with self._lock:
                try:
                    await asyncio.to_thread(self._apply, user, limits)
                except (WharfError, OSError) as error:
                    log.error("the limits of %s are not applied: %s", user, error)

    def _apply(self, user: str, limits: Limits) -> None:
        group = user_group(user, self._parent, self._driver)
        if self._driver == SYSTEMD:
            slices.make(group.parent, limits, lambda: cgroups.exists(self._layout, group.path))
        else:
            cgroups.make(self._layout, group.path)
            for reason in cgroups.limit(self._layout, group.path, limits):
                if reason not in self._missing:
                    self._missing.add(reason)
                    log.warning("policy: a limit of roles is not enforced on this host: %s", reason)
        self._applied[user] = limits

    async def sweep(self, running: Callable[[], Iterable[str]]) -> None:
        """Removes the cgroups of users and jobs of whom nothing runs. ``running``: returns the owners of all containers
        that run."""
        async with self._lock:
            for job in sorted(self._jobs):
                if job not in {*running(), *self._leases}:
                    # Removed from the set first: a start from now on waits for the lock.
                    self._jobs.discard(job)
                    if not await asyncio.to_thread(self._remove, self._group(job)):
                        self._jobs.add(job)
            for user in sorted(self._applied):
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
