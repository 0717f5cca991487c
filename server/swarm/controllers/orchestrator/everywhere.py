"""Global services: one task on each node that the constraints allow."""

from server.swarm.controllers.constraints import node_matches
from server.swarm.controllers.draft import Draft
from server.swarm.controllers.orchestrator.restart import restart_ended, settled
from server.swarm.controllers.orchestrator.tasks import alive, by_slot, create, unusable
from server.swarm.controllers.orchestrator.update import update_slots
from server.swarm.model.objects import Node, Service, Task
from server.swarm.model.taskstate import TaskState


def eligible(draft: Draft, service: Service) -> dict[str, Node]:
    """The nodes that the service runs on, by id, also paused ones."""
    placement = service.spec.task_template.placement
    constraints = placement.constraints if placement is not None else None
    return {node.id: node for node in draft.tables.nodes if not unusable(node) and node_matches(constraints, node)}


def reconcile(draft: Draft, service: Service) -> None:
    nodes = eligible(draft, service)
    slots = by_slot(service, draft.tasks(service.id))
    updated: list[list[Task]] = []
    for node_id, slot in slots.items():
        node = nodes.get(node_id)
        if node is None:
            stop(draft, slot)
        elif node.spec.availability == "pause":
            stop(draft, [task for task in slot if task.state.ended])
        else:
            restart_ended(draft, service, slot)
            updated.append([task for task in draft.tasks(service.id) if task.node_id == node_id])
    absent = [id for id, node in nodes.items() if node.spec.availability != "pause" and id not in slots]
    kept = []
    for slot in updated:
        if any(map(alive, slot)) or settled(service, slot):
            kept.append(slot)
        else:
            absent.append(slot[0].node_id)
    update_slots(draft, service, kept)
    for node_id in absent:
        if draft.full:
            break
        create(draft, service, node_id=node_id)


def stop(draft: Draft, slot: list[Task]) -> None:
    for task in slot:
        if alive(task):
            draft.desire(task, TaskState.SHUTDOWN)
