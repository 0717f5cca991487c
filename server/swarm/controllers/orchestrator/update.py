"""Rolling updates: replaces the tasks of a service that do not have its spec, some at a time, and watches the new ones.

How far an update is, is read from the tasks. A slot whose update has begun has a task that was made since the update
began, and older ones; it is under way until that task has run (or ended) for the delay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from api_models.swarm.service import UpdateConfig
from server.swarm.controllers.clock import SECOND
from server.swarm.controllers.draft import Draft, per_node
from server.swarm.controllers.orchestrator.tasks import Freshness, alive, create
from server.swarm.model.objects import Service, Task, UpdateStatus
from server.swarm.model.taskstate import TaskState

MONITOR = 5 * SECOND
DEFAULT = UpdateConfig(parallelism=1, failure_action="pause", monitor=MONITOR, order="stop-first")
_PAUSED = frozenset(("paused", "rollback_paused"))
_RUNNING = frozenset(("updating", "rollback_started"))
_FAILURES = frozenset((TaskState.FAILED, TaskState.REJECTED, TaskState.COMPLETE))


@dataclass(frozen=True, slots=True)
class _Slot:
    """``current``: the tasks that the update has made; ``fresh`` and ``outdated``: those that are wanted."""

    tasks: Sequence[Task]
    current: Sequence[Task]
    fresh: Sequence[Task]
    outdated: Sequence[Task]
    #: The newest task has ended for good and is outdated.
    dead: bool

    @property
    def dirty(self) -> bool:
        return bool(self.outdated) or len(self.fresh) > 1 or self.dead

    @property
    def begun(self) -> bool:
        return bool(self.current) and len(self.current) < len(self.tasks)

    @property
    def reached(self) -> int:
        """When the first new task ran, or ended without that; 0: not yet."""
        moments = [
            each.running_ns or each.status.timestamp_ns for each in self.current if each.state >= TaskState.RUNNING
        ]
        return min(moments, default=0)


def update_slots(draft: Draft, service: Service, slots: Sequence[Sequence[Task]]) -> None:
    """``slots``: those of the service that stay, each with its tasks, the oldest first."""
    freshness = Freshness(service, draft)
    # Most slots of most services have one task with the present spec: there is nothing to do.
    slots = [slot for slot in slots if len(slot) > 1 or slot[0].spec_version != service.spec_version]
    found = [_slot(service, freshness, tasks) for tasks in slots]
    for slot in found:
        _finish(draft, slot)
    status = service.update_status
    if status is not None and status.state in _PAUSED:
        return
    involved = [slot for slot in found if slot.dirty or slot.begun]
    if not any(slot.dirty for slot in found) and (status is None or status.state not in _RUNNING):
        return
    rollback = status is not None and status.state == "rollback_started"
    config = (service.spec.rollback_config if rollback else service.spec.update_config) or DEFAULT
    if _fail(draft, service, config, involved, rollback=rollback):
        return
    if status is None:
        begun = UpdateStatus(state="updating", started_ns=draft.now, message="update in progress")
        service = draft.put_service(replace(service, update_status=begun))
    waiting = [slot for slot in involved if slot.dirty and not slot.begun]
    if not waiting:
        _complete(draft, service, config, involved)
        return
    places = config.parallelism or len(involved)
    places -= sum(_under_way(draft, service, config, slot) for slot in involved if slot.begun)
    for slot in waiting[: max(places, 0)]:
        _replace(draft, service, config, slot)


def _slot(service: Service, freshness: Freshness, tasks: Sequence[Task]) -> _Slot:
    status = service.update_status
    wanted = [task for task in tasks if alive(task)]
    fresh = [task for task in wanted if not freshness.outdated(task)]
    return _Slot(
        tasks=tasks,
        current=[
            task
            for task in tasks
            if status is not None and task.spec_version == service.spec_version and task.created_ns >= status.started_ns
        ],
        fresh=fresh,
        outdated=[task for task in wanted if task not in fresh],
        dead=not wanted and freshness.outdated(tasks[-1]),
    )


def _finish(draft: Draft, slot: _Slot) -> None:
    """A new task that runs replaces all others of its slot, also while the update is paused."""
    if len(slot.fresh) + len(slot.outdated) < 2 or not slot.fresh:
        return
    running = [task for task in slot.fresh if task.state is TaskState.RUNNING]
    if running or not slot.outdated:
        keep = (running or slot.fresh)[-1]
        _stop(draft, [task for task in slot.tasks if task is not keep])


def _stop(draft: Draft, tasks: Sequence[Task]) -> None:
    for task in tasks:
        draft.desire(task, TaskState.SHUTDOWN)


def _replace(draft: Draft, service: Service, config: UpdateConfig, slot: _Slot) -> None:
    if slot.fresh:
        # Of a former update with the same task: it only has to start.
        if config.order != "start-first":
            _stop(draft, [task for task in slot.tasks if task is not slot.fresh[-1]])
        return
    node = slot.tasks[-1].node_id if per_node(service) else ""
    if config.order == "start-first" and slot.outdated:
        create(draft, service, slot=slot.tasks[-1].slot, node_id=node)
        return
    _stop(draft, slot.outdated)
    create(draft, service, slot=slot.tasks[-1].slot, node_id=node, not_before=draft.now)


def _under_way(draft: Draft, service: Service, config: UpdateConfig, slot: _Slot) -> bool:
    if not slot.reached:
        return True
    end = slot.reached + config.delay
    if end > draft.now:
        draft.wake(service.id, end)
    return end > draft.now


def _monitor(config: UpdateConfig) -> int:
    return config.monitor or MONITOR


def _complete(draft: Draft, service: Service, config: UpdateConfig, involved: Sequence[_Slot]) -> None:
    """Ends the update when all new tasks have run for the monitoring time."""
    status = service.update_status
    assert status is not None
    if status.state not in _RUNNING or not all(slot.reached for slot in involved if slot.begun):
        return
    monitor = _monitor(config)
    if config.delay >= monitor:
        monitor = config.delay + SECOND
    end = max((slot.reached + config.delay + monitor for slot in involved), default=0)
    if end > draft.now:
        draft.wake(service.id, end)
        return
    if status.state == "rollback_started":
        status = replace(status, state="rollback_completed", message="rollback completed")
    else:
        status = replace(status, state="completed", message="update completed")
    draft.put_service(replace(service, update_status=replace(status, completed_ns=draft.now)))


def _fail(draft: Draft, service: Service, config: UpdateConfig, involved: Sequence[_Slot], *, rollback: bool) -> bool:
    """Pauses the update or rolls it back, if too many new tasks have failed."""
    status = service.update_status
    if config.failure_action == "continue" or status is None or status.state not in _RUNNING:
        return False
    failed = [task for slot in involved if slot.begun and (task := _failure(slot, _monitor(config))) is not None]
    if not failed or len(failed) / len(involved) <= config.max_failure_ratio:
        return False
    reason = f"due to failure or early termination of task {failed[-1].id}"
    if config.failure_action == "rollback" and not rollback and service.previous_spec is not None:
        status = UpdateStatus(state="rollback_started", started_ns=draft.now, message=f"update rolled back {reason}")
        draft.put_service(
            replace(
                service,
                spec=service.previous_spec,
                # A number of its own, so that no two specs ever have the same; tasks of that spec are equal to it.
                spec_version=max(service.spec_version, service.previous_spec_version) + 1,
                sealed_registry_auth=service.previous_sealed_registry_auth,
                previous_spec=None,
                previous_spec_version=0,
                previous_sealed_registry_auth="",
                update_status=status,
            )
        )
        return True
    noun = "rollback" if rollback and config.failure_action == "rollback" else "update"
    state = "rollback_paused" if rollback else "paused"
    draft.put_service(replace(service, update_status=replace(status, state=state, message=f"{noun} paused {reason}")))
    return True


def _failure(slot: _Slot, monitor: int) -> Task | None:
    """A new task of the slot that has ended by itself before it ran for the monitoring time."""
    for task in slot.current:
        if task.state in _FAILURES and (not task.running_ns or task.status.timestamp_ns - task.running_ns <= monitor):
            return task
    return None
