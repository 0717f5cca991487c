"""Samples of the containers' counters."""

from collections.abc import Sequence

from google.protobuf.message import Message

from engine.api import filters
from engine.common.system.cgroups import host_cgroups
from engine.runtime.cgroup_metrics import measure
from engine.shim.container.process import RUNNING
from engine.supervisor.tasks.model import Task


def sample(tasks: Sequence[Task], expressions: Sequence[str]) -> list[tuple[str, Message]]:
    """(id, ``io.containerd.cgroups.v1.Metrics`` or v2's) of the running tasks that match the filters (``id==…``).
    Blocks. INVALID_ARGUMENT for a malformed filter."""
    match = filters.compile_all(expressions)
    unified = host_cgroups().v2
    found: list[tuple[str, Message]] = []
    for task in tasks:
        if task.init.status != RUNNING or not match(_fields(task)):
            continue
        if task.cgroups and (not unified or "" in task.cgroups):
            found.append((task.id, measure(task.cgroups, unified=unified)))
    return found


def _fields(task: Task) -> filters.Fields:
    def field(path: Sequence[str]) -> str | None:
        match path:
            case ["id"]:
                return task.id
            case ["namespace"]:
                return task.namespace
        return None

    return field
