"""Tasks: inspect and list."""

from collections.abc import Callable
from typing import Any

from api_models.filters import Filters
from engine.common.errors import WharfError, invalid
from server.swarm.model.objects import Node, Service, Task
from server.swarm.model.taskstate import TaskState
from server.swarm.operations import match, showservice
from server.swarm.state.state import State
from server.swarm.state.tables import ambiguous

_FILTERS = ("name", "id", "label", "service", "node", "desired-state", "_up-to-date", "runtime")

#: Whether a task is what its service wants now.
UpToDate = Callable[[Service, Task], bool]


class Tasks:
    """Call it while this node is a manager."""

    def __init__(self, state: State, up_to_date: UpToDate, node: Callable[[str], Node]) -> None:
        """``node`` finds a node by an id, a name, ``self`` or a prefix of an id, or raises WharfError."""
        self._state = state
        self._up_to_date = up_to_date
        self._node = node

    def get(self, key: str) -> Task:
        """``key``: an id, the name of the task's container, or a prefix of an id.

        :raises WharfError: NOT_FOUND; INVALID_ARGUMENT: ambiguous.
        """
        tasks = self._state.tables.tasks
        found = tasks.find(key)
        if found is None:
            named = [task for task in tasks if task.name == key]
            if len(named) > 1:
                raise ambiguous("task", key, len(named))
            found = named[0] if named else tasks.get(key)
        return found

    def inspect(self, key: str) -> dict[str, Any]:
        return showservice.show_task(self.get(key), self._state.tables)

    def list(self, filters: Filters) -> list[dict[str, Any]]:
        """:raises WharfError: INVALID_ARGUMENT: a filter; NOT_FOUND: the service or the node of a filter."""
        filters.validate(_FILTERS)
        tables = self._state.tables
        services = {tables.services.get(key).id for key in filters.get("service")}
        nodes = {self._node(key).id for key in filters.get("node")}
        states = {_state(text) for text in filters.get("desired-state") if text}
        runtimes = filters.get("runtime") or ("container", "")
        return [
            showservice.show_task(task, tables)
            for task in sorted(tables.tasks, key=lambda each: each.id)
            if (not services or task.service_id in services)
            and (not nodes or task.node_id in nodes)
            and (not states or task.desired in states)
            and match.prefixed(task.name, filters.get("name"))
            and match.prefixed(task.id, filters.get("id"))
            and match.labelled(task.service_labels, filters.get("label"))
            and task.spec.runtime in runtimes
            and (not filters.get("_up-to-date") or self._is_up_to_date(task))
        ]

    def _is_up_to_date(self, task: Task) -> bool:
        service = self._state.tables.services.find(task.service_id)
        return service is not None and self._up_to_date(service, task)


def _state(text: str) -> TaskState:
    try:
        return TaskState[text.upper()]
    except KeyError:
        raise _bad_state(text) from None


def _bad_state(text: str) -> WharfError:
    return invalid(f"Invalid desired-state filter: '{text}'")
