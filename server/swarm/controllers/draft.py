"""A draft: the changes that controllers want, on top of the tables. The stages of a reconcile read what the former
stages have changed, and all of it is committed at once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from server.swarm.model.objects import Cluster, Node, Service, Task
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Delete, Operation, Put
from server.swarm.state.tables import Tables
from server.swarm.store.interface import MAX_OPERATIONS


class Draft:
    """Objects put here become visible to the look-ups of the draft at once. ``now``: ns since the epoch, of all changes
    of the draft. ``limit``: with so many changes the draft is full; what else is wanted waits for the next one."""

    def __init__(self, tables: Tables, now: int, *, limit: int = MAX_OPERATIONS) -> None:
        self.tables = tables
        self.now = now
        self._limit = limit
        # None: deleted. By id: ids are unique over all kinds.
        self._tasks: dict[str, Task | None] = {}
        self._services: dict[str, Service] = {}
        self._by_service: dict[str, dict[str, Task]] = {}
        self._wakeups: dict[str, int] = {}

    @property
    def full(self) -> bool:
        return len(self._tasks) + len(self._services) >= self._limit

    # look-ups

    @property
    def cluster(self) -> Cluster | None:
        return next(iter(self.tables.cluster), None)

    def service(self, id: str) -> Service | None:
        return self._services.get(id) or self.tables.services.find(id)

    def services(self) -> Iterator[Service]:
        for service in self.tables.services:
            yield self._services.get(service.id, service)

    def node(self, id: str) -> Node | None:
        return self.tables.nodes.find(id)

    def tasks(self, service_id: str) -> list[Task]:
        """The tasks of a service, the oldest first."""
        return list(self._of_service(service_id).values())

    def changed_tasks(self) -> Iterator[tuple[Task | None, Task | None]]:
        """The tasks that are changed, each as it is stored and as it shall be; None: not at all."""
        for id, task in self._tasks.items():
            yield self.tables.tasks.find(id), task

    def all_tasks(self) -> Iterator[Task]:
        for task in self.tables.tasks:
            changed = self._tasks.get(task.id, task)
            if changed is not None:
                yield changed
        for task_or_none in list(self._tasks.values()):
            if task_or_none is not None and not task_or_none.version:
                yield task_or_none

    def _of_service(self, service_id: str) -> dict[str, Task]:
        tasks = self._by_service.get(service_id)
        if tasks is None:
            # Sorted once: changed tasks keep their places, new ones come last.
            tasks = {task.id: task for task in sorted(self.tables.tasks.of_service(service_id), key=_age)}
            self._by_service[service_id] = tasks
        return tasks

    # changes

    def put_service(self, service: Service) -> Service:
        self._services[service.id] = service
        return service

    def put(self, task: Task) -> Task:
        self._of_service(task.service_id)[task.id] = task
        self._tasks[task.id] = task
        return task

    def desire(self, task: Task, state: TaskState) -> Task:
        """Raises the desired state of a task; it never decreases."""
        if task.desired_state >= state:
            return task
        return self.put(replace(task, desired_state=int(state), not_before_ns=0))

    def observe(self, task: Task, state: TaskState, message: str, err: str = "") -> Task:
        """Sets the observed state of a task: what the managers know better than its node, or before there is one."""
        status = replace(task.status, state=int(state), timestamp_ns=self.now, message=message, err=err)
        return self.put(replace(task, status=status))

    def delete(self, task: Task) -> None:
        self._of_service(task.service_id).pop(task.id, None)
        if task.version:
            self._tasks[task.id] = None
        else:
            self._tasks.pop(task.id, None)

    def wake(self, service_id: str, moment: int) -> None:
        """The service is to be reconciled again at ``moment``, also if nothing changes until then."""
        self._wakeups[service_id] = min(moment, self._wakeups.get(service_id, moment))

    @property
    def wakeups(self) -> dict[str, int]:
        return self._wakeups

    def forget(self, service_id: str) -> None:
        """Drops all changes of a service and of its tasks."""
        self._services.pop(service_id, None)
        for task in self.tables.tasks.of_service(service_id):
            self._tasks.pop(task.id, None)
        for id in self._by_service.pop(service_id, {}):
            self._tasks.pop(id, None)
        self._wakeups.pop(service_id, None)

    # commits

    def operations(self) -> tuple[Sequence[Operation], set[str]]:
        """As many operations as the limit allows, and the ids of the services that want others. The changes of one slot
        are not separated, unless they are more than the limit: no commit stops a task whose successor is in another
        one."""
        limit = self._limit
        groups: dict[tuple[str, str], list[Operation]] = {}
        for service in self._services.values():
            groups.setdefault((service.id, ""), []).append(Put(replace(service, updated_ns=self.now)))
        for id, task in self._tasks.items():
            former = self.tables.tasks.find(id)
            if task is not None:
                groups.setdefault(self._group(task), []).append(Put(replace(task, updated_ns=self.now)))
            elif former is not None:
                groups.setdefault(self._group(former), []).append(Delete(former))
        chosen: list[Operation] = []
        left: set[str] = set()
        for (service_id, _), group in groups.items():
            if len(chosen) + len(group) <= limit:
                chosen += group
                continue
            left.add(service_id)
            if not chosen:
                chosen = group[:limit]
        return chosen, left

    def _group(self, task: Task) -> tuple[str, str]:
        service = self.service(task.service_id)
        return task.service_id, task.id if service is None else slot_of(service, task)


def per_node(service: Service) -> bool:
    """Whether the service has a task for each node, not for each of a number of slots."""
    return service.spec.mode.global_ is not None or service.spec.mode.global_job is not None


def slot_of(service: Service, task: Task) -> str:
    """What identifies the task's slot within its service."""
    return task.node_id if per_node(service) else str(task.slot)


def _age(task: Task) -> tuple[int, int, str]:
    return task.created_ns, task.slot, task.id
