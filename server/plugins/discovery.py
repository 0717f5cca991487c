"""Finds plugins by name and interface, and activates them at their first use."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.common.errors import WharfError, not_found
from server.plugins.address import Address
from server.plugins.client import PluginClient
from server.plugins.directories import SOCKETS, SPECS, PluginDirectories

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Activated:
    """``identity``: what the client was made for; it differs for another plugin of the same name."""

    identity: object
    client: PluginClient
    implements: frozenset[str]


class Plugins:
    """The plugins in the usual directories. Every look-up reads the directories; activations are cached."""

    def __init__(self, sockets: Sequence[Path] = SOCKETS, specs: Sequence[Path] = SPECS) -> None:
        self._directories = PluginDirectories(sockets, specs)
        self._known: dict[str, _Activated] = {}

    async def get(self, name: str, interface: str, *, deadline: str = "plugin.call") -> PluginClient:
        """The plugin of this name. The client is the same object until the plugin's address or socket is replaced.

        :raises WharfError: NOT_FOUND ``plugin "x" not found``, or it does not implement the interface; the errors of
            :meth:`PluginClient.call` for its activation, for which ``deadline`` counts.
        """
        address = self.find(name)
        if address is None:
            self._known.pop(name, None)
            raise not_found(f'plugin "{name}" not found')
        found = await self._activate(name, address, deadline)
        if interface not in found.implements:
            raise not_found(f'plugin "{name}" does not implement the requested interface')
        return found.client

    async def list(self, interface: str, *, deadline: str = "plugin.call") -> list[PluginClient]:
        """All plugins of the interface, by name; one whose activation fails is logged and left out."""

        async def one(name: str) -> PluginClient | None:
            try:
                address = self.find(name)
                found = await self._activate(name, address, deadline) if address is not None else None
            except (WharfError, OSError) as error:
                log.warning("plugin %s is ignored: %s", name, error)
                return None
            return found.client if found is not None and interface in found.implements else None

        found = await asyncio.gather(*(one(name) for name in sorted(set(self._directories.names()))))
        return [client for client in found if client is not None]

    def find(self, name: str) -> Address | None:
        """The address of a plugin of any interface; None: there is none of this name.

        :raises WharfError: INTERNAL: its file is malformed.
        """
        return self._directories.find(name)

    async def _activate(self, name: str, address: Address, deadline: str) -> _Activated:
        identity = _identity(address)
        known = self._known.get(name)
        if known is None or known.identity != identity:
            client = PluginClient(name, address)
            manifest = await client.call("Plugin.Activate", deadline=deadline)
            listed = manifest.get("Implements")
            implements = frozenset(map(str, listed)) if isinstance(listed, list) else frozenset()
            known = self._known[name] = _Activated(identity, client, implements)
        return known


def _identity(address: Address) -> object:
    """The address and, for a socket, its inode: a new socket may be another plugin's."""
    scheme, _, path = address.url.partition("://")
    if scheme == "unix":
        with contextlib.suppress(OSError):
            return address, os.stat(path).st_ino
    return address
