"""Nodes."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from api_models.base import OMIT, Go
from api_models.record import Record, StringMap
from api_models.swarm.common import Annotations, TLSInfo
from api_models.swarm.task import Platform, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec(Annotations):
    """``role``: "worker" or "manager"; ``availability``: "active", "pause" or "drain"."""

    go_name: ClassVar[str] = "swarm.NodeSpec"

    role: Annotated[str, Go("swarm.NodeRole"), OMIT] = ""
    availability: Annotated[str, Go("swarm.NodeAvailability"), OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginDescription(Record):
    go_name: ClassVar[str] = "swarm.PluginDescription"

    type: Annotated[str, OMIT] = ""
    name: Annotated[str, OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescription(Record):
    go_name: ClassVar[str] = "swarm.EngineDescription"

    engine_version: Annotated[str, OMIT] = ""
    labels: Annotated[StringMap | None, OMIT] = None
    plugins: Annotated[tuple[PluginDescription, ...] | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDescription(Record):
    """What a node's agent reports."""

    go_name: ClassVar[str] = "swarm.NodeDescription"

    hostname: Annotated[str, OMIT] = ""
    platform: Platform = Platform()
    resources: Resources = Resources()
    engine: EngineDescription = EngineDescription()
    tls_info: Annotated[TLSInfo, Field(alias="TLSInfo")] = TLSInfo()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus(Record):
    """``state``: "unknown", "down", "ready" or "disconnected"."""

    go_name: ClassVar[str] = "swarm.NodeStatus"

    state: Annotated[str, OMIT] = ""
    message: Annotated[str, OMIT] = ""
    addr: Annotated[str, OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerStatus(Record):
    """``reachability``: "unknown", "unreachable" or "reachable"."""

    go_name: ClassVar[str] = "swarm.ManagerStatus"

    leader: Annotated[bool, OMIT] = False
    reachability: Annotated[str, OMIT] = ""
    addr: Annotated[str, OMIT] = ""
