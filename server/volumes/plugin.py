"""Volume drivers in other processes: Docker's legacy plugin protocol (``server.plugins``)."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from engine.common.errors import Kind, WharfError, internal
from server.plugins.client import PluginClient, Refused
from server.plugins.discovery import Plugins
from server.volumes.base import VolumeState

log = logging.getLogger(__name__)

_INTERFACE = "VolumeDriver"


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
    """The volume drivers among the plugins; see :class:`server.volumes.remotes.DriverSource`."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._known: dict[str, tuple[PluginClient, PluginDriver]] = {}

    def names(self) -> list[str]:
        """The volume drivers that have been used."""
        return sorted(self._known)

    async def driver(self, name: str) -> PluginDriver:
        """The driver of this name.

        :raises WharfError: NOT_FOUND ``plugin "x" not found``, or it is not a volume driver.
        """
        try:
            client = await self._plugins.get(name, _INTERFACE)
        except WharfError as error:
            if error.kind is Kind.NOT_FOUND:
                self._known.pop(name, None)
            raise
        return await self._driver(client, "plugin.call")

    async def drivers(self) -> list[PluginDriver]:
        """All volume drivers, activated; one that doesn't answer is logged and left out."""
        found = await self._plugins.list(_INTERFACE, deadline="volume.ask")
        return await asyncio.gather(*(self._driver(client, "volume.ask") for client in found))

    async def _driver(self, client: PluginClient, deadline: str) -> PluginDriver:
        known = self._known.get(client.name)
        if known is None or known[0] is not client:
            known = self._known[client.name] = client, PluginDriver(client, await _scope(client, deadline))
        return known[1]


async def _scope(client: PluginClient, deadline: str) -> str:
    try:
        answer = await client.call("VolumeDriver.Capabilities", deadline=deadline)
    except WharfError:
        # Older plugins don't implement this method.
        return "local"
    capabilities = answer.get("Capabilities")
    scope = capabilities.get("Scope") if isinstance(capabilities, dict) else ""
    return "global" if str(scope).lower() == "global" else "local"
