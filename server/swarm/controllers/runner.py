"""Runs the controllers: what changes is collected by service, and each such service is reconciled, from the tables.

One reconcile creates, stops, allocates and places the tasks of a service in one draft, so that the tasks of a new
service are assigned by one commit. Nothing is kept between two of them but timers, which the next leader computes anew.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from engine.common.errors import WharfError
from server.swarm.controllers.allocator import nodes
from server.swarm.controllers.clock import SECOND, Clock, SystemClock, changes_until
from server.swarm.controllers.draft import Draft, per_node
from server.swarm.controllers.plan import Memory, Plan
from server.swarm.model.objects import Cluster, Network, Node, Object, Service, Task
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Event, Operation, State, Subscription

log = logging.getLogger(__name__)

#: Among the ids of services, the nodes' addresses.
_NODES = "nodes"
_RETRY = SECOND
_MAX_RETRY = 60 * SECOND


class Controllers:
    """The controllers of a swarm. Only the leader runs them."""

    def __init__(self, state: State, *, clock: Clock | None = None) -> None:
        self._state = state
        self._clock = clock or SystemClock()
        #: Services to reconcile now, and when to reconcile others.
        self._due: set[str] = set()
        self._timers: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        #: Services with tasks that have no node or no address yet: they are tried again when something ends.
        self._waiting: set[str] = set()
        #: Whether nodes may need other addresses.
        self._nodes_due = True
        self._memory = Memory()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        subscription = self._state.subscribe()
        try:
            self._due, self._nodes_due = self._everything(), True
            await self._loop(subscription)
        finally:
            subscription.close()

    @property
    def busy(self) -> bool:
        """Whether something is to be reconciled now."""
        return bool(self._due) or self._nodes_due

    @property
    def next_timer(self) -> int | None:
        """When something is to be reconciled, if nothing changes before; ns since the epoch."""
        return min(self._timers.values(), default=None)

    async def _loop(self, subscription: Subscription) -> None:
        while True:
            await self._reconcile()
            self._note(await changes_until(self.next_timer, subscription, self._clock))
            now = self._clock.now()
            for id in [id for id, moment in self._timers.items() if moment <= now]:
                del self._timers[id]
                self._due.add(id)

    def _everything(self) -> set[str]:
        tables = self._state.tables
        return {service.id for service in tables.services} | {task.service_id for task in tables.tasks}

    def _on_node(self, node_id: str) -> set[str]:
        """The services that a change of a node concerns."""
        tables = self._state.tables
        placed = {task.service_id for task in tables.tasks.of_node(node_id)}
        return placed | self._waiting | {service.id for service in tables.services if per_node(service)}

    def _note(self, events: Iterable[Event]) -> None:
        """Notes which services the changes concern."""
        everything = False
        for event in events:
            item = event.item
            match item:
                case Service():
                    # Its former addresses and ports may be free.
                    self._due |= self._waiting
                    self._due.add(item.id)
                case Task():
                    if isinstance(event.old, Task) and isinstance(event.new, Task) and _same(event.old, event.new):
                        continue
                    self._due.add(item.service_id)
                    if event.new is None or item.state.ended:
                        self._due |= self._waiting
                case Node():
                    self._nodes_due |= event.old is None or event.new is None
                    if event.old is None or event.new is None or _concerns(event.old, event.new):
                        self._due |= self._on_node(item.id)
                case Network() | Cluster():
                    self._nodes_due = everything = True
        if everything:
            self._due |= self._everything()

    async def _allocate_nodes(self) -> None:
        """Assigns addresses to the nodes. Not at the same time as to tasks: nothing else keeps them different."""
        missing = False

        def build() -> Sequence[Operation]:
            nonlocal missing
            operations, missing = nodes.allocate(Draft(self._state.tables, self._clock.now()), self._memory.cursors)
            return operations

        try:
            while await self._state.transact(build):
                pass
        except WharfError as error:
            log.warning("the nodes' addresses can't be stored: %s", error.message)
            missing = True
        self._nodes_due = False
        if missing:
            self._retry([_NODES])
        else:
            self._failures.pop(_NODES, None)

    async def _reconcile(self) -> None:
        """Reconciles all services that are due, in as many commits as it needs."""
        if self._nodes_due or _NODES in self._due:
            self._due.discard(_NODES)
            await self._allocate_nodes()
        while self._due:
            due = sorted(self._due)
            try:
                await self._commit(due)
            except WharfError as error:
                log.warning("the swarm's changes can't be stored: %s", error.message)
                self._due.clear()
                self._retry(due)
            except Exception:
                log.exception("the swarm's changes can't be stored; each service is tried alone")
                await self._reconcile_each(due)

    async def _reconcile_each(self, due: Sequence[str]) -> None:
        """So that one service whose changes can't be stored does not keep others from theirs."""
        for id in due:
            try:
                while id in self._due:
                    await self._commit([id])
            except Exception as error:
                log.warning("the changes of service %s can't be stored: %s", id, error)
                self._due.discard(id)
                self._retry([id])

    async def _commit(self, due: Sequence[str]) -> None:
        """Commits what the services need, as much of it as one commit can have."""
        plan = Plan(Draft(self._state.tables, self._clock.now()), self._memory)

        def build() -> Sequence[Operation]:
            nonlocal plan
            plan = Plan(Draft(self._state.tables, self._clock.now()), self._memory)
            plan.make(due)
            return plan.operations()

        await self._state.transact(build)
        self._finish(plan)

    def _finish(self, plan: Plan) -> None:
        finished = set(plan.ids) - plan.incomplete
        self._due -= finished
        for id in finished:
            self._timers.pop(id, None)
            if id not in plan.failed:
                self._failures.pop(id, None)
        self._retry(plan.failed)
        self._timers.update({id: moment for id, moment in plan.draft.wakeups.items() if id in finished})
        self._waiting -= finished
        self._waiting |= plan.waiting & finished

    def _retry(self, ids: Iterable[str]) -> None:
        """Tries services again, after a delay that doubles each time."""
        for id in ids:
            failures = self._failures[id] = self._failures.get(id, 0) + 1
            self._timers[id] = self._clock.now() + min(_RETRY << min(failures - 1, 16), _MAX_RETRY)


def _same(old: Task, new: Task) -> bool:
    """Whether only a report came that decides nothing: the agent prepares the task."""
    between = all(TaskState.ASSIGNED <= task.state < TaskState.RUNNING for task in (old, new))
    return between and replace(new, status=old.status, version=old.version, updated_ns=old.updated_ns) == old


def _concerns(old: Object, new: Object) -> bool:
    """Whether a change of a node matters to its tasks."""
    assert isinstance(old, Node)
    assert isinstance(new, Node)
    return (old.spec, old.description, old.status.state) != (new.spec, new.description, new.status.state)
