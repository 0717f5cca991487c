"""The checks of what an owner makes against the limits of its role. Refusals name the limit, and what uses it."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping

from api_models.container import ContainerConfig
from api_models.resources import Resources
from engine.common.errors import Kind, WharfError, invalid
from server.access.owners import is_within
from server.access.policy import Role
from server.containers.registry import Registry
from server.shares.usage import Disk
from server.units import human_size

#: The label that exempts a container from limits of time.
KEEP = "wharf.keep"

# How many names a refusal lists.
_NAMED = 5


def is_kept(labels: Mapping[str, str]) -> bool:
    """Whether the labels ask for an exemption."""
    return labels.get(KEEP, "false").lower() not in ("false", "0", "no")


def check_labels(role: Role, config: ContainerConfig) -> None:
    """:raises WharfError: PERMISSION_DENIED: the role has no exemptions from limits of time."""
    if is_kept(config.labels or {}) and not role.keep:
        raise WharfError(Kind.PERMISSION_DENIED, f"the policy does not allow you the label {KEEP}")


def _who(scope: str) -> str:
    """Who sets the limits of a scope (``is_within``)."""
    return "the job socket" if ":" in scope else "the policy"


def check_cpus(role: Role, resources: Resources, scope: str = "") -> None:
    """Checks what version 1 of cgroups would refuse with the name of a file: a container's quota above its scope's.

    :raises WharfError: INVALID_ARGUMENT.
    """
    if role.cpus is None:
        return
    wanted = resources.nano_cpus / 1e9
    if resources.cpu_quota > 0:
        wanted = resources.cpu_quota / (resources.cpu_period or 100_000)
    if wanted > role.cpus:
        raise invalid(f"range of CPUs is from 0.01 to {role.cpus:.2f}, as {_who(scope)} allows you no more")


def check_disk(role: Role, disk: Disk, scope: str = "") -> None:
    """:raises WharfError: PERMISSION_DENIED."""
    if role.disk is None or disk.total < role.disk:
        return
    parts = [
        f"{title} {human_size(sum(sizes.values()))} ({_largest(sizes)})"
        for title, sizes in (("containers", disk.containers), ("volumes", disk.volumes), ("images", disk.images))
        if sizes
    ]
    allowed, used = human_size(role.disk), human_size(disk.total)
    raise WharfError(
        Kind.PERMISSION_DENIED, f"{_who(scope)} allows you {allowed} of disk, and {used} are used: {'; '.join(parts)}"
    )


class Counts:
    """The number of containers of each user and job socket, with those that are being created."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._creating: Counter[str] = Counter()
        self._ended = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def creating(self, role: Role, scope: str) -> AsyncIterator[None]:
        """Around a create. Waits while it depends on other creates whether this one is allowed. ``scope``: see
        ``is_within``.

        :raises WharfError: PERMISSION_DENIED: as many containers exist as the role or the job socket allows.
        """
        if role.containers is None:
            yield
            return
        async with self._ended:
            while self._creating[scope] and self._count(scope) + self._creating[scope] >= role.containers:
                await self._ended.wait()
        if (count := self._count(scope)) >= role.containers:
            names = sorted(one.name for one in self._registry if is_within(one.owner, scope))
            raise WharfError(
                Kind.PERMISSION_DENIED,
                f"{_who(scope)} allows you {role.containers} containers, and {count} exist: {_listed(names)}",
            )
        self._creating[scope] += 1
        try:
            yield
        finally:
            self._creating[scope] -= 1
            async with self._ended:
                self._ended.notify_all()

    def _count(self, scope: str) -> int:
        return sum(is_within(one.owner, scope) for one in self._registry)


def _largest(sizes: Mapping[str, int]) -> str:
    ranked = sorted(sizes, key=lambda name: -sizes[name])
    return _listed([f"{name} {human_size(sizes[name])}" for name in ranked])


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "") if names else "none"
