"""The disk that users and job sockets use: sums that are measured in the background.

The sum of a *scope* (``server.access.owners.is_within``) is measured again some seconds after anything that may write
to the disk was allowed, and at intervals, as a running container's layer and volumes may grow. So it can exceed the
limit by what is written between two measurements; from then on, nothing new is made.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from engine.common.errors import WharfError
from engine.common.threads import run_in_thread
from server.access.owners import is_within
from server.containers.context import ContainerContext
from server.volumes.sizes import directory_size

log = logging.getLogger(__name__)

#: Seconds after which a sum is measured again: once something may have been written, and in any case.
SOON = 10.0
INTERVAL = 120.0
# The part of the time that measurements of one scope may take.
_SHARE = 10

#: The bytes of the own images of a scope, by name.
ImageSizes = Callable[[str], Awaitable[Mapping[str, int]]]


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes by the names of containers (writable layer and files beside it, such as the log), volumes, and images."""

    containers: Mapping[str, int] = field(default_factory=dict)
    volumes: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(sum(each.values()) for each in (self.containers, self.volumes, self.images))


@dataclass(slots=True)
class _Sum:
    disk: Disk
    measured: float
    seconds: float
    dirty: bool = False

    def due(self, now: float) -> bool:
        age = now - self.measured
        return age >= max(SOON if self.dirty else INTERVAL, _SHARE * self.seconds)


class DiskUsage:
    """``images``: measures the own images of a scope."""

    def __init__(self, context: ContainerContext, images: ImageSizes) -> None:
        self._context = context
        self._images = images
        self._sums: dict[str, _Sum] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, scope: str) -> Disk:
        """The last sum; measured now if there is none."""
        found = self._sums.get(scope)
        return found.disk if found is not None else await self.measure(scope)

    def known(self, scope: str) -> Disk | None:
        """The last sum, if there is one."""
        found = self._sums.get(scope)
        return found.disk if found is not None else None

    async def fresh(self, scope: str) -> Disk:
        """A sum for a refusal, measured now, so that it doesn't count what the user has removed; the last sum while
        requests come faster than a measurement takes."""
        found = self._sums.get(scope)
        if found is not None and time.monotonic() - found.measured < 2 * found.seconds:
            return found.disk
        return await self.measure(scope)

    def writes(self, scope: str) -> None:
        """Something was allowed that may write to the disk."""
        if (found := self._sums.get(scope)) is not None:
            found.dirty = True

    async def refresh(self, exists: Callable[[str], bool]) -> None:
        """Measures the sums that are due, and forgets those of scopes that don't exist any more."""
        self._sums = {scope: found for scope, found in self._sums.items() if exists(scope)}
        for scope, found in list(self._sums.items()):
            if found.due(time.monotonic()):
                try:
                    await self.measure(scope)
                except (WharfError, OSError) as error:
                    log.warning("the disk usage of %s can't be measured: %s", scope, error)

    async def measure(self, scope: str) -> Disk:
        """:raises WharfError: the engine doesn't answer."""
        began = time.monotonic()
        async with self._locks.setdefault(scope, asyncio.Lock()):
            found = self._sums.get(scope)
            if found is not None and found.measured > began:
                return found.disk  # by another request, meanwhile
            began = time.monotonic()
            containers = [one for one in self._context.registry if is_within(one.owner, scope)]
            layers = await self._context.sizes.get_all(containers)
            volumes = {
                one.own_name: one.mountpoint
                for one in self._context.volumes.all()
                if is_within(one.owner, scope) and one.driver == "local" and not one.options
            }
            beside = await run_in_thread(_sizes, {one.id: one.directory for one in containers})
            disk = Disk(
                {one.name: layers[one.id][0] + beside[one.id] for one in containers},
                await run_in_thread(_sizes, volumes),
                await self._images(scope),
            )
            ended = time.monotonic()
            # ``began``: what is written since then is measured next.
            self._sums[scope] = _Sum(disk, began, ended - began)
            return disk


def _sizes(directories: Mapping[str, str]) -> dict[str, int]:
    found = dict.fromkeys(directories, 0)
    for name, directory in directories.items():
        with contextlib.suppress(OSError):
            found[name] = directory_size(directory)
    return found
