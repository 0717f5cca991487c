"""The spec of a service."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from api_models.base import OMIT, Uint64
from api_models.record import Record
from api_models.swarm.common import Annotations, Duration
from api_models.swarm.network import EndpointSpec, NetworkAttachmentConfig, PortConfig
from api_models.swarm.task import TaskSpec
from api_models.versions import Gone, Since


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedService(Record):
    go_name: ClassVar[str] = "swarm.ReplicatedService"

    replicas: Annotated[Uint64 | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalService(Record):
    go_name: ClassVar[str] = "swarm.GlobalService"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedJob(Record):
    """``max_concurrent`` None: 1. ``total_completions`` None: ``max_concurrent``."""

    go_name: ClassVar[str] = "swarm.ReplicatedJob"

    max_concurrent: Annotated[Uint64 | None, OMIT] = None
    total_completions: Annotated[Uint64 | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalJob(Record):
    go_name: ClassVar[str] = "swarm.GlobalJob"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMode(Record):
    """One of them is set."""

    go_name: ClassVar[str] = "swarm.ServiceMode"

    replicated: Annotated[ReplicatedService | None, OMIT] = None
    global_: Annotated[GlobalService | None, OMIT] = None
    replicated_job: Annotated[ReplicatedJob | None, OMIT, Since((1, 41))] = None
    global_job: Annotated[GlobalJob | None, OMIT, Since((1, 41))] = None

    @property
    def name(self) -> str:
        """The mode as the filter ``mode`` names it."""
        if self.global_ is not None:
            return "global"
        if self.replicated_job is not None:
            return "replicated-job"
        return "global-job" if self.global_job is not None else "replicated"

    @property
    def is_job(self) -> bool:
        return self.replicated_job is not None or self.global_job is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateConfig(Record):
    """``parallelism`` 0: all tasks at once. ``failure_action``: "pause", "continue" or "rollback"; ``order``:
    "stop-first" or "start-first"."""

    go_name: ClassVar[str] = "swarm.UpdateConfig"

    parallelism: Uint64 = 0
    delay: Annotated[Duration, OMIT] = 0
    failure_action: Annotated[str, OMIT] = ""
    monitor: Annotated[Duration, OMIT] = 0
    max_failure_ratio: float = 0
    order: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec(Annotations):
    """The body of ``POST /services/create`` and of an update."""

    go_name: ClassVar[str] = "swarm.ServiceSpec"

    task_template: TaskSpec = TaskSpec()
    mode: ServiceMode = ServiceMode()
    update_config: Annotated[UpdateConfig | None, OMIT] = None
    rollback_config: Annotated[UpdateConfig | None, OMIT] = None
    # The networks of the task template, from clients that don't know these.
    networks: Annotated[tuple[NetworkAttachmentConfig, ...] | None, OMIT, Gone((1, 44))] = None
    endpoint_spec: Annotated[EndpointSpec | None, OMIT] = None

    @property
    def ports(self) -> tuple[PortConfig, ...]:
        """The ports to publish."""
        return (self.endpoint_spec.ports if self.endpoint_spec is not None else None) or ()
