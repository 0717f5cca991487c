"""The records of networks: a network, a container's endpoint on it, and its sandbox.

Networks and sandboxes are stored as JSON documents (``server/networks/store.py``); derived values (address pools, the
bridge's index and MAC) are kept in memory only. Times are nanoseconds since the epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Self

import orjson

from api_models.network import EndpointSettings
from engine.proxy.forward import Listen
from server.networks.ipam.allocator import Address, AddressPool
from server.networks.ipam.allocator import Network as Subnet
from server.networks.netlink.rtnetlink import Interface
from server.networks.nftables.rules import Publication

BRIDGE, HOST, NULL, MACVLAN, IPVLAN, OVERLAY = "bridge", "host", "null", "macvlan", "ipvlan", "overlay"
#: The option of an overlay network whose traffic between nodes is encrypted. As in dockerd, any value means that.
ENCRYPTED = "encrypted"
#: The engine's own drivers. Others are plugins (``server/networks/remote``).
DRIVERS = frozenset((BRIDGE, HOST, NULL, MACVLAN, IPVLAN, OVERLAY))
IPAM_DRIVERS = frozenset(("default", "null"))


@dataclass(slots=True)
class PoolConfig:
    """One subnet of a network, as text in the API's form; ``gateway`` empty: none.

    ``pool_id`` is an IPAM plugin's name of the subnet, ``gateway_bits`` the prefix length that it returned with the
    gateway (0: the subnet's).
    """

    subnet: str
    ip_range: str = ""
    gateway: str = ""
    aux: dict[str, str] = field(default_factory=dict)
    configured: bool = False  # the user gave the subnet, so addresses in it may be given too
    pool_id: str = ""
    gateway_bits: int = 0

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """A stored subnet; a record of an earlier version may have fields that no longer exist."""
        return cls(**{name: value for name, value in raw.items() if name in cls.__dataclass_fields__})

    def make_pool(self) -> AddressPool:
        """The pool, with gateway and auxiliary addresses reserved."""
        reserved: set[Address] = {ip_address(text) for text in self.aux.values()}
        if self.gateway:
            reserved.add(ip_address(self.gateway))
        return AddressPool(ip_network(self.subnet), ip_network(self.ip_range) if self.ip_range else None, reserved)


@dataclass(slots=True, eq=False)
class Network:
    """A network. ``owner``: see ``server.access``. ``bridge`` is the device of a bridge or overlay network, ``parent``
    of a macvlan or ipvlan one.

    ``vxlan_local``, ``vxlan_port`` and ``node_address``: see ``overlay.model.SwarmNetwork``. ``peers``: the addresses
    of an overlay network on other nodes, with the addresses of these nodes.

    ``unfinished``: a plugin may know a network whose creation or removal has not ended; it can be removed only.
    """

    id: str
    name: str
    driver: str
    created_ns: int
    owner: str = ""
    scope: str = "local"
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: str = ""
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    ipam: list[PoolConfig] | None = None
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    bridge: str = ""
    parent: str = ""
    made_parent: bool = False  # this network created the 802.1q sub-interface
    predefined: bool = False
    address_space: str = ""  # of an IPAM plugin
    unfinished: bool = False
    vxlan_local: str = ""
    vxlan_port: int = 0
    node_address: str = ""

    # not stored
    pools: list[AddressPool] = field(default_factory=list)
    index: int = 0
    mac: str = ""  # the bridge's
    endpoints: dict[str, "Endpoint"] = field(default_factory=dict)
    ready: bool = False
    peers: Mapping[str, str] = field(default_factory=dict)
    other_macs: bool = False  # an endpoint had a MAC address that is not derived from its IP address

    @property
    def default_bridge(self) -> bool:
        return self.predefined and self.driver == BRIDGE

    @property
    def user_defined(self) -> bool:
        """Whether it supports names, aliases and chosen addresses."""
        return not self.predefined

    @property
    def of_swarm(self) -> bool:
        """Whether the swarm makes and removes it."""
        return self.scope == "swarm"

    @property
    def overlay(self) -> bool:
        """Whether it is a network that several nodes share: the swarm assigns its addresses."""
        return self.driver == OVERLAY

    @property
    def encrypted(self) -> bool:
        """Whether its packets between the nodes of the swarm are encrypted."""
        return self.overlay and ENCRYPTED in self.options

    @property
    def bridged(self) -> bool:
        """Whether its device is a Linux bridge."""
        return self.driver in (BRIDGE, OVERLAY)

    @property
    def vxlan(self) -> str:
        """The name of an overlay network's VXLAN device, which exists if the network has other nodes."""
        return f"vx-{self.id[:10]}" if self.overlay else ""

    @property
    def remote(self) -> bool:
        """Whether its driver is a plugin."""
        return self.driver not in DRIVERS

    @property
    def remote_ipam(self) -> bool:
        """Whether its IPAM driver is a plugin."""
        return self.ipam_driver not in IPAM_DRIVERS

    @property
    def uses_plugins(self) -> bool:
        return self.remote or self.remote_ipam

    def enables(self, version: int) -> bool:
        """Whether endpoints get addresses of this family: a subnet of the other one is only shown, as in dockerd."""
        return self.enable_ipv4 if version == 4 else self.enable_ipv6

    def make_pools(self) -> list[AddressPool]:
        if self.config_only:
            return []
        configs = [item for item in self.ipam or () if self.enables(ip_network(item.subnet).version)]
        return [item.make_pool() for item in configs]

    @property
    def subnets(self) -> list[Subnet]:
        return [pool.subnet for pool in self.pools]

    @property
    def routes_without_gateway(self) -> bool:
        """Whether the containers' default route names only the interface: ipvlan in its routed modes."""
        return self.driver == IPVLAN and self.option("ipvlan_mode", "l2") in ("l3", "l3s")

    def option(self, name: str, default: str = "") -> str:
        return self.options.get(name, default)

    def gateway(self, version: int) -> str:
        """The containers' gateway, as text; empty if there is none."""
        for config in self.ipam or ():
            if ip_network(config.subnet).version == version:
                return config.gateway
        return ""

    def to_doc(self) -> bytes:
        return orjson.dumps({name: getattr(self, name) for name in _STORED})

    @classmethod
    def from_doc(cls, document: bytes) -> Self:
        raw: dict[str, Any] = orjson.loads(document)
        ipam = raw.pop("ipam", None)
        known = {name: value for name, value in raw.items() if name in _STORED}
        return cls(**known, ipam=None if ipam is None else [PoolConfig.from_dict(item) for item in ipam])


_MEMORY = ("pools", "index", "mac", "endpoints", "ready", "other_macs", "peers")
_STORED = tuple(name for name in Network.__dataclass_fields__ if name not in _MEMORY)


@dataclass(frozen=True, slots=True)
class PortSpan:
    """``count`` ports of a container from ``port`` on, at ``hosts`` from ``host_port`` on (0: not bound, only open)."""

    port: int
    protocol: str
    hosts: tuple[str, ...]
    host_port: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class RemoteEndpoint:
    """What plugins answered about an endpoint: the pools of its addresses, and the interface that it joins with.

    ``source`` is the interface's name on the host ("": the plugin made none), ``prefix`` the beginning of its name in
    the container. ``routes``: (destination, next hop); without a next hop, directly through the interface.
    ``without_gateway``: the engine must not give the container another gateway. ``external``: whether the plugin was
    told that IPv4 and IPv6 traffic of the container leaves through this endpoint.
    """

    pool4: str = ""
    pool6: str = ""
    joined: bool = False
    source: str = ""
    prefix: str = ""
    routes: tuple[tuple[str, str], ...] = ()
    without_gateway: bool = False
    external: tuple[bool, bool] = (False, False)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        routes = tuple((destination, hop) for destination, hop in raw["routes"])
        return cls(**{**raw, "routes": routes, "external": tuple(raw["external"])})


@dataclass(slots=True, eq=False)
class Endpoint:
    """One running container on one network. Addresses are texts with prefix length; empty: none.

    ``settings`` is the request, in Docker's field names. ``implicit``: no request names the network, the engine added
    it for the container's outgoing traffic. ``remote``: None unless the network uses plugins.
    """

    id: str
    network: str
    container: str
    name: str  # the container's name, without slash
    interface: str = ""
    veth: str = ""
    mac: str = ""
    address4: str = ""
    address6: str = ""
    gateway4: str = ""
    gateway6: str = ""
    dns_names: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    publications: list[Publication] = field(default_factory=list)
    listens: list[Listen] = field(default_factory=list)
    ports: list[PortSpan] = field(default_factory=list)
    # in the firewall: client, server, protocol, port
    links: list[tuple[str, str, str, int]] = field(default_factory=list)
    implicit: bool = False
    remote: RemoteEndpoint | None = None

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return tuple(ip_interface(text) for text in (self.address4, self.address6) if text)

    @property
    def ip4(self) -> str:
        return self.address4.partition("/")[0]

    @property
    def ip6(self) -> str:
        return self.address6.partition("/")[0]

    @property
    def gw_priority(self) -> int:
        return int(self.settings.get("GwPriority") or 0)

    def default_hop(self, version: int) -> str | None:
        """The next hop of the default route, "" for one directly through the interface; None: it has none."""
        if gateway := self.gateway4 if version == 4 else self.gateway6:
            return gateway
        wanted = "0.0.0.0/0" if version == 4 else "::/0"
        routes = self.remote.routes if self.remote else ()
        return next((hop for destination, hop in routes if destination == wanted), None)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        remote = raw.get("remote")
        return cls(
            **{
                **raw,
                "remote": None if remote is None else RemoteEndpoint.from_dict(remote),
                "publications": [Publication(**item) for item in raw["publications"]],
                "listens": [Listen(**item) for item in raw["listens"]],
                "ports": [PortSpan(**{**item, "hosts": tuple(item["hosts"])}) for item in raw["ports"]],
                "links": [tuple(item) for item in raw["links"]],
            }
        )


@dataclass(slots=True, eq=False)
class SandboxRecord:
    """The network state of a running container. ``path`` is its namespace, empty for the host's or another
    container's. ``pending`` are endpoints that a plugin is creating or removing: after a crash they are removed."""

    container: str
    id: str
    mode: str  # own, host, none or container
    path: str = ""
    joins: str = ""
    endpoints: list[Endpoint] = field(default_factory=list)
    hosts: list[tuple[str, str]] = field(default_factory=list)  # additional lines of /etc/hosts: address, names
    pending: list[Endpoint] = field(default_factory=list)

    def endpoint(self, network: str) -> Endpoint | None:
        return next((endpoint for endpoint in self.endpoints if endpoint.network == network), None)

    def to_doc(self) -> bytes:
        return orjson.dumps(self, default=Listen._asdict)

    @classmethod
    def from_doc(cls, document: bytes) -> Self:
        raw: dict[str, Any] = orjson.loads(document)
        for name in ("endpoints", "pending"):
            raw[name] = [Endpoint.from_dict(item) for item in raw.get(name) or ()]
        raw["hosts"] = [tuple(item) for item in raw["hosts"]]
        return cls(**raw)


def settings_for(container_networking: Mapping[str, EndpointSettings], name: str) -> EndpointSettings:
    """The requested settings for one network; empty ones if there are none."""
    return container_networking.get(name) or EndpointSettings()
