"""The state as a leader commits to it: only while it is the leader."""

from collections.abc import Sequence

from engine.common.errors import Kind, WharfError
from server.swarm.model.objects import Leader
from server.swarm.state.state import Conflict, Operation, Require, State, Subscription


class FencedState(State):
    """``state``, each of whose commits also requires that the object ``leader`` still has this version. So a leader
    that was paused, and has lost its place meanwhile, changes nothing. ``open`` and ``close`` are of ``state`` only."""

    def __init__(self, state: State, leader: Leader) -> None:
        super().__init__(state.store)
        self.tables = state.tables
        self._state = state
        self._leader = leader

    @property
    def revision(self) -> int:
        return self._state.revision

    def subscribe(self) -> Subscription:
        return self._state.subscribe()

    async def commit(self, operations: Sequence[Operation]) -> None:
        """As ``State.commit``.

        :raises WharfError: also UNAVAILABLE: this node is not the leader any more.
        """
        if not operations:
            return
        self._check()
        try:
            await self._state.commit([*operations, Require(self._leader)])
        except Conflict:
            await self.synchronize()
            self._check()
            raise

    async def synchronize(self) -> None:
        await self._state.synchronize()

    def _check(self) -> None:
        found = self.tables.leader
        if found is None or found.version != self._leader.version:
            raise WharfError(Kind.UNAVAILABLE, "this node is not the leader of the swarm any more")
