"""What a swarm tells a node about its networks, and the contract of the networks service towards the swarm's agent."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class OverlayNetwork:
    """A network of the swarm. ``subnets``: (subnet, gateway) in CIDR notation and as an address. ``vni``: the VXLAN
    network identifier."""

    id: str
    name: str
    subnets: Sequence[tuple[str, str]]
    vni: int
    mtu: int = 0
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    labels: Mapping[str, str] | None = None
    options: Mapping[str, str] | None = None
    created_ns: int = 0


@dataclass(frozen=True, slots=True)
class Backend:
    """A running task: its address on the network, and ``name``, the name of its container, which DNS answers too."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class ServiceAddresses:
    """A service on one network. ``names``: the service's name and its aliases there.

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

    async def realize(self, network: OverlayNetwork) -> None:
        """Makes the network on this node with its id and name, unless it exists, so that containers can be attached to
        it. A container's address on it is given by the swarm (``EndpointIPAMConfig``)."""

    async def discard(self, network_id: str) -> None:
        """Removes the network from this node.

        :raises WharfError: CONFLICT: a container is attached to it.
        """

    async def balance(self, network_id: str, services: Sequence[ServiceAddresses]) -> None:
        """Replaces the names and the virtual addresses of services on a network that exists on this node."""

    async def publish(self, ports: Sequence[MeshPort]) -> None:
        """Replaces the ports of the routing mesh on this node.

        :raises WharfError: INTERNAL: a port is in use, which the message names; the others are published.
        """

    async def close_swarm(self) -> None:
        """The node leaves the swarm: removes all of its networks and mesh ports."""
