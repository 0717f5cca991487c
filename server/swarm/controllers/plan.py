"""One reconcile of some services: the stages in their order, on one draft."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from server.swarm.controllers.allocator.endpoints import Allocator
from server.swarm.controllers.draft import Draft
from server.swarm.controllers.orchestrator import everywhere, jobs, removal, replicated
from server.swarm.controllers.orchestrator.restart import start_prepared
from server.swarm.controllers.orchestrator.tasks import alive, by_slot, target
from server.swarm.controllers.scheduler.nodes import Usages
from server.swarm.controllers.scheduler.placement import Scheduler
from server.swarm.model.objects import Service
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Operation

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Memory:
    """What makes the next plan cheaper, or better; nothing depends on it. ``cursors``: see ``allocator.addresses``."""

    cursors: dict[str, int] = field(default_factory=dict)
    usages: Usages = field(default_factory=Usages)


class Plan:
    """``ids``: the services that the draft has room for. ``failed``: those that could not be reconciled, none of whose
    changes are in the draft. ``incomplete``: those that need more than the draft has room for. ``waiting``: those with
    tasks that have no node yet. ``memory``: see there."""

    def __init__(self, draft: Draft, memory: Memory) -> None:
        self.draft = draft
        self.ids: list[str] = []
        self.failed: set[str] = set()
        self.incomplete: set[str] = set()
        self.waiting: set[str] = set()
        self._memory = memory
        self._allocator: Allocator | None = None
        self._scheduler: Scheduler | None = None

    def make(self, ids: Sequence[str]) -> None:
        """Puts into the draft what the services need. Each stage is done for all services before the next: what some
        of them release, others can have."""
        for id in ids:
            if self.draft.full:
                break
            self.ids.append(id)
            self._run(self._orchestrate, id)
            if self.draft.full:
                self.incomplete.add(id)
        for stage in (self._allocate, self._schedule, self._end):
            for id in self.ids:
                if id not in self.failed:
                    self._run(stage, id)

    def _run(self, stage: Callable[[str], None], id: str) -> None:
        try:
            stage(id)
        except Exception:
            log.exception("service %s can't be reconciled; it is tried again", id)
            self.draft.forget(id)
            self.failed.add(id)

    def _orchestrate(self, id: str) -> None:
        draft = self.draft
        service = draft.service(id)
        removal.orphan_lost(draft, id)
        if service is None:
            # Tasks without a service are containers that are attached to a network; their node ends them.
            if id:
                removal.remove_slot(draft, draft.tasks(id))
            return
        removal.reject_misplaced(draft, service)
        orchestrator_of(service)(draft, service)
        for slot in by_slot(service, draft.tasks(id)).values():
            start_prepared(draft, id, target(service), slot)

    def _allocate(self, id: str) -> None:
        if self._allocator is None:
            self._allocator = Allocator(self.draft, self._memory.cursors)
        self._allocator.allocate(self.draft.service(id), id)

    def _schedule(self, id: str) -> None:
        pending = [task for task in self.draft.tasks(id) if alive(task) and task.state is TaskState.PENDING]
        if pending:
            if self._scheduler is None:
                self._scheduler = Scheduler(self.draft, self._memory.usages)
            self._scheduler.schedule(pending)

    def _end(self, id: str) -> None:
        draft = self.draft
        removal.end_unassigned(draft, id)
        removal.delete_removed(draft, id)
        service = draft.service(id)
        if service is not None:
            removal.trim_history(draft, service)
        if any(alive(task) and task.state < TaskState.ASSIGNED for task in draft.tasks(id)):
            self.waiting.add(id)

    def operations(self) -> Sequence[Operation]:
        """What to commit; call it once. The services with other changes are then ``incomplete``."""
        operations, left = self.draft.operations()
        self.incomplete = (self.incomplete | left) - self.failed
        return operations


def orchestrator_of(service: Service) -> Callable[[Draft, Service], None]:
    mode = service.spec.mode
    if mode.global_ is not None:
        return everywhere.reconcile
    if mode.replicated_job is not None:
        return jobs.reconcile_replicated
    if mode.global_job is not None:
        return jobs.reconcile_global
    return replicated.reconcile
