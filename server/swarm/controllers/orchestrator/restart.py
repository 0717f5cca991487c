"""Restarts: a task that has ended is replaced by a new one in its slot, as the restart policy says."""

from collections.abc import Sequence

from server.swarm.controllers.clock import SECOND
from server.swarm.controllers.draft import Draft, per_node
from server.swarm.controllers.orchestrator.tasks import alive, create, unusable
from server.swarm.model.objects import Service, Task
from server.swarm.model.taskstate import TaskState

DELAY = 5 * SECOND
#: A prepared task waits so long for its predecessor to stop.
STOP_TIMEOUT = 60 * SECOND


def restart_ended(draft: Draft, service: Service, slot: Sequence[Task]) -> None:
    """Replaces the tasks of one slot that have ended, or whose node is down, drained or removed."""
    for task in slot:
        if alive(task) and _over(draft, service, task):
            _restart(draft, service, task, slot)


def _over(draft: Draft, service: Service, task: Task) -> bool:
    if task.state is TaskState.COMPLETE and service.spec.mode.is_job:
        return False
    return task.state.ended or (bool(task.node_id) and unusable(draft.node(task.node_id)))


def _restart(draft: Draft, service: Service, task: Task, slot: Sequence[Task]) -> None:
    if task.not_before_ns > draft.now and task.state.ended:
        # Its own delay is not over: without this, a task that can't be prepared would be restarted without delay.
        draft.wake(service.id, task.not_before_ns)
        return
    draft.desire(task, TaskState.SHUTDOWN)
    if not should_restart(service, task, slot):
        return
    node = draft.node(task.node_id)
    drained = node is not None and node.spec.availability == "drain"
    # A task that waits on a node that is lost, too, is replaced by one that waits no longer than it.
    waits = task.not_before_ns > draft.now
    not_before = task.not_before_ns if waits else draft.now + (0 if drained else _delay(task))
    create(
        draft,
        service,
        slot=task.slot,
        node_id=task.node_id if per_node(service) else "",
        not_before=not_before,
    )


def _delay(task: Task) -> int:
    policy = task.spec.restart_policy
    return DELAY if policy is None or policy.delay is None else policy.delay


def should_restart(service: Service, task: Task, slot: Sequence[Task]) -> bool:
    """``slot``: all tasks of the task's slot that are kept, the oldest first. The history has enough of them to count
    the attempts (``history``)."""
    policy = task.spec.restart_policy
    condition = "any" if policy is None or not policy.condition else policy.condition
    if condition == "none":
        return False
    if task.state is TaskState.COMPLETE and (condition == "on-failure" or service.spec.mode.is_job):
        return False
    if policy is None or not policy.max_attempts:
        return True
    same = [each for each in slot if each.spec_version == task.spec_version]
    if service.spec.mode.is_job:
        same = [each for each in same if each.job_iteration == task.job_iteration]
    restarts = same[1:]
    if policy.window:
        begin = task.status.timestamp_ns - policy.window
        restarts = [each for each in restarts if begin < each.created_ns < task.status.timestamp_ns]
    return len(restarts) < policy.max_attempts


def settled(service: Service, slot: Sequence[Task]) -> bool:
    """Whether no task of the slot is wanted, and the restart policy wants no other one. ``slot``: the oldest first.

    A rollback starts slots again that ended before it.
    """
    status = service.update_status
    if status is not None and status.state == "rollback_started" and slot[-1].created_ns < status.started_ns:
        return False
    return not any(map(alive, slot)) and not should_restart(service, slot[-1], slot)


def start_prepared(draft: Draft, service_id: str, state: TaskState, slot: Sequence[Task]) -> None:
    """Lets the prepared tasks of one slot start: ``state`` is their desired state from now on. They wait for the end of
    the restart delay, and until the tasks that they replace have stopped."""
    for task in slot:
        if task.desired_state == TaskState.READY:
            moment = task.not_before_ns
            if any(_stopping(draft, each) for each in slot):
                moment = max(moment, task.created_ns + STOP_TIMEOUT)
            if moment <= draft.now:
                draft.desire(task, state)
            else:
                draft.wake(service_id, moment)


def _stopping(draft: Draft, task: Task) -> bool:
    if alive(task) or task.state.ended or task.state < TaskState.ASSIGNED:
        return False
    node = draft.node(task.node_id)
    return node is not None and node.status.state != "down"
