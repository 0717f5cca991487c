"""Networks and endpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from api_models.base import OMIT, Go, Int, Model, Text
from api_models.record import Record, StringMap, Strings
from api_models.supported import Version
from api_models.versions import Checked, Dropped, Emptied, Shown, Since


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointIPAMConfig(Record):
    go_name: ClassVar[str] = "network.EndpointIPAMConfig"

    ipv4_address: Annotated[str, Field(alias="IPv4Address"), OMIT] = ""
    ipv6_address: Annotated[str, Field(alias="IPv6Address"), OMIT] = ""
    link_local_ips: Annotated[Strings | None, Field(alias="LinkLocalIPs"), OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings(Record):
    """A container's endpoint on a network: the request's settings, and in inspect also the assigned ones."""

    go_name: ClassVar[str] = "network.EndpointSettings"

    ipam_config: Annotated[EndpointIPAMConfig | None, Field(alias="IPAMConfig")] = None
    links: Strings | None = None
    aliases: Strings | None = None
    mac_address: str = ""
    driver_opts: StringMap | None = None
    gw_priority: Annotated[Int, Since((1, 48)), Shown((1, 48))] = 0
    # The following fields are set by the engine and ignored in requests.
    network_id: Annotated[str, Field(alias="NetworkID")] = ""
    endpoint_id: Annotated[str, Field(alias="EndpointID")] = ""
    gateway: str = ""
    ip_address: Annotated[str, Field(alias="IPAddress")] = ""
    ip_prefix_len: Annotated[Int, Field(alias="IPPrefixLen")] = 0
    ipv6_gateway: Annotated[str, Field(alias="IPv6Gateway")] = ""
    global_ipv6_address: Annotated[str, Field(alias="GlobalIPv6Address")] = ""
    global_ipv6_prefix_len: Annotated[Int, Field(alias="GlobalIPv6PrefixLen")] = 0
    dns_names: Annotated[Strings | None, Field(alias="DNSNames")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkingConfig(Record):
    go_name: ClassVar[str] = "network.NetworkingConfig"

    endpoints_config: Annotated[
        Mapping[str, EndpointSettings | None] | None, Go("map[string]*network.EndpointSettings")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IPAMPool(Record):
    """One entry of ``IPAM.Config``."""

    go_name: ClassVar[str] = "network.IPAMConfig"

    subnet: Annotated[str, OMIT] = ""
    ip_range: Annotated[str, Field(alias="IPRange"), OMIT] = ""
    gateway: Annotated[str, OMIT] = ""
    auxiliary_addresses: Annotated[StringMap | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IPAM(Record):
    go_name: ClassVar[str] = "network.IPAM"

    driver: str = ""
    options: StringMap | None = None
    config: tuple[IPAMPool, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReference(Record):
    go_name: ClassVar[str] = "network.ConfigReference"

    network: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCreate(Record):
    go_name: ClassVar[str] = "network.CreateOptions"
    go_embedded: ClassVar[str] = "NetworkCreate"

    driver: str = ""
    scope: str = ""
    enable_ipv4: Annotated[bool | None, Field(alias="EnableIPv4"), Since((1, 48))] = None
    enable_ipv6: Annotated[bool | None, Field(alias="EnableIPv6")] = None
    ipam: Annotated[IPAM | None, Field(alias="IPAM")] = None
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    options: StringMap | None = None
    labels: StringMap | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCreateRequest(NetworkCreate):
    """The body of ``POST /networks/create``."""

    go_name: ClassVar[str] = "types.NetworkCreateRequest"

    name: str = ""
    # Deprecated: names are always unique (since 1.44).
    check_duplicate: bool = False


def _no_mac_address_before_1_54(request: Any, version: Version) -> None:
    if version < (1, 54) and request.endpoint_config is not None:
        request.endpoint_config.mac_address = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConnect(Record):
    """The body of ``POST /networks/{id}/connect``."""

    go_name: ClassVar[str] = "types.NetworkConnect"

    container: str = ""
    endpoint_config: Annotated[EndpointSettings | None, Checked(_no_mac_address_before_1_54)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDisconnect(Record):
    """The body of ``POST /networks/{id}/disconnect``."""

    go_name: ClassVar[str] = "types.NetworkDisconnect"

    container: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo(Record):
    """A node with a network of the swarm."""

    go_name: ClassVar[str] = "network.PeerInfo"

    name: str = ""
    ip: Annotated[str, Field(alias="IP")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTask(Record):
    go_name: ClassVar[str] = "network.Task"

    name: str = ""
    endpoint_id: Annotated[str, Field(alias="EndpointID")] = ""
    endpoint_ip: Annotated[str, Field(alias="EndpointIP")] = ""
    info: StringMap | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo(Record):
    """A service on a network of the swarm."""

    go_name: ClassVar[str] = "network.ServiceInfo"

    vip: Annotated[str, Field(alias="VIP")] = ""
    ports: Strings = ()
    local_lb_index: Annotated[Int, Field(alias="LocalLBIndex")] = 0
    tasks: tuple[ServiceTask, ...] = ()


class NetworkInspect(Model):
    """The answer of ``GET /networks/{id}``."""

    name: str = ""
    id: str = ""
    created: str = ""
    scope: str = ""
    driver: str = ""
    enable_ipv4: Annotated[bool, Field(alias="EnableIPv4"), Shown((1, 48))] = True
    enable_ipv6: Annotated[bool, Field(alias="EnableIPv6")] = False
    ipam: Annotated[IPAM | None, Field(alias="IPAM")] = None
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: ConfigReference | None = None
    config_only: bool = False
    containers: dict[str, dict[str, Any]] | None = None
    options: dict[str, Text] | None = None
    labels: dict[str, Text] | None = None
    peers: Annotated[tuple[PeerInfo, ...] | None, OMIT] = None
    services: Annotated[dict[str, ServiceInfo] | None, OMIT] = None
    status: Annotated[dict[str, Any] | None, OMIT, Shown((1, 52))] = None


class NetworkSummary(NetworkInspect):
    """One element of ``GET /networks``."""

    containers: Annotated[dict[str, dict[str, Any]] | None, Emptied((1, 28)), Dropped((1, 52))] = None
