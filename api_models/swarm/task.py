"""The task template of a service, and the status of a task."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from api_models.base import OMIT, Go, Int, Int64, Uint64
from api_models.record import Record, Strings
from api_models.swarm.common import Driver, Duration
from api_models.swarm.container import ContainerSpec
from api_models.swarm.network import NetworkAttachmentConfig, PortConfig
from api_models.versions import Since


@dataclass(frozen=True, slots=True, kw_only=True)
class Privilege(Record):
    """A privilege that a plugin asks for."""

    go_name: ClassVar[str] = "runtime.PluginPrivilege"

    name: Annotated[str, OMIT] = ""
    description: Annotated[str, OMIT] = ""
    value: Annotated[Strings | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSpec(Record):
    """A managed plugin as the task of a service."""

    go_name: ClassVar[str] = "runtime.PluginSpec"

    name: Annotated[str, Field(alias="name"), OMIT] = ""
    remote: Annotated[str, Field(alias="remote"), OMIT] = ""
    privileges: Annotated[tuple[Privilege, ...] | None, Field(alias="privileges"), OMIT] = None
    disabled: Annotated[bool, Field(alias="disabled"), OMIT] = False
    env: Annotated[Strings | None, Field(alias="env"), OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAttachmentSpec(Record):
    """A container outside of swarm mode, attached to a swarm's network."""

    go_name: ClassVar[str] = "swarm.NetworkAttachmentSpec"

    container_id: Annotated[str, Field(alias="ContainerID")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedResource(Record):
    go_name: ClassVar[str] = "swarm.NamedGenericResource"

    kind: Annotated[str, OMIT] = ""
    value: Annotated[str, OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteResource(Record):
    go_name: ClassVar[str] = "swarm.DiscreteGenericResource"

    kind: Annotated[str, OMIT] = ""
    value: Annotated[Int64, OMIT] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenericResource(Record):
    """A kind of resource that nodes advertise: named units, or a number of them."""

    go_name: ClassVar[str] = "swarm.GenericResource"

    named_resource_spec: Annotated[NamedResource | None, OMIT] = None
    discrete_resource_spec: Annotated[DiscreteResource | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit(Record):
    go_name: ClassVar[str] = "swarm.Limit"

    nano_cpus: Annotated[Int64, Field(alias="NanoCPUs"), OMIT] = 0
    memory_bytes: Annotated[Int64, OMIT] = 0
    pids: Annotated[Int64, OMIT, Since((1, 41))] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources(Record):
    """What a task reserves, or what a node has. CPUs in 1e-9, memory in bytes."""

    go_name: ClassVar[str] = "swarm.Resources"

    nano_cpus: Annotated[Int64, Field(alias="NanoCPUs"), OMIT] = 0
    memory_bytes: Annotated[Int64, OMIT] = 0
    generic_resources: Annotated[tuple[GenericResource, ...] | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequirements(Record):
    go_name: ClassVar[str] = "swarm.ResourceRequirements"

    limits: Annotated[Limit | None, OMIT] = None
    reservations: Annotated[Resources | None, OMIT] = None
    swap_bytes: Annotated[Int64 | None, OMIT, Since((1, 52))] = None
    memory_swappiness: Annotated[Int64 | None, OMIT, Since((1, 52))] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy(Record):
    """``condition``: "none", "on-failure" or "any"."""

    go_name: ClassVar[str] = "swarm.RestartPolicy"

    condition: Annotated[str, Go("swarm.RestartPolicyCondition"), OMIT] = ""
    delay: Annotated[Duration | None, OMIT] = None
    max_attempts: Annotated[Uint64 | None, OMIT] = None
    window: Annotated[Duration | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadOver(Record):
    go_name: ClassVar[str] = "swarm.SpreadOver"

    spread_descriptor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementPreference(Record):
    go_name: ClassVar[str] = "swarm.PlacementPreference"

    spread: SpreadOver | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform(Record):
    go_name: ClassVar[str] = "swarm.Platform"

    architecture: Annotated[str, OMIT] = ""
    os: Annotated[str, Field(alias="OS"), OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement(Record):
    go_name: ClassVar[str] = "swarm.Placement"

    constraints: Annotated[Strings | None, OMIT] = None
    preferences: Annotated[tuple[PlacementPreference, ...] | None, OMIT] = None
    max_replicas: Annotated[Uint64, OMIT, Since((1, 40))] = 0
    platforms: Annotated[tuple[Platform, ...] | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec(Record):
    """``runtime``: "", "container", "plugin" or "attachment"."""

    go_name: ClassVar[str] = "swarm.TaskSpec"

    container_spec: Annotated[ContainerSpec | None, OMIT] = None
    plugin_spec: Annotated[PluginSpec | None, OMIT] = None
    network_attachment_spec: Annotated[NetworkAttachmentSpec | None, OMIT] = None
    resources: Annotated[ResourceRequirements | None, OMIT] = None
    restart_policy: Annotated[RestartPolicy | None, OMIT] = None
    placement: Annotated[Placement | None, OMIT] = None
    networks: Annotated[tuple[NetworkAttachmentConfig, ...] | None, OMIT] = None
    log_driver: Annotated[Driver | None, OMIT] = None
    force_update: Uint64 = 0
    runtime: Annotated[str, Go("swarm.RuntimeType"), OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatus(Record):
    go_name: ClassVar[str] = "swarm.ContainerStatus"

    container_id: Annotated[str, Field(alias="ContainerID")] = ""
    pid: Annotated[Int, Field(alias="PID")] = 0
    exit_code: Int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PortStatus(Record):
    """The ports of a task that are published by its node (mode "host")."""

    go_name: ClassVar[str] = "swarm.PortStatus"

    ports: Annotated[tuple[PortConfig, ...] | None, OMIT] = None
