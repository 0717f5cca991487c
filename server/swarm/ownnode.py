"""Follows what the swarm knows of this manager's own node: its role, its removal, and the other managers."""

import asyncio
from dataclasses import replace
from pathlib import Path

from server.swarm.membership import Membership
from server.swarm.model.objects import Node
from server.swarm.remote.records import ManagerAddress
from server.swarm.requests import Requests
from server.swarm.state.state import State

#: Seconds before a request that has had no effect is repeated.
_AGAIN = 5.0


class OwnNode:
    """A part of a manager."""

    def __init__(self, state: State, directory: Path, membership: Membership, requests: Requests) -> None:
        self._state = state
        self._directory = directory
        self._membership = membership
        self._requests = requests
        self._changes = state.subscribe()

    async def run(self) -> None:
        while True:
            await self._store_managers()
            satisfied = self._follow()
            try:
                async with asyncio.timeout(None if satisfied else _AGAIN):
                    while not any(isinstance(event.item, Node) for event in await self._changes.next()):
                        pass
            except TimeoutError:
                continue

    def _follow(self) -> bool:
        """Whether the node is what the swarm wants it to be."""
        node = self._state.tables.nodes.find(self._membership.node_id)
        if node is None:
            self._requests.removed()
            return False
        if node.spec.role != "manager" and node.manager is None:
            # The leader has removed this node's member of etcd.
            self._requests.role("worker")
            return False
        return True

    async def _store_managers(self) -> None:
        """A node that is demoted, or whose store is lost, needs the addresses of the others."""
        managers = tuple(
            ManagerAddress(node_id=node.id, addr=node.manager.addr)
            for node in sorted(self._state.tables.nodes, key=lambda each: each.id)
            if node.manager is not None
        )
        if len(managers) > 1 and managers != self._membership.managers:
            self._membership = replace(self._membership, managers=managers)
            await asyncio.to_thread(self._membership.save, self._directory)
