"""Replicated services: a number of slots, each with one task."""

from collections.abc import Sequence

from server.swarm.controllers.draft import Draft
from server.swarm.controllers.orchestrator.removal import remove_slot
from server.swarm.controllers.orchestrator.restart import restart_ended, settled
from server.swarm.controllers.orchestrator.tasks import alive, by_slot, create
from server.swarm.controllers.orchestrator.update import update_slots
from server.swarm.model.objects import Service, Task
from server.swarm.model.taskstate import TaskState


def reconcile(draft: Draft, service: Service) -> None:
    mode = service.spec.mode.replicated
    wanted = 1 if mode is None or mode.replicas is None else mode.replicas
    for slot in by_slot(service, draft.tasks(service.id)).values():
        restart_ended(draft, service, slot)
    slots = by_slot(service, draft.tasks(service.id))
    used = {number: slot for number, slot in slots.items() if any(map(alive, slot)) or settled(service, slot)}
    kept = list(used.values())
    if len(used) > wanted:
        kept, surplus = _choose(kept, wanted)
        for slot in surplus:
            remove_slot(draft, slot)
    update_slots(draft, service, kept)
    missing = wanted - len(used)
    number = 0
    while missing > 0 and not draft.full:
        number += 1
        if str(number) not in used:
            create(draft, service, slot=number)
            missing -= 1
    for name, slot in slots.items():
        if name not in used and int(name) > number:
            remove_slot(draft, slot)


def _choose(slots: Sequence[list[Task]], wanted: int) -> tuple[list[list[Task]], list[list[Task]]]:
    """Which slots stay and which are removed: those without a running task first, then those on the nodes with the most
    tasks of the service, then those with the highest number."""
    ordered = sorted(slots, key=lambda slot: (not _runs(slot), slot[0].slot))
    counts: dict[str, int] = {}
    ranked: list[tuple[int, list[Task]]] = []
    for slot in ordered:
        current = [task for task in slot if alive(task)]
        if len(current) == 1 and current[0].node_id:
            node = current[0].node_id
            counts[node] = counts.get(node, 0) + 1
            ranked.append((counts[node], slot))
        else:
            ranked.append((2**63, slot))
    ranked.sort(key=lambda each: each[0])
    chosen = [slot for _, slot in ranked]
    return chosen[:wanted], chosen[wanted:]


def _runs(slot: Sequence[Task]) -> bool:
    return any(alive(task) and task.state is TaskState.RUNNING for task in slot)
