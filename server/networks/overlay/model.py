"""What a swarm tells a node about its networks, and the contract of the networks service towards the swarm's agent."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from server.networks.model import ENCRYPTED, OVERLAY

#: Why a node can't take part in an encrypted network.
NO_ESP = "the kernel has no IPsec ESP (CONFIG_INET_ESP, module esp4)"


@dataclass(frozen=True, slots=True)
class SwarmNetwork:
    """A network of the swarm. ``subnets``: (subnet, gateway) in CIDR notation and as an address. ``vni``: the VXLAN
    network identifier.

    ``driver``: one other than "overlay" is node-local: each node makes a network of its own, with the subnets and the
    options of its configuration network ``config_from``, or with its defaults if that is "". The swarm knows none of
    them, and assigns no addresses.

    ``local``: the address of this node from which, and to which, VXLAN packets of the network go (RFC 7348), with
    ``port``, the UDP port of all nodes; "": the network has no other nodes, and no VXLAN device.

    ``node_address``: on the ingress network, this node's own address in CIDR notation: connections of the routing mesh
    come from it, so that a task on another node answers to this one; "": the network has no other nodes.
    """

    id: str
    name: str
    subnets: Sequence[tuple[str, str]] = ()
    vni: int = 0
    driver: str = OVERLAY
    config_from: str = ""
    mtu: int = 0
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    labels: Mapping[str, str] | None = None
    options: Mapping[str, str] | None = None
    ipam_options: Mapping[str, str] | None = None
    created_ns: int = 0
    local: str = ""
    port: int = 4789
    node_address: str = ""

    @property
    def node_local(self) -> bool:
        return self.driver != OVERLAY

    @property
    def encrypted(self) -> bool:
        """Whether its packets between the nodes are encrypted (IPsec ESP, RFC 4303): all those to its ``port``, which
        no other kind of network has."""
        return ENCRYPTED in (self.options or {})


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of all encrypted networks of a swarm, 32 bytes each. A node sends with ``primary`` and receives with all
    of them: nodes learn at different times that ``newer`` is the primary one."""

    older: bytes = field(repr=False)
    primary: bytes = field(repr=False)
    newer: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who has an address of a network on a node: a task, or the node itself on the ingress network. ``node``: the
    ``SwarmNetwork.local`` of that node. The link there has the MAC address ``02:42`` and the bytes of ``address``
    (IPv4), as ``server.networks.ipam.allocator.mac_from_address`` computes it."""

    address: str
    node: str


@dataclass(frozen=True, slots=True)
class Backend:
    """A running task on any node: its address on the network, and ``name``, the name of its container, which DNS
    answers too."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class ServiceAddresses:
    """A service on one network, or a container of a user on another node, whose ``service_id`` is the id of its task.
    ``names``: the service's name and its aliases there.

    Each name resolves to ``virtual_ip``, or, if that is "" (DNS round robin), to the addresses of the backends;
    ``tasks.<name>`` always resolves to those of the backends. Connections to the virtual address go to one of the
    backends, in turn; those that exist continue when the set changes, as long as their backend does.
    """

    service_id: str
    names: Sequence[str]
    virtual_ip: str
    backends: Sequence[Backend]


@dataclass(frozen=True, slots=True)
class MeshPort:
    """A port that every node publishes for a service (mode "ingress"). ``backends``: addresses of its running tasks on
    the ingress network, on any node. Without backends, connections are refused."""

    protocol: str
    published: int
    target: int
    backends: Sequence[str]


class OverlayNetworks(Protocol):
    """The networks of the swarm on this node. All methods are idempotent, and raise WharfError."""

    def realized(self) -> Collection[str]:
        """The ids of the networks that exist on this node, also those that an earlier daemon realized."""

    async def realize(self, network: SwarmNetwork) -> None:
        """Makes the network on this node with its id and name, so that containers can be attached to it. If it exists,
        only ``local``, ``port`` and ``node_address`` may differ, and are changed. A container's address on an overlay
        network is given by the swarm (``EndpointIPAMConfig``), and so is its MAC address (see ``Peer``).

        :raises WharfError: NOT_IMPLEMENTED: it is encrypted, and ``can_encrypt`` says no; NOT_FOUND: this node has no
            such configuration network; else as ``docker network create`` of the driver.
        """

    async def discard(self, network_id: str) -> None:
        """Removes the network from this node.

        :raises WharfError: CONFLICT: a container is attached to it.
        """

    async def connect(self, network_id: str, peers: Sequence[Peer]) -> None:
        """Replaces what a network that exists on this node knows of other nodes: where each address is. Peers whose
        node is this one (``SwarmNetwork.local``) are ignored."""

    async def can_encrypt(self) -> bool:
        """Whether this node can have encrypted networks."""

    async def encrypt(self, keys: Keyring) -> None:
        """Replaces the keys of the encrypted networks. Until the first call, their packets to and from other nodes are
        dropped, unless an earlier daemon of this machine had keys. The keys are in memory only.

        :raises WharfError: INTERNAL: the kernel refused.
        """

    async def balance(self, network_id: str, services: Sequence[ServiceAddresses]) -> None:
        """Replaces the names and the virtual addresses of services on a network that exists on this node."""

    async def publish(self, ports: Sequence[MeshPort]) -> None:
        """Replaces the ports of the routing mesh on this node.

        :raises WharfError: INTERNAL: a port is in use, which the message names; the others are published.
        """

    async def close_swarm(self) -> None:
        """The node leaves the swarm: removes all of its networks and mesh ports."""
