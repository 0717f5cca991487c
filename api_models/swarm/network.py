"""Endpoints, published ports and networks of services."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from api_models.base import OMIT, Go, Uint32
from api_models.record import Record, StringMap, Strings


@dataclass(frozen=True, slots=True, kw_only=True)
class PortConfig(Record):
    """A published port. ``published_port`` 0: one is chosen. ``publish_mode``: "ingress" or "host"."""

    go_name: ClassVar[str] = "swarm.PortConfig"

    name: Annotated[str, OMIT] = ""
    protocol: Annotated[str, Go("swarm.PortConfigProtocol"), OMIT] = ""
    target_port: Annotated[Uint32, OMIT] = 0
    published_port: Annotated[Uint32, OMIT] = 0
    publish_mode: Annotated[str, Go("swarm.PortConfigPublishMode"), OMIT] = ""

    @property
    def on_host(self) -> bool:
        """Whether only the task's node publishes the port; else all nodes do."""
        return self.publish_mode == "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec(Record):
    """``mode``: "vip" or "dnsrr"."""

    go_name: ClassVar[str] = "swarm.EndpointSpec"

    mode: Annotated[str, Go("swarm.ResolutionMode"), OMIT] = ""
    ports: Annotated[tuple[PortConfig, ...] | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualIP(Record):
    """The virtual address of a service on a network, in CIDR notation."""

    go_name: ClassVar[str] = "swarm.EndpointVirtualIP"

    network_id: Annotated[str, Field(alias="NetworkID"), OMIT] = ""
    addr: Annotated[str, OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(Record):
    """What the swarm has allocated for a service: ``ports`` with their published ports, and virtual addresses."""

    go_name: ClassVar[str] = "swarm.Endpoint"

    spec: EndpointSpec = EndpointSpec()
    ports: Annotated[tuple[PortConfig, ...] | None, OMIT] = None
    virtual_ips: Annotated[tuple[VirtualIP, ...] | None, Field(alias="VirtualIPs"), OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAttachmentConfig(Record):
    """A network of a service. ``target``: its name or id in requests, its id in the store."""

    go_name: ClassVar[str] = "swarm.NetworkAttachmentConfig"

    target: Annotated[str, OMIT] = ""
    aliases: Annotated[Strings | None, OMIT] = None
    driver_opts: Annotated[StringMap | None, OMIT] = None
