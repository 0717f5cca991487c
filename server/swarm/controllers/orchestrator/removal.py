"""The end of tasks: those of removed services and slots, old ones beyond the history, those of lost nodes."""

from collections.abc import Sequence

from api_models.swarm.task import Resources
from server.swarm.controllers.clock import SECOND
from server.swarm.controllers.constraints import node_matches
from server.swarm.controllers.draft import Draft
from server.swarm.controllers.orchestrator.tasks import alive, by_slot
from server.swarm.controllers.resources import Generic
from server.swarm.model.lost import node_removed
from server.swarm.model.objects import Node, Service, Task
from server.swarm.model.taskstate import TaskState

HISTORY = 5
#: A node that is down for so long counts as lost.
LOST = 24 * 3600 * SECOND


def remove_slot(draft: Draft, slot: Sequence[Task]) -> None:
    for task in slot:
        draft.desire(task, TaskState.REMOVE)


def delete_removed(draft: Draft, service_id: str) -> None:
    """Deletes the tasks that are to be removed and no longer run, or were never given to a node."""
    for task in draft.tasks(service_id):
        if task.desired_state == TaskState.REMOVE and (task.state.ended or task.state < TaskState.ASSIGNED):
            draft.delete(task)


def end_unassigned(draft: Draft, service_id: str) -> None:
    """A task that is stopped before a node has it ends at once: no agent reports it."""
    for task in draft.tasks(service_id):
        if task.desired_state == TaskState.SHUTDOWN and task.state < TaskState.ASSIGNED:
            draft.observe(task, TaskState.SHUTDOWN, "shutdown")


def trim_history(draft: Draft, service: Service) -> None:
    """Deletes the oldest tasks of each slot that have ended, beyond the limit of the swarm."""
    limit = _limit(draft, service)
    if limit < 0:
        return
    for slot in by_slot(service, draft.tasks(service.id)).values():
        excess = len(slot) - limit
        if excess > 0:
            kept = _needed(service, slot)
            ended = [task for task in slot if task.state.ended and not alive(task) and task.id not in kept]
            for task in ended[:excess]:
                draft.delete(task)


def _needed(service: Service, slot: Sequence[Task]) -> set[str]:
    """The tasks by which the slot's state is known: the newest, and those around the beginning of an update, see
    ``update``."""
    kept = {slot[-1].id}
    status = service.update_status
    if status is not None and status.state in ("updating", "rollback_started"):
        kept |= {task.id for task in [each for each in slot if each.created_ns < status.started_ns][-1:]}
        kept |= {task.id for task in [each for each in slot if each.created_ns >= status.started_ns][:1]}
    return kept


def _limit(draft: Draft, service: Service) -> int:
    policy = service.spec.task_template.restart_policy
    if policy is not None and policy.max_attempts:
        # So many are needed to count the attempts.
        return policy.max_attempts + 1
    cluster = draft.cluster
    limit = cluster.spec.orchestration.task_history_retention_limit if cluster is not None else None
    return HISTORY if limit is None else limit


def orphan_lost(draft: Draft, service_id: str) -> None:
    """Tasks of a node that was removed, or is down for long, count as gone."""
    for task in draft.tasks(service_id):
        if not task.node_id or task.state.ended or task.state < TaskState.ASSIGNED:
            continue
        node = draft.node(task.node_id)
        if node is None:
            draft.put(node_removed(task, draft.now))
        elif node.status.state == "down":
            if node.updated_ns + LOST <= draft.now:
                draft.observe(task, TaskState.ORPHANED, task.status.message)
            else:
                draft.wake(service_id, node.updated_ns + LOST)


def reject_misplaced(draft: Draft, service: Service) -> None:
    """Rejects tasks whose node no longer meets the constraints, or no longer has what they reserve, so that they are
    restarted elsewhere."""
    placement = service.spec.task_template.placement
    constraints = placement.constraints if placement is not None else None
    for task in draft.tasks(service.id):
        if not alive(task) or task.state.ended or task.state < TaskState.ASSIGNED:
            continue
        node = draft.node(task.node_id)
        if node is not None and not (node_matches(constraints, node) and _fits(draft, task, node)):
            draft.observe(
                task,
                TaskState.REJECTED,
                "task rejected by constraint enforcer",
                "assigned node no longer meets constraints",
            )


def _fits(draft: Draft, task: Task, node: Node) -> bool:
    """Whether the node has what the task reserves beside the older tasks there. It did when the task was placed."""
    reserved = _reserved(task)
    if reserved is None:
        return True
    has = node.description.resources
    cpus, memory = has.nano_cpus - reserved.nano_cpus, has.memory_bytes - reserved.memory_bytes
    for other in draft.tables.tasks.of_node(node.id):
        theirs = _reserved(other)
        if theirs is None or not alive(other) or other.state.ended:
            continue
        if (other.created_ns, other.slot, other.id) < (task.created_ns, task.slot, task.id):
            cpus -= theirs.nano_cpus
            memory -= theirs.memory_bytes
    enough = (cpus >= 0 or not reserved.nano_cpus) and (memory >= 0 or not reserved.memory_bytes)
    return enough and Generic(has.generic_resources or ()).has(task.generic_resources or ())


def _reserved(task: Task) -> Resources | None:
    return task.spec.resources.reservations if task.spec.resources is not None else None
