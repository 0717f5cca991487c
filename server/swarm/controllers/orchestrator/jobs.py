"""Jobs: tasks that run until they complete. Each update of a job's service begins a new iteration, which runs all of it
again."""

from server.swarm.controllers.draft import Draft
from server.swarm.controllers.orchestrator.everywhere import eligible, stop
from server.swarm.controllers.orchestrator.removal import remove_slot
from server.swarm.controllers.orchestrator.restart import restart_ended, settled
from server.swarm.controllers.orchestrator.tasks import alive, by_slot, create
from server.swarm.model.objects import Service, Task
from server.swarm.model.taskstate import TaskState


def reconcile_replicated(draft: Draft, service: Service) -> None:
    """At most ``max_concurrent`` tasks at a time until ``total_completions`` slots have one that is complete."""
    mode = service.spec.mode.replicated_job
    assert mode is not None
    concurrent = 1 if mode.max_concurrent is None else mode.max_concurrent
    total = concurrent if mode.total_completions is None else mode.total_completions
    remove_slot(draft, [task for task in draft.tasks(service.id) if _outdated(service, task) and not task.state.ended])
    for slot in by_slot(service, _current(draft, service)).values():
        restart_ended(draft, service, slot)
    slots = by_slot(service, _current(draft, service))
    # A slot whose task has failed and is not restarted is over, too: the job can't be complete any more.
    taken = {number for number, slot in slots.items() if any(map(alive, slot)) or settled(service, slot)}
    running = sum(any(alive(task) and not task.state.ended for task in slot) for slot in slots.values())
    missing = min(concurrent - running, total - len(taken))
    number = 0
    while missing > 0 and not draft.full:
        if str(number) not in taken:
            create(draft, service, slot=number)
            missing -= 1
        number += 1


def reconcile_global(draft: Draft, service: Service) -> None:
    """One task on each node that the constraints allow."""
    nodes = eligible(draft, service)
    remove_slot(draft, [task for task in draft.tasks(service.id) if _outdated(service, task)])
    slots = by_slot(service, _current(draft, service))
    for node_id, slot in slots.items():
        if node_id in nodes:
            restart_ended(draft, service, slot)
        else:
            stop(draft, [task for task in slot if task.state is not TaskState.COMPLETE])
    slots = by_slot(service, _current(draft, service))
    for node_id, node in nodes.items():
        if draft.full:
            break
        if node.spec.availability != "active" or node.status.state != "ready":
            continue
        if not (kept := slots.get(node_id)) or not (any(map(alive, kept)) or settled(service, kept)):
            create(draft, service, node_id=node_id)


def _current(draft: Draft, service: Service) -> list[Task]:
    return [task for task in draft.tasks(service.id) if not _outdated(service, task)]


def _outdated(service: Service, task: Task) -> bool:
    return task.job_iteration != service.job_iteration
