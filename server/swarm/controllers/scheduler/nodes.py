"""The nodes with what their tasks use."""

from collections.abc import Iterable, Mapping

from api_models.swarm.network import PortConfig
from api_models.swarm.task import GenericResource, Resources
from server.swarm.controllers.clock import SECOND
from server.swarm.controllers.draft import Draft
from server.swarm.controllers.orchestrator.tasks import alive
from server.swarm.controllers.resources import Generic
from server.swarm.model.objects import Node, Task
from server.swarm.model.taskstate import TaskState

#: Failures of a service's tasks in so long a time make a node the last choice for them.
_FAILURE_WINDOW = 5 * 60 * SECOND
MAX_FAILURES = 5
_FAILED = frozenset((TaskState.FAILED, TaskState.REJECTED))
_NOTHING = Resources()


def reservations(task: Task) -> Resources:
    resources = task.spec.resources
    return _NOTHING if resources is None or resources.reservations is None else resources.reservations


def host_ports(task: Task) -> Iterable[tuple[str, int]]:
    """The ports of its node that a task publishes, by protocol and number."""
    ports: tuple[PortConfig, ...] | None = task.endpoint.ports or task.endpoint.spec.ports
    return ((port.protocol, port.published_port) for port in ports or () if port.on_host and port.published_port)


class NodeUsage:
    """A node, what is free there, and how many tasks it has."""

    def __init__(self, node: Node, tasks: Iterable[Task], now: int) -> None:
        self.node = node
        has = node.description.resources
        self.nano_cpus = has.nano_cpus
        self.memory_bytes = has.memory_bytes
        self.generic = Generic(has.generic_resources or ())
        self.tasks = 0
        self.by_service: dict[str, int] = {}
        self.ports: set[tuple[str, int]] = set()
        self._failures: dict[tuple[str, int], int] = {}
        for task in tasks:
            if not task.state.ended:
                # A global task that is not confirmed yet has reserved nothing.
                if task.state >= TaskState.ASSIGNED:
                    self.generic.consume(task.generic_resources or ())
                    self._add(task)
            elif task.state in _FAILED and task.status.timestamp_ns > now - _FAILURE_WINDOW:
                key = task.service_id, task.spec_version
                self._failures[key] = self._failures.get(key, 0) + 1

    def _add(self, task: Task) -> None:
        reserved = reservations(task)
        self.nano_cpus -= reserved.nano_cpus
        self.memory_bytes -= reserved.memory_bytes
        self.ports.update(host_ports(task))
        if alive(task):
            self.tasks += 1
            self.by_service[task.service_id] = self.by_service.get(task.service_id, 0) + 1

    def failures(self, task: Task) -> int:
        """The recent failures of the task's service, if there were many."""
        failures = self._failures.get((task.service_id, task.spec_version), 0)
        return failures if failures >= MAX_FAILURES else 0

    @property
    def has_failures(self) -> bool:
        """Whether there are recent failures, which count for some time only."""
        return bool(self._failures)

    def of_service(self, service_id: str) -> int:
        return self.by_service.get(service_id, 0)

    def assign(self, task: Task) -> tuple[GenericResource, ...]:
        """Counts the task as one of the node's; returns the generic resources that it gets."""
        claimed = self.generic.claim(reservations(task).generic_resources or ())
        self._add(task)
        return claimed


class Usages:
    """The nodes with what they use, kept from one draft to the next one for nodes without changes: in a big swarm each
    commit concerns a few of them."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Node, int, NodeUsage]] = {}

    def of(self, draft: Draft) -> Mapping[str, NodeUsage]:
        """All nodes, by id. Call ``forget`` before a change of one of them."""
        tables = draft.tables
        changed: dict[str, dict[str, Task | None]] = {}
        for old, new in draft.changed_tasks():
            for task in (old, new):
                if task is not None and task.node_id:
                    changed.setdefault(task.node_id, {})[task.id] = new
        kept, found = self._kept, {}
        self._kept = {}
        for node in tables.nodes:
            known = kept.get(node.id)
            number = tables.tasks.changes_of_node(node.id)
            if known is None or known[0] is not node or known[1] != number or node.id in changed:
                tasks = {task.id: task for task in tables.tasks.of_node(node.id)} | changed.get(node.id, {})
                mine = [task for task in tasks.values() if task is not None and task.node_id == node.id]
                known = node, number, NodeUsage(node, mine, draft.now)
            found[node.id] = known[2]
            if node.id not in changed and not known[2].has_failures:
                self._kept[node.id] = known
        return found

    def forget(self, node_id: str) -> None:
        self._kept.pop(node_id, None)
