"""Managers as members of etcd: a node with a manager's certificate becomes one."""

import base64
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlsplit

from api_models.swarm.node import ManagerStatus
from engine.common.errors import Kind, WharfError
from server.swarm.keys import Keys
from server.swarm.model.objects import Node
from server.swarm.operations.admission import denied, reachable, removed
from server.swarm.operations.rpc import malformed
from server.swarm.remote.records import MemberAdded, MemberRequest
from server.swarm.state.state import Put, State

_ONLY_ONE = "this swarm has one manager: its state is in SQLite, as --swarm-store of its manager says"


class Members(Protocol):
    async def join(self, node_id: str, request: MemberRequest, caller: str) -> MemberAdded:
        """Adds a node as a learner; one that was added already gets the same answer. ``caller``: the address that the
        request comes from.

        :raises WharfError: PERMISSION_DENIED: it shall not be a manager; UNAVAILABLE: later.
        """

    async def promote(self, node_id: str) -> None:
        """Makes the learner a voting member; nothing happens if it is one.

        :raises WharfError: FAILED_PRECONDITION: it has not caught up yet.
        """

    async def leave(self, node_id: str, request: MemberRequest) -> None:
        """The node's join has failed: it is a worker that is down, and no member of etcd any more.

        :raises WharfError: FAILED_PRECONDITION: etcd can't remove it now; the leader removes it later.
        """


class EtcdCluster(Protocol):
    """The members of etcd; their names are the ids of the nodes."""

    async def add_learner(self, name: str, peer_url: str) -> Sequence[str]:
        """Adds a learner, unless there is a member with this URL. Returns ``name=url`` of all members, with the new
        one."""

    async def withdraw(self, peer_url: str) -> None:
        """Removes the learner with this URL; a missing one is no error."""

    async def promote(self, name: str) -> None: ...

    async def remove(self, name: str) -> None: ...


def departed(node: Node, message: str) -> Node:
    """A manager that has left the swarm: a worker that is down, until it is removed."""
    status = replace(node.status, state="down", message=message)
    return replace(node, spec=replace(node.spec, role="worker"), manager=None, status=status)


class EtcdMembers:
    """Implements ``Members`` over the swarm's own etcd. ``cluster`` None: the managers use a site's etcd."""

    def __init__(self, state: State, keys: Keys, cluster: EtcdCluster | None) -> None:
        self._state = state
        self._keys = keys
        self._cluster = cluster

    async def join(self, node_id: str, request: MemberRequest, caller: str) -> MemberAdded:
        self._node(node_id)
        addr = reachable(request.addr, caller)
        members: Sequence[str] = ()
        if self._cluster is not None:
            url = urlsplit(request.peer_url)
            if url.scheme != "https" or not url.hostname or len(request.peer_url) > 256:
                raise malformed("the peer URL of the member is none of https")
            members = await self._cluster.add_learner(node_id, request.peer_url)
        try:
            await self._state.transact(lambda: self._managing(node_id, addr))
        except WharfError:
            # Demoted or removed meanwhile. A learner that never starts would keep all others from joining.
            if self._cluster is not None:
                await self._cluster.withdraw(request.peer_url)
            raise
        sealed = self._state.cluster.sealed_unlock_key
        return MemberAdded(
            data_key=base64.b64encode(self._keys.data_key()).decode(),
            unlock_key=self._keys.open(sealed).decode() if sealed else "",
            name=node_id,
            members=tuple(members),
        )

    def _managing(self, node_id: str, addr: str) -> Sequence[Put]:
        """The others know its address before it serves: it is unreachable until then."""
        node = self._node(node_id)
        if node.manager is not None:
            return []
        manager = ManagerStatus(reachability="unreachable", addr=addr)
        return [Put(replace(node, manager=manager, updated_ns=time.time_ns()))]

    async def promote(self, node_id: str) -> None:
        self._node(node_id)
        if self._cluster is not None:
            await self._cluster.promote(node_id)

    async def leave(self, node_id: str, request: MemberRequest) -> None:
        await self._state.transact(lambda: self._left(node_id))
        if self._cluster is not None:
            await self._cluster.withdraw(request.peer_url)
            await self._cluster.remove(node_id)

    def _left(self, node_id: str) -> Sequence[Put]:
        return [Put(departed(self._node(node_id), "its join has failed"))]

    def _node(self, node_id: str) -> Node:
        node = self._state.tables.nodes.find(node_id)
        if node is None:
            raise removed(node_id)
        if node.spec.role != "manager":
            raise denied(f"node {node_id} is no manager")
        return node


class NoMembers:
    """Of a manager with its state in SQLite."""

    async def join(self, node_id: str, request: MemberRequest, caller: str) -> MemberAdded:
        raise WharfError(Kind.FAILED_PRECONDITION, _ONLY_ONE)

    async def promote(self, node_id: str) -> None:
        raise WharfError(Kind.FAILED_PRECONDITION, _ONLY_ONE)

    async def leave(self, node_id: str, request: MemberRequest) -> None:
        raise WharfError(Kind.FAILED_PRECONDITION, _ONLY_ONE)
