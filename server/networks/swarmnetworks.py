"""What the networks service needs of a swarm: ``NetworkContext.swarm`` and ``NetworkContext.attacher``, None on a node
that is part of none, or no manager. ``server.swarm`` implements them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from api_models.network import EndpointIPAMConfig, NetworkCreateRequest
from server.networks.model import Network, PoolConfig


class SwarmNetworks(Protocol):
    """All networks of the swarm, also those that are not on this node. A record is a copy, which the context does not
    have."""

    def networks(self) -> Sequence[Network]:
        """By name."""

    def find(self, key: str) -> Network | None:
        """A network by its id, its name, or a prefix of its id. ``pools`` shows which addresses are in use.

        :raises WharfError: INVALID_ARGUMENT: several ids begin with it.
        """

    def details(self, network: Network, *, verbose: bool) -> Mapping[str, Any]:
        """What inspect shows of a network that is on this node: ``Peers``, with ``verbose`` also ``Services``."""

    async def create(self, request: NetworkCreateRequest, pools: Sequence[PoolConfig]) -> Network:
        """``pools``: the checked subnets of the request.

        :raises WharfError: CONFLICT: the name is in use; INVALID_ARGUMENT; NOT_IMPLEMENTED; PERMISSION_DENIED: a subnet
            is in use.
        """

    async def remove(self, network_id: str) -> None:
        """:raises WharfError: NOT_FOUND; INVALID_ARGUMENT: a service or a task uses it."""


class Attacher(Protocol):
    """Attaches containers that are not of tasks to networks of the swarm."""

    async def attach(
        self, container: str, key: str, addresses: Sequence[str], names: Sequence[str]
    ) -> tuple[str, EndpointIPAMConfig | None]:
        """Returns the network's id and the addresses that the swarm has assigned, None if this node assigns them, when
        the network is on this node.

        ``key``: the network's id or name. ``addresses``: those that the user wants. ``names``: those by which
        containers on other nodes find it.

        :raises WharfError: ``Could not attach to network …``: there is none, users may not attach to it, an address is
            in use, or the managers don't answer.
        """

    async def detach(self, container: str, network_id: str) -> None:
        """Releases the addresses. Does nothing if the container isn't attached by ``attach``."""
