"""Chooses nodes for tasks: spread over the preferences' labels, then the nodes with the fewest tasks of the service,
then those with the fewest tasks, then those that have the image."""

import heapq
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from server.swarm.controllers.constraints import attribute
from server.swarm.controllers.draft import Draft
from server.swarm.controllers.orchestrator.tasks import alive
from server.swarm.controllers.scheduler.filters import Filters
from server.swarm.controllers.scheduler.nodes import NodeUsage, Usages
from server.swarm.model import images
from server.swarm.model.objects import Node, Task
from server.swarm.model.taskstate import TaskState


class Scheduler:
    """The placements of one draft."""

    def __init__(self, draft: Draft, usages: Usages) -> None:
        self._draft = draft
        self._usages = usages
        self._usage = usages.of(draft)

    def schedule(self, tasks: Iterable[Task]) -> None:
        """Assigns the tasks of one service that are PENDING to nodes. A task for which there is none shows why."""
        groups: dict[int, list[Task]] = {}
        for task in tasks:
            if task.state is not TaskState.PENDING or not alive(task):
                continue
            if task.node_id:
                self._confirm(task)
            else:
                groups.setdefault(task.spec_version, []).append(task)
        for group in groups.values():
            self._place(sorted(group, key=lambda task: task.slot))

    def _confirm(self, task: Task) -> None:
        """A global task has its node already, which has to be able to run it."""
        node = self._usage.get(task.node_id)
        if node is None:
            return
        filters = Filters(task)
        if filters.passes(node):
            self._assign(task, node, "scheduler confirmed task can run on preassigned node")
        else:
            self._refuse(task, filters.explain([node]))

    def _place(self, tasks: Sequence[Task]) -> None:
        filters = Filters(tasks[0])
        suitable = [node for node in self._usage.values() if filters.passes(node)]
        placement = tasks[0].spec.placement
        preferences = placement.preferences or () if placement is not None else ()
        labels = [each.spread.spread_descriptor for each in preferences if each.spread is not None]
        branch = _Branch(tasks[0], suitable, labels, filters, self._having(tasks[0]))
        for position, task in enumerate(tasks):
            node = branch.choose()
            if node is None:
                explanation = filters.explain(self._usage.values())
                err = f"no suitable node ({explanation})" if explanation else "no suitable node"
                for other in tasks[position:]:
                    self._refuse(other, err)
                return
            self._assign(task, node, "scheduler assigned task to node")
            branch.assigned(node)

    def _having(self, task: Task) -> Collection[str]:
        """The nodes that seem to have the task's image."""
        container = task.spec.container_spec
        key = images.wanted(container.image) if container is not None else ""
        return {each.id for each in self._draft.tables.images if images.has(each, key)}

    def _assign(self, task: Task, node: NodeUsage, message: str) -> None:
        assigned = replace(task, node_id=node.node.id, status=replace(task.status, state=int(TaskState.ASSIGNED)))
        self._usages.forget(node.node.id)
        claimed = node.assign(assigned)
        self._draft.observe(replace(assigned, generic_resources=claimed or None), TaskState.ASSIGNED, message)

    def _refuse(self, task: Task, err: str) -> None:
        if task.status.err != err:
            self._draft.observe(task, task.state, task.status.message, err)


class _Branch:
    """The nodes that have the same labels so far, split by the next label. Without one, a heap of the nodes, the best
    first. ``having``: the ids of those that have the image."""

    def __init__(
        self,
        task: Task,
        nodes: Sequence[NodeUsage],
        labels: Sequence[str],
        filters: Filters,
        having: Collection[str],
    ) -> None:
        self._task = task
        self._filters = filters
        self._having = having
        self._tasks = sum(node.of_service(task.service_id) for node in nodes)
        self._label = labels[0] if labels else ""
        self._branches: dict[str, _Branch] = {}
        self._heap: list[tuple[tuple[int, int, int, bool, str], NodeUsage]] = []
        if labels:
            groups: dict[str, list[NodeUsage]] = {}
            for node in nodes:
                groups.setdefault(_value(node.node, self._label), []).append(node)
            self._branches = {
                value: _Branch(task, group, labels[1:], filters, having) for value, group in sorted(groups.items())
            }
        else:
            self._heap = [(self._rank(node), node) for node in nodes]
            heapq.heapify(self._heap)

    def _rank(self, node: NodeUsage) -> tuple[int, int, int, bool, str]:
        # The id makes the order total.
        id, of_service = node.node.id, node.of_service(self._task.service_id)
        return node.failures(self._task), of_service, node.tasks, id not in self._having, id

    def choose(self) -> NodeUsage | None:
        """The best node; ``assigned`` has to be called for it."""
        if self._label:
            for branch in sorted(self._branches.values(), key=lambda each: each._tasks):
                if (node := branch.choose()) is not None:
                    return node
            return None
        while self._heap:
            node = heapq.heappop(self._heap)[1]
            # It may be full by now.
            if self._filters.passes(node):
                return node
        return None

    def assigned(self, node: NodeUsage) -> None:
        self._tasks += 1
        if self._label:
            self._branches[_value(node.node, self._label)].assigned(node)
        else:
            heapq.heappush(self._heap, (self._rank(node), node))


def _value(node: Node, label: str) -> str:
    return attribute(node, label) or ""
