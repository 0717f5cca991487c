"""A running worker on this node: its agent, its certificate, and its connections to the managers."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from engine.common.errors import WharfError
from server.swarm.host import Host, Listening
from server.swarm.membership import Membership
from server.swarm.parts import Parts
from server.swarm.remote.client import Managers
from server.swarm.remote.dispatcher import RemoteDispatcher
from server.swarm.remote.identity import Identity
from server.swarm.remote.records import ManagerAddress
from server.swarm.remote.renewal import Renewal
from server.swarm.requests import Requests

log = logging.getLogger(__name__)

#: Seconds for what a node that leaves tells the managers.
_FAREWELL = 5.0


class Worker:
    """Made by ``transitions`` and ``joining``."""

    worker: ClassVar[Literal[True]] = True

    def __init__(self, host: Host, membership: Membership, requests: Requests) -> None:
        self._host = host
        self.membership = membership
        self.identity = Identity(host.directory)
        self.remotes = Managers(self.identity, [each.addr for each in membership.managers], self._learned)
        self.closed = False
        self._requests = requests
        self._dispatcher = RemoteDispatcher(self.remotes, membership.advertise_addr, membership.data_path_addr)
        self._parts = Parts()
        self._port: Listening | None = None
        self._saving: asyncio.Task[None] | None = None

    @property
    def error(self) -> str:
        """Why the node has no part in the swarm now, for ``GET /info``."""
        return ""

    def managers(self) -> list[dict[str, str]]:
        """``RemoteManagers`` of ``GET /info``."""
        return [{"NodeID": each.node_id, "Addr": each.addr} for each in self.membership.managers]

    async def open(self) -> None:
        """Starts. The managers need not be there: the tasks of this node go on."""
        member = self.membership
        self._port = await self._host.node_port(member, self.identity, self._dispatcher, self._is_manager)
        renewal = Renewal(self.remotes, self.identity, "worker", self._requests.role, self._requests.removed)
        self._parts.start([self._host.agent(self._dispatcher, self.identity), renewal])

    def _is_manager(self, node_id: str) -> bool:
        return any(each.node_id == node_id for each in self.membership.managers)

    def _learned(self, managers: Sequence[ManagerAddress]) -> None:
        """The managers are others now: the node begins with them after a restart."""
        self.membership = replace(self.membership, managers=tuple(managers))
        self._saving = asyncio.create_task(self._save(self._saving), name="swarm-managers")

    async def _save(self, former: asyncio.Task[None] | None) -> None:
        if former is not None:
            await former
        await asyncio.to_thread(self.membership.save, self._host.directory)

    async def close(self) -> None:
        self.closed = True
        await self._parts.close()
        if self._port is not None:
            await self._port.close()
        await self.remotes.close()
        if self._saving is not None:
            await self._saving

    async def resign(self) -> None:
        """The node leaves the swarm: tells the managers, if one can be reached."""
        try:
            async with asyncio.timeout(_FAREWELL):
                await self._dispatcher.end()
        except (TimeoutError, WharfError) as error:
            log.warning("the managers do not know that this node leaves: %s", error)
