"""What the orchestrators know of a task: how it is made, and whether it is what the service's spec asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from api_models.swarm.network import EndpointSpec
from api_models.swarm.task import TaskSpec
from server.swarm.controllers.constraints import node_matches
from server.swarm.controllers.draft import Draft, per_node
from server.swarm.model.ids import new_id
from server.swarm.model.objects import Node, Service, Task, TaskStatus
from server.swarm.model.taskstate import TaskState


def target(service: Service) -> TaskState:
    """The desired state of the service's tasks, unless they are stopped."""
    return TaskState.COMPLETE if service.spec.mode.is_job else TaskState.RUNNING


def create(draft: Draft, service: Service, *, slot: int = 0, node_id: str = "", not_before: int = -1) -> Task:
    """Adds a task for ``slot``, or for a node. ``not_before``: it is only prepared, and may start at this time when its
    predecessor has stopped (``start.start_prepared``); -1: it starts at once."""
    desired = TaskState.READY if not_before >= 0 else target(service)
    return draft.put(
        Task(
            id=new_id(),
            created_ns=draft.now,
            spec=service.spec.task_template,
            spec_version=service.spec_version,
            service_id=service.id,
            service_name=service.name,
            service_labels=service.spec.labels,
            slot=slot,
            node_id=node_id,
            status=TaskStatus(state=int(TaskState.NEW), timestamp_ns=draft.now, message="created"),
            desired_state=int(desired),
            endpoint=replace(service.endpoint, spec=endpoint_spec(service)),
            job_iteration=service.job_iteration,
            not_before_ns=max(not_before, 0),
        )
    )


def endpoint_spec(service: Service) -> EndpointSpec:
    return service.spec.endpoint_spec or EndpointSpec()


def alive(task: Task) -> bool:
    """Whether the task is wanted: it runs, will run, or has ended and is not replaced yet."""
    return task.desired_state <= TaskState.COMPLETE


def unusable(node: Node | None) -> bool:
    """Whether the tasks of a node are to be replaced by others elsewhere."""
    return node is None or node.status.state == "down" or node.spec.availability == "drain"


@dataclass(slots=True)
class Freshness:
    """Compares tasks with the spec of their service. Tasks with the same ``spec_version`` have the same spec, so that
    one comparison serves for all of them."""

    service: Service
    draft: Draft
    _verdicts: dict[int, "_Verdict"] = field(default_factory=dict)

    def outdated(self, task: Task) -> bool:
        """Whether the task is to be replaced. It isn't if only placement constraints differ that its node meets."""
        if task.spec_version == self.service.spec_version:
            return False
        verdict = self._verdicts.get(task.spec_version)
        if verdict is None:
            verdict = self._verdicts[task.spec_version] = _compare(self.service, task)
        if not verdict.placement_only:
            return verdict.differs
        node = self.draft.node(task.node_id)
        placement = self.service.spec.task_template.placement
        return node is None or not node_matches(placement.constraints if placement is not None else None, node)


@dataclass(frozen=True, slots=True)
class _Verdict:
    differs: bool
    placement_only: bool


def _compare(service: Service, task: Task) -> _Verdict:
    wanted: TaskSpec = service.spec.task_template
    endpoint = task.endpoint.spec != endpoint_spec(service)
    if wanted == task.spec:
        return _Verdict(endpoint, placement_only=False)
    same_but_placement = replace(wanted, placement=task.spec.placement) == task.spec
    return _Verdict(differs=True, placement_only=same_but_placement and not endpoint)


def by_slot(service: Service, tasks: list[Task]) -> Mapping[str, list[Task]]:
    """The tasks by slot, in the order of the slots, or by node for global services."""
    found: dict[str, list[Task]] = {}
    nodes = per_node(service)
    for task in tasks:
        found.setdefault(task.node_id if nodes else str(task.slot), []).append(task)
    return dict(sorted(found.items(), key=lambda each: (each[1][0].slot, each[0])))
