"""Follows the state for all dispatchers of a manager: only those whose nodes an event concerns compute anything."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

from server.swarm.agent.dispatcher import DELIVERY, Assignments, pause
from server.swarm.dispatch.assignments import Computation
from server.swarm.state.state import State, Subscription

#: The longest pause, in seconds, for the time that a refreshment takes: a part of what tasks wait before they stop.
_REST = DELIVERY / 2


class _Follower:
    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.networks: frozenset[str] = frozenset()
        self.changed = asyncio.Event()


class Overview:
    """A manager has one, which its dispatchers share. It follows the state while at least one of them does.

    Changes of a node's own tasks come to it at once. Those of what it has in common with others come at once in a calm
    swarm, and after ``dispatcher.pause`` of all nodes at most.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._followers: dict[str, set[_Follower]] = {}
        self._computation = Computation(state.tables)
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def assignments(self, node_id: str) -> AsyncIterator[Assignments]:
        """See ``Dispatcher.assignments``."""
        follower = _Follower(node_id)
        self._add(follower)
        try:
            last = None
            while True:
                follower.changed.clear()
                # Before a view is computed for the first time.
                self._note()
                current = self._computation.of(node_id)
                follower.networks = frozenset(current.networks)
                if last is None or not _same(last, current):
                    last = current
                    yield current
                await follower.changed.wait()
        finally:
            self._remove(follower)

    def _add(self, follower: _Follower) -> None:
        if not self._followers:
            self._computation = Computation(self._state.tables)
            self._subscription = self._state.subscribe()
            self._task = asyncio.create_task(self._follow(self._subscription), name="swarm-overview")
        self._followers.setdefault(follower.node_id, set()).add(follower)

    def _remove(self, follower: _Follower) -> None:
        followers = self._followers[follower.node_id]
        followers.discard(follower)
        if not followers:
            del self._followers[follower.node_id]
        if not self._followers and self._task is not None and self._subscription is not None:
            self._task.cancel()
            self._subscription.close()
            self._task = self._subscription = None

    async def _follow(self, subscription: Subscription) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            wait = due - loop.time() if self._computation.stale else None
            await subscription.wait(wait)
            self._note()
            if self._computation.stale and loop.time() >= due:
                begin = time.thread_time()
                concerned = self._refresh()
                spent = time.thread_time() - begin
                due = loop.time() + max(min(2 * spent, _REST), pause(concerned))

    def _note(self) -> None:
        """Notes the events until now: the computation reads tables that have them."""
        if self._subscription is not None:
            for node_id in self._computation.note(self._subscription.take()):
                for follower in self._followers.get(node_id, ()):
                    follower.changed.set()

    def _refresh(self) -> int:
        """Returns how many nodes it concerns."""
        changes = self._computation.refresh()
        concerned = [
            follower
            for followers in self._followers.values()
            for follower in followers
            if changes.everything or not follower.networks.isdisjoint(changes.networks)
        ]
        for follower in concerned:
            follower.changed.set()
        return len(concerned)


def _same(one: Assignments, other: Assignments) -> bool:
    """What nodes have in common is compared by identity: see ``Shared``."""
    return (
        one.mesh is other.mesh
        and one.keys == other.keys
        and one.tasks == other.tasks
        and one.networks == other.networks
        and _identical(one.services, other.services)
        and _identical(one.peers, other.peers)
    )


def _identical(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    return one.keys() == other.keys() and all(value is other[key] for key, value in one.items())
