"""The network and IPAM drivers of plugins that this daemon has used."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, internal
from server.networks.remote import driver, ipam
from server.networks.remote.driver import RemoteDriver
from server.networks.remote.ipam import RemoteIpam
from server.plugins.client import PluginClient
from server.plugins.discovery import Plugins

_D = TypeVar("_D")
#: Seconds between two attempts to reach a plugin that starts.
_PAUSE = 0.5


class Registry(Generic[_D]):
    """The drivers of one interface, by name. A plugin whose socket is replaced is activated again."""

    def __init__(self, plugins: Plugins, interface: str, activate: Callable[[PluginClient], Awaitable[_D]]) -> None:
        self._plugins = plugins
        self._interface = interface
        self._activate = activate
        self._known: dict[str, tuple[PluginClient, _D]] = {}

    async def get(self, name: str) -> _D:
        """The driver of this name.

        :raises WharfError: NOT_FOUND: there is no such plugin; INTERNAL: it is of another kind, or its activation
            fails.
        """
        try:
            client = await self._plugins.get(name, self._interface, deadline="network.plugin")
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND or self._plugins.find(name) is None:
                raise
            reason = "legacy plugin: Plugin does not implement the requested driver"
            raise internal(f'{reason}: plugin="{name}", requested implementation="{self._interface}"') from error
        known = self._known.get(name)
        if known is None or known[0] is not client:
            known = self._known[name] = (client, await self._activate(client))
        return known[1]

    async def wait(self, name: str, stopped: Callable[[], bool]) -> _D:
        """As :meth:`get`, for a plugin that starts at the same time as the daemon. No event tells of a socket that
        answers, so this tries again until the deadline, or until ``stopped``."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeouts.seconds("network.plugin-start")
        while True:
            try:
                return await self.get(name)
            except WharfError:
                if stopped() or loop.time() > end:
                    raise
            await asyncio.sleep(_PAUSE)

    async def get_used(self, name: str) -> _D:
        """As :meth:`get`, but a driver that this daemon has used stays known when its plugin is gone: each call of it
        fails then."""
        try:
            return await self.get(name)
        except WharfError as error:
            known = self._known.get(name)
            if known is None or error.kind is not Kind.NOT_FOUND:
                raise
            return known[1]


def network_drivers(plugins: Plugins) -> Registry[RemoteDriver]:
    return Registry(plugins, driver.INTERFACE, RemoteDriver.activate)


def ipam_drivers(plugins: Plugins) -> Registry[RemoteIpam]:
    return Registry(plugins, ipam.INTERFACE, RemoteIpam.activate)
