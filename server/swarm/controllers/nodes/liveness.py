"""Which nodes are alive: the state of each node, and the status of managers, follow from the sessions.

A session that ends makes its node "down" at once: its lease has lasted three heartbeats. A new leader does not know for
how long a node has had no session; perhaps all managers were away. It gives such a node the time of six heartbeats to
begin one, as SwarmKit does; the node is "unknown" meanwhile: its tasks stay, and it gets no others.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from api_models.swarm.node import ManagerStatus, NodeStatus
from server.swarm.controllers.clock import Clock, SystemClock, changes_until
from server.swarm.model.objects import Leader, Node, Session
from server.swarm.state.state import Event, Put, State, Subscription
from server.swarm.store.interface import MAX_OPERATIONS

#: Heartbeats that a node may miss under a new leader.
GRACE_PERIODS = 6
#: Seconds in which changes are collected: the sessions of nodes that vanish together end one after the other.
_COLLECT = 0.1

_LOST = "heartbeat failure"
_UNKNOWN = 'Node moved to "unknown" state due to leadership change in cluster'
_LOST_UNKNOWN = 'heartbeat failure for node in "unknown" state'


class Liveness:
    """A part of the leader, in a swarm whose nodes have sessions. The only node of a swarm in SQLite has none."""

    def __init__(self, state: State, *, clock: Clock | None = None) -> None:
        self._state = state
        self._clock = clock or SystemClock()
        #: Nodes to look at.
        self._due: set[str] = set()
        #: Nodes that have, or had, a session under this leader.
        self._seen: set[str] = set()
        #: When nodes without a session count as down, ns since the epoch.
        self._deadlines: dict[str, int] = {}

    @property
    def busy(self) -> bool:
        """Whether nodes are to be looked at now."""
        return bool(self._due)

    @property
    def next_timer(self) -> int | None:
        """When a node counts as down, if nothing changes before; ns since the epoch."""
        return min(self._deadlines.values(), default=None)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        subscription = self._state.subscribe()
        try:
            self._seen |= {session.id for session in self._state.tables.sessions}
            self._due = {node.id for node in self._state.tables.nodes}
            await self._loop(subscription)
        finally:
            subscription.close()

    async def _loop(self, subscription: Subscription) -> None:
        while True:
            await self._apply()
            self._note(await changes_until(self.next_timer, subscription, self._clock))
            now = self._clock.now()
            self._due |= {id for id, moment in self._deadlines.items() if moment <= now}
            if self._due:
                await asyncio.sleep(_COLLECT)

    def _note(self, events: Iterable[Event]) -> None:
        for event in events:
            match event.item:
                case Session(id=id):
                    self._seen.add(id)
                    self._due.add(id)
                case Node(id=id):
                    self._due.add(id)
                case Leader():
                    self._due |= {node.id for node in self._state.tables.nodes if node.manager is not None}

    async def _apply(self) -> None:
        while self._due:
            ids = sorted(self._due)[:MAX_OPERATIONS]
            await self._state.transact(partial(self._changes, ids))
            self._due.difference_update(ids)

    def _changes(self, ids: Sequence[str]) -> Sequence[Put]:
        now = self._clock.now()
        changes = []
        for id in ids:
            node = self._state.tables.nodes.find(id)
            if node is None:
                self._seen.discard(id)
                self._deadlines.pop(id, None)
                continue
            status = self._status(node, now)
            manager = self._manager(node, status)
            if (status, manager) != (node.status, node.manager):
                changes.append(Put(replace(node, status=status, manager=manager, updated_ns=now)))
        return changes

    def _status(self, node: Node, now: int) -> NodeStatus:
        status = node.status
        if self._has_session(node):
            self._deadlines.pop(node.id, None)
            return status if status.state == "ready" else replace(status, state="ready", message="")
        if status.state == "down":
            self._deadlines.pop(node.id, None)
            return status
        if node.id in self._seen:
            return replace(status, state="down", message=_LOST)
        if now >= self._deadlines.setdefault(node.id, now + GRACE_PERIODS * self._state.cluster.heartbeat_ns):
            return replace(status, state="down", message=_LOST_UNKNOWN)
        return replace(status, state="unknown", message=_UNKNOWN) if status.state == "ready" else status

    def _manager(self, node: Node, status: NodeStatus) -> ManagerStatus | None:
        manager, leader = node.manager, self._state.tables.leader
        if manager is None:
            return None
        if leader is not None:
            manager = replace(manager, leader=leader.node_id == node.id)
        session = self._state.tables.sessions.find(node.id)
        if manager.leader or (session is not None and session.manager in (node.id, "")):
            return replace(manager, reachability="reachable")
        # A manager whose node follows another one has no store.
        lost = session is not None or status.state == "down"
        return replace(manager, reachability="unreachable") if lost else manager

    def _has_session(self, node: Node) -> bool:
        return self._state.tables.sessions.find(node.id) is not None
