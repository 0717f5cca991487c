"""What the operations on networks need of plugins. ``server/networks/remote`` implements it.

No other module of this package imports that room: ``NetworkContext.remote`` loads it when the first network with a
plugin as its driver or IPAM driver is created or found in the database.
"""

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

from api_models.network import EndpointSettings
from server.containers.plan import ContainerPlan
from server.networks.model import Endpoint, Network, PoolConfig, SandboxRecord


class RemoteNetworks(Protocol):
    """Networks that use plugins. Every call of a plugin has the deadline ``network.plugin``; its failure is a
    WharfError with the reference's sentence, INTERNAL unless stated otherwise.

    A network's calls come in this order: :meth:`resolve`, :meth:`skips_gateway`, :meth:`request_pools`,
    :meth:`create_network`, and at its end :meth:`delete_network`. Those of an endpoint: :meth:`create_endpoint`,
    :meth:`join`, :meth:`program`, :meth:`leave`, :meth:`release_endpoint`.
    """

    async def resolve(self, network: Network, scope: str) -> None:
        """Activates the network's plugins and sets its scope. ``scope``: the one requested, "" for the driver's.

        :raises WharfError: NOT_FOUND: there is no such plugin; PERMISSION_DENIED: the driver has another scope.
        """

    async def skips_gateway(self, network: Network) -> tuple[bool, bool]:
        """Whether the driver needs no address of an IPv4 and an IPv6 gateway."""

    async def request_pools(
        self, network: Network, requested: Sequence[PoolConfig], skips: tuple[bool, bool], undo: AsyncExitStack
    ) -> None:
        """Sets ``network.ipam`` to the subnets, gateways and auxiliary addresses that the IPAM plugin allocates.
        ``undo`` releases them. ``skips``: no IPv4 and IPv6 gateway unless one is requested."""

    async def create_network(self, network: Network, undo: AsyncExitStack) -> None:
        """Creates it at its driver, after storing it as unfinished: the next start removes what a crash leaves."""

    async def delete_network(self, network: Network) -> None:
        """Deletes it at its driver and releases its subnets. A plugin that fails is logged; the network is gone.

        :raises WharfError: the driver is not there and was not used by this daemon. The network stays, marked as
            unfinished; the next start removes it.
        """

    async def create_endpoint(
        self, container: ContainerPlan, network: Network, settings: EndpointSettings, record: SandboxRecord
    ) -> Endpoint:
        """As ``endpoints.create``. The endpoint is added to ``record.pending``, and stored there before the driver
        creates it; the caller removes it. :meth:`release_endpoint` undoes it."""

    async def release_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        """Deletes the endpoint at its driver and releases its addresses. Failures are logged."""

    async def join(self, container: ContainerPlan, record: SandboxRecord, endpoint: Endpoint) -> None:
        """Joins the endpoint to the record's namespace, which exists. Sets the endpoint's gateways and ``remote``; the
        link is moved by ``sandbox.attach_interface``. :meth:`leave` undoes it."""

    async def leave(self, record: SandboxRecord, endpoints: Iterable[Endpoint]) -> None:
        """Tells the plugins that joined endpoints leave the namespace; their links return to the host. If a plugin does
        not answer, this is logged, and its link stays: it is removed with the namespace. A second call does nothing."""

    async def program(self, container: ContainerPlan, record: SandboxRecord) -> None:
        """Tells plugins which endpoints the container's outgoing traffic leaves by, if that has changed.

        :raises WharfError: ``driver failed programming external connectivity on endpoint …``
        """

    async def check(self, network: Network) -> None:
        """Before an endpoint leaves it.

        :raises WharfError: the driver is not there and was not used by this daemon.
        """

    async def wait_for(self, networks: Iterable[Network]) -> None:
        """At the daemon's start: waits for the plugins of these networks, which may start at the same time. Returns
        also if they aren't there in time."""

    async def recover(self, records: Sequence[SandboxRecord]) -> None:
        """At the daemon's start, with the records of running containers: removes unfinished networks and endpoints,
        and replays the requests to IPAM plugins that want it. Waits for a plugin that isn't there in the
        background."""
