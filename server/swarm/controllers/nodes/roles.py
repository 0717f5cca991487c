"""Managers that become workers: the leader removes their members from etcd's cluster, and then stores that they are
none.

A demotion is the spec's role "worker" of a node that still is a manager. The API refuses one that would lose the
quorum; if managers are lost afterwards, the demotion waits for them. Members whose nodes have left the swarm or were
removed are removed, too, and so are those that belong to no node: the manager that admits a node adds its member first
and stores its address then, and may end between both. etcd has one learner at a time, so none could join any more.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

from engine.common.errors import WharfError
from server.swarm.controllers.clock import SECOND, Clock, SystemClock, changes_until
from server.swarm.model.objects import Node
from server.swarm.model.quorum import quorum_without
from server.swarm.state.state import Event, Put, State

log = logging.getLogger(__name__)

#: The time after which a demotion that was not possible is tried again, ns.
_RETRY = 5 * SECOND
#: The time after which a member belongs to no node, ns: longer than a commit takes.
_STORED = 30 * SECOND


class Member(Protocol):
    """``name``: the id of its node; "": it has not started yet. ``peer_urls``: where the others reach it."""

    @property
    def id(self) -> int: ...

    @property
    def peer_urls(self) -> Sequence[str]: ...

    @property
    def name(self) -> str: ...


class Members(Protocol):
    """The members of etcd's cluster. Both methods raise WharfError UNAVAILABLE."""

    async def list(self) -> Sequence[Member]: ...

    async def remove(self, id: int, /) -> None:
        """Removes a member; a missing one is no error.

        :raises WharfError: also FAILED_PRECONDITION: the quorum would be lost.
        """


class Roles:
    """A part of the leader, in a swarm with etcd members of its own. ``resign``: another manager becomes the leader,
    because this one is demoted."""

    def __init__(
        self,
        state: State,
        members: Members,
        own_id: str,
        resign: Callable[[], Awaitable[None]],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._state = state
        self._members = members
        self._own_id = own_id
        self._resign = resign
        self._clock = clock or SystemClock()
        self._logged = ""
        #: The members without a node, by id: since when, ns.
        self._strangers: dict[int, int] = {}

    async def run(self) -> None:
        """Runs until it is cancelled."""
        subscription = self._state.subscribe()
        try:
            complete = await self._reconcile()
            while True:
                moment = None if complete else self._clock.now() + _RETRY
                events = await changes_until(moment, subscription, self._clock)
                if not events or any(map(_concerns, events)):
                    complete = await self._reconcile()
        finally:
            subscription.close()

    async def _reconcile(self) -> bool:
        """Whether nothing is left to do."""
        try:
            members = await self._members.list()
            # The node of a member that has just joined, by another manager, is there first.
            await self._state.synchronize()
            for member in members:
                if member.name and self._left(member.name):
                    log.info("node=%s has left or was removed: it leaves the swarm's store", member.name)
                    await self._members.remove(member.id)
            strangers = await self._remove_strangers(members)
            results = [await self._demote(node, _member_of(node, members)) for node in self._demoted()]
        except WharfError as error:
            if error.message != self._logged:
                log.warning("the members of the swarm's store can't be changed: %s", error.message)
            self._logged = error.message
            return False
        self._logged = ""
        return all(results) and not strangers

    def _left(self, id: str) -> bool:
        """A manager that left the swarm is a worker, also if it could not remove its member before its end."""
        node = self._state.tables.nodes.find(id)
        return node is None or (node.manager is None and node.spec.role == "worker")

    async def _remove_strangers(self, members: Sequence[Member]) -> bool:
        """Whether there are members without a node still."""
        nodes, now = [node for node in self._state.tables.nodes if node.manager is not None], self._clock.now()
        found = [each.id for each in members if not each.name and not any(_is_at(each, node) for node in nodes)]
        self._strangers = {id: self._strangers.get(id, now) for id in found}
        for id, since in tuple(self._strangers.items()):
            if now - since >= _STORED:
                log.warning("a member of the swarm's store belongs to no node, and is removed")
                await self._members.remove(id)
                del self._strangers[id]
        return bool(self._strangers)

    def _demoted(self) -> list[Node]:
        return [node for node in self._state.tables.nodes if node.manager is not None and node.spec.role == "worker"]

    async def _demote(self, node: Node, member: int | None) -> bool:
        """Whether the node is no manager any more. ``member``: its id in etcd; None: it is none."""
        managers = [each for each in self._state.tables.nodes if each.manager is not None]
        if not quorum_without(node, managers):
            log.debug("node=%s becomes a worker when more of the other managers can be reached", node.id)
            return False
        if node.id == self._own_id:
            await self._resign()
            return False
        if member is not None:
            await self._members.remove(member)
        await self._state.transact(partial(self._removed, node.id))
        return True

    def _removed(self, id: str) -> Sequence[Put]:
        node = self._state.tables.nodes.find(id)
        if node is None or node.manager is None or node.spec.role != "worker":
            return ()
        return [Put(replace(node, manager=None, updated_ns=self._clock.now()))]


def _member_of(node: Node, members: Sequence[Member]) -> int | None:
    """The id of a manager's member. One that was added a moment ago has no name yet, but the manager's address: if it
    stayed, no other node could join."""
    for member in members:
        if member.name == node.id:
            return member.id
    return next((member.id for member in members if not member.name and _is_at(member, node)), None)


def _is_at(member: Member, node: Node) -> bool:
    """Whether a member has the address of a manager's node."""
    host = node.manager.addr.rpartition(":")[0].strip("[]") if node.manager is not None else ""
    return host in (urlsplit(url).hostname for url in member.peer_urls)


def _concerns(event: Event) -> bool:
    """Whether a role, a manager or the existence of a node changed."""
    old, new = event.old, event.new
    if not isinstance(event.item, Node):
        return False
    if not isinstance(old, Node) or not isinstance(new, Node):
        return True
    return (old.spec.role, old.manager) != (new.spec.role, new.manager)
