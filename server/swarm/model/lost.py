"""The end of tasks whose node can't report it any more."""

from dataclasses import replace

from server.swarm.model.objects import Task, TaskStatus
from server.swarm.model.taskstate import TaskState


def node_removed(task: Task, now_ns: int) -> Task:
    """The task when its node was removed from the swarm: it counts as gone."""
    status = TaskStatus(
        state=int(TaskState.ORPHANED),
        timestamp_ns=now_ns,
        message="Task belonged to a node that has been deleted",
    )
    return replace(task, status=status, updated_ns=now_ns)
