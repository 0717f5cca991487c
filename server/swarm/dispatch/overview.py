"""Follows the state for all dispatchers of a manager: only those whose nodes an event concerns compute anything."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from server.swarm.agent.dispatcher import Assignments
from server.swarm.dispatch.assignments import Changes, Computation
from server.swarm.state.state import State, Subscription

#: Seconds at most, by which changes of other nodes' tasks come later so that several come as one.
_LONGEST_PAUSE = 1.0


class _Follower:
    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.networks: frozenset[str] = frozenset()
        self.changed = asyncio.Event()
        self.urgent = asyncio.Event()

    def note(self, changes: Changes) -> None:
        if self.node_id in changes.nodes:
            self.urgent.set()
            self.changed.set()
        elif changes.everything or not self.networks.isdisjoint(changes.networks):
            self.changed.set()


class Overview:
    """A manager has one, which its dispatchers share. It follows the state while at least one of them does."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._followers: set[_Follower] = set()
        self._computation = Computation(state.tables)
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def assignments(self, node_id: str) -> AsyncIterator[Assignments]:
        """See ``Dispatcher.assignments``.

        Changes of the node's own tasks come at once. Others wait as long as all dispatchers need for one computation:
        a change of a network with thousands of tasks concerns each node, and would take all of the manager's time.
        """
        follower = _Follower(node_id)
        self._add(follower)
        try:
            last = None
            while True:
                follower.changed.clear()
                follower.urgent.clear()
                begin = time.perf_counter()
                current = self._computation.of(node_id)
                follower.networks = frozenset(current.networks)
                differs = current != last
                pause = min((time.perf_counter() - begin) * len(self._followers), _LONGEST_PAUSE)
                if differs:
                    yield current
                    last = current
                await follower.changed.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await follower.urgent.wait()
        finally:
            self._remove(follower)

    def _add(self, follower: _Follower) -> None:
        if not self._followers:
            self._computation = Computation(self._state.tables)
            self._subscription = self._state.subscribe()
            self._task = asyncio.create_task(self._follow(self._subscription), name="swarm-overview")
        self._followers.add(follower)

    def _remove(self, follower: _Follower) -> None:
        self._followers.discard(follower)
        if not self._followers and self._task is not None and self._subscription is not None:
            self._task.cancel()
            self._subscription.close()
            self._task = self._subscription = None

    async def _follow(self, subscription: Subscription) -> None:
        while True:
            changes = self._computation.note(await subscription.next())
            for follower in self._followers:
                follower.note(changes)
