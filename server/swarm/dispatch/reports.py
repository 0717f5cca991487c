"""The reports of agents: those of all nodes that come while a commit is under way are stored together by the next
one."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from server.swarm.model.objects import TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Delete, Operation, Put, State
from server.swarm.store.interface import MAX_OPERATIONS


class Reports:
    """A manager has one, which its dispatchers share. ``now`` returns ns since the epoch."""

    def __init__(self, state: State, now: Callable[[], int] = time.time_ns) -> None:
        self._state = state
        self._now = now
        # By (node, task): a node can't replace the report of another one.
        self._waiting: dict[tuple[str, str], TaskStatus] = {}
        self._storing = asyncio.Lock()

    async def store(self, node_id: str, statuses: Mapping[str, TaskStatus]) -> None:
        """See ``Dispatcher.report``. On return they are stored."""
        keys = {(node_id, id) for id in statuses}
        self._waiting.update({(node_id, id): status for id, status in statuses.items()})
        async with self._storing:
            while not keys.isdisjoint(self._waiting):
                reports = dict(list(self._waiting.items())[:MAX_OPERATIONS])
                for key in reports:
                    del self._waiting[key]
                try:
                    await self._state.transact(partial(self._operations, reports))
                except BaseException:
                    # A later report of the same task is kept.
                    self._waiting = reports | self._waiting
                    raise

    def _operations(self, reports: Mapping[tuple[str, str], TaskStatus]) -> Sequence[Operation]:
        operations: list[Operation] = []
        now = self._now()
        for (node_id, id), status in reports.items():
            task = self._state.tables.tasks.find(id)
            if task is None or task.node_id != node_id or status.state < task.status.state:
                continue
            if task.desired_state == TaskState.REMOVE and TaskState(status.state).ended:
                operations.append(Delete(task))
                continue
            status = replace(status, applied_by=node_id)
            if status == task.status:
                continue
            running = task.running_ns
            if status.state == TaskState.RUNNING and not running:
                running = now
            operations.append(Put(replace(task, status=status, running_ns=running, updated_ns=now)))
        return operations
