"""Volume drivers in other processes: Docker's legacy plugin protocol (``server.plugins``).

A plugin is activated at its first use.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from engine.common.errors import WharfError, internal, not_found
from server.plugins.address import Address
from server.plugins.client import PluginClient, Refused
from server.plugins.directories import PluginDirectories
from server.volumes.base import VolumeState

log = logging.getLogger(__name__)


class PluginDriver:
    """A volume driver behind a client; see :class:`server.volumes.base.RemoteDriver`."""

    def __init__(self, client: PluginClient, scope: str) -> None:
        self.name = client.name
        self.scope = scope
        self._client = client

    async def check(self, name: str, options: Mapping[str, str]) -> None:
        """The plugin itself decides, at create."""

    async def create(self, name: str, options: Mapping[str, str]) -> str:
        if (state := await self.get(name)) is not None:
            return state.mountpoint
        await self._client.call("VolumeDriver.Create", {"Name": name, "Opts": dict(options)})
        return _path(await self._client.call("VolumeDriver.Path", {"Name": name}))

    async def remove(self, name: str) -> None:
        await self._client.call("VolumeDriver.Remove", {"Name": name})

    async def mount(self, name: str, options: Mapping[str, str], *, user: str) -> str:
        path = _path(await self._client.call("VolumeDriver.Mount", {"Name": name, "ID": user}))
        if not path.startswith("/"):
            # A relative path would be resolved in the daemon's own directory.
            raise internal(f'VolumeDriver.Mount: plugin "{self.name}" answered with no absolute path: "{path}"')
        return path

    async def unmount(self, name: str, options: Mapping[str, str], *, user: str) -> None:
        await self._client.call("VolumeDriver.Unmount", {"Name": name, "ID": user})

    async def get(self, name: str) -> VolumeState | None:
        try:
            answer = await self._client.call("VolumeDriver.Get", {"Name": name}, deadline="volume.ask")
        except Refused as refusal:
            # The protocol has no "not found": any refusal means it, as in dockerd.
            log.debug("volume %s: %s", name, refusal.message)
            return None
        volume = answer.get("Volume")
        if not isinstance(volume, dict) or volume.get("Name") not in (name, "", None):
            return None
        return _parse_volume(volume)

    async def list(self) -> dict[str, VolumeState]:
        answer = await self._client.call("VolumeDriver.List", deadline="volume.ask")
        found: dict[str, VolumeState] = {}
        rows = answer.get("Volumes")
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and isinstance(name := row.get("Name"), str) and name:
                found.setdefault(name, _parse_volume(row))
        return found


def _path(answer: Mapping[str, Any]) -> str:
    path = answer.get("Mountpoint")
    return path if isinstance(path, str) else ""


def _parse_volume(volume: Mapping[str, Any]) -> VolumeState:
    """A volume in a plugin's answer; fields of a wrong type count as missing."""
    status = volume.get("Status")
    return VolumeState(_path(volume), _nanoseconds(volume.get("CreatedAt")), status if isinstance(status, dict) else {})


def _nanoseconds(text: object) -> int:
    """A time in RFC 3339 as nanoseconds since the epoch; 0 for none, and for Go's zero time."""
    try:
        moment = datetime.fromisoformat(str(text or "")).astimezone(UTC)
        return max(int(moment.timestamp()), 0) * 10**9
    except (ValueError, OverflowError):  # OverflowError: a year out of range
        return 0


class VolumePlugins:
    """The volume drivers among the plugins; see :class:`server.volumes.remotes.Plugins`. Activated ones are cached."""

    def __init__(self, directories: PluginDirectories | None = None) -> None:
        self._directories = directories or PluginDirectories()
        # By name: its identity, and the driver, or None for a plugin of another kind.
        self._known: dict[str, tuple[object, PluginDriver | None]] = {}

    def names(self) -> list[str]:
        """The volume drivers that have been used."""
        return sorted(name for name, (_, driver) in self._known.items() if driver is not None)

    async def driver(self, name: str) -> PluginDriver:
        """The driver of this name.

        :raises WharfError: NOT_FOUND ``plugin "x" not found``, or it is not a volume driver.
        """
        address = self._directories.find(name)
        if address is None:
            self._known.pop(name, None)
            raise not_found(f'plugin "{name}" not found')
        driver = await self._activated(name, address, "volume.plugin")
        if driver is None:
            raise not_found(f'plugin "{name}" does not implement the requested interface')
        return driver

    async def drivers(self) -> list[PluginDriver]:
        """All volume drivers, activated; one that doesn't answer is logged and left out."""

        async def one(name: str) -> PluginDriver | None:
            try:
                address = self._directories.find(name)
                return await self._activated(name, address, "volume.ask") if address is not None else None
            except (WharfError, OSError) as error:
                log.warning("volume plugin %s is ignored: %s", name, error)
                return None

        found = await asyncio.gather(*(one(name) for name in sorted(set(self._directories.names()))))
        return [driver for driver in found if driver is not None]

    async def _activated(self, name: str, address: Address, deadline: str) -> PluginDriver | None:
        identity = _identity(address)
        known, driver = self._known.get(name, (None, None))
        if known != identity:
            client = PluginClient(name, address)
            scope = await _activate(client, deadline)
            driver = PluginDriver(client, scope) if scope else None
            self._known[name] = (identity, driver)
        return driver


def _identity(address: Address) -> object:
    """The address and, for a socket, its inode: a new socket may be another plugin's."""
    scheme, _, path = address.url.partition("://")
    if scheme == "unix":
        with contextlib.suppress(OSError):
            return address, os.stat(path).st_ino
    return address


async def _activate(client: PluginClient, deadline: str) -> str:
    """Activates the plugin; returns its volumes' scope, "" for a plugin of another kind."""
    manifest = await client.call("Plugin.Activate", deadline=deadline)
    implements = manifest.get("Implements")
    if not isinstance(implements, list) or "VolumeDriver" not in implements:
        return ""
    try:
        answer = await client.call("VolumeDriver.Capabilities", deadline=deadline)
    except WharfError:
        # Older plugins don't implement this method.
        return "local"
    capabilities = answer.get("Capabilities")
    scope = capabilities.get("Scope") if isinstance(capabilities, dict) else ""
    return "global" if str(scope).lower() == "global" else "local"
