"""Volumes that only plugins know: queries them for a listing, and for an unknown name."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from engine.common.errors import WharfError, not_found
from server.volumes.base import RemoteDriver, Volume, VolumeState

T = TypeVar("T")


class DriverSource(Protocol):
    """Finds drivers in other processes."""

    async def driver(self, name: str) -> RemoteDriver:
        """The driver of this name.

        :raises WharfError: NOT_FOUND ``plugin "x" not found``.
        """

    async def drivers(self) -> Sequence[RemoteDriver]:
        """All drivers that answer, including unused ones."""

    def names(self) -> list[str]: ...


class RemoteVolumes:
    """Queries plugins, without caching."""

    def __init__(self, plugins: DriverSource | None) -> None:
        self._plugins = plugins

    def names(self) -> list[str]:
        """The drivers that have been used."""
        return self._plugins.names() if self._plugins is not None else []

    async def driver(self, name: str) -> RemoteDriver:
        """The driver of this name.

        :raises WharfError: NOT_FOUND if there is none.
        """
        try:
            if self._plugins is None:
                raise not_found(f'plugin "{name}" not found')
            return await self._plugins.driver(name)
        except WharfError as error:
            raise WharfError(error.kind, f"error looking up volume plugin {name}: {error.message}") from error

    async def state(self, volume: Volume) -> VolumeState | None:
        """The current state of a volume from its driver; None: the driver has none of this name.

        :raises WharfError: the driver doesn't exist or doesn't answer.
        """
        try:
            return await (await self.driver(volume.driver)).get(volume.name)
        except WharfError as error:
            reason = f'error while checking if volume "{volume.name}" exists in driver "{volume.driver}"'
            raise WharfError(error.kind, f"{reason}: {error.message}") from error

    async def probe(self, name: str) -> Volume | None:
        """A volume of this name in any plugin; None: no plugin has one. Ignores plugins that fail."""
        for driver, state in await _query(await self._drivers(()), lambda driver: driver.get(name)):
            if isinstance(state, VolumeState):
                return _from_state(name, driver, state)
        return None

    async def merge(self, known: Mapping[str, Volume], drivers: Collection[str]) -> tuple[list[Volume], list[str]]:
        """The known volumes and those that only plugins know, and the plugins' errors as sentences.

        ``drivers``: only these, if any are given. If a plugin doesn't answer, its known volumes are listed; if it
        answers, only those that it still has.
        """
        answers = {driver.name: (driver, state) for driver, state in await _query(await self._drivers(drivers), _list)}
        found: list[Volume] = []
        warnings: list[str] = []
        for volume in known.values():
            if drivers and volume.driver not in drivers:
                continue
            _, state = answers.get(volume.driver, (None, None))
            if not isinstance(state, dict):
                found.append(volume)
            elif volume.name in state:
                found.append(with_state(volume, state[volume.name]))
        names = set(known)
        for driver, state in answers.values():
            if isinstance(state, WharfError):
                warnings.append(f"list {driver.name}: {state.message}")
                continue
            # If several drivers have the same name, the first one's volume is listed.
            found += [_from_state(name, driver, each) for name, each in state.items() if name not in names]
            names.update(state)
        return found, warnings

    async def _drivers(self, names: Collection[str]) -> list[RemoteDriver]:
        if self._plugins is None:
            return []
        return [driver for driver in await self._plugins.drivers() if not names or driver.name in names]


def with_state(volume: Volume, state: VolumeState) -> Volume:
    """A known volume with the state that its plugin reports."""
    return replace(
        volume,
        mountpoint=state.mountpoint,
        created_ns=state.created_ns or volume.created_ns,
        status=state.status,
    )


def _from_state(name: str, driver: RemoteDriver, state: VolumeState) -> Volume:
    return with_state(Volume(name, driver.name, scope=driver.scope), state)


def _list(driver: RemoteDriver) -> Coroutine[object, object, dict[str, VolumeState]]:
    return driver.list()


async def _query(
    drivers: Iterable[RemoteDriver], question: Callable[[RemoteDriver], Coroutine[object, object, T]]
) -> list[tuple[RemoteDriver, T | WharfError]]:
    """Queries all concurrently; returns errors as results."""

    async def one(driver: RemoteDriver) -> tuple[RemoteDriver, T | WharfError]:
        try:
            return driver, await question(driver)
        except WharfError as error:
            return driver, error

    return await asyncio.gather(*map(one, drivers))
