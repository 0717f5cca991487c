"""A container's published ports: allocates and binds them, and assigns them to the endpoint of its outgoing traffic."""

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass

from engine.common.errors import Kind, WharfError
from engine.proxy.forward import Listen
from server.containers.plan import ContainerPlan
from server.networks import endpoints, options
from server.networks.context import NetworkContext
from server.networks.model import BRIDGE, Endpoint, Network, SandboxRecord
from server.networks.ports import portmap
from server.networks.ports.allocator import PortRange
from server.networks.proxy_client import PortInUse


@dataclass(frozen=True, slots=True)
class _Publisher:
    endpoint: Endpoint
    target: portmap.Target


def _publisher(context: NetworkContext, record: SandboxRecord) -> _Publisher | None:
    """The endpoint that publishes ports: the one of the outgoing traffic, if it is on a bridge."""
    candidates = [item for item in record.endpoints if context.networks[item.network].driver == BRIDGE]
    first4, first6 = endpoints.default_gateways(context.networks, candidates)
    endpoint = first4 or first6
    return _Publisher(endpoint, _target(context, endpoint)) if endpoint is not None else None


def _target(context: NetworkContext, endpoint: Endpoint) -> portmap.Target:
    network = context.networks[endpoint.network]
    translates = ("nat", "nat-unprotected")
    return portmap.Target(
        network.bridge,
        endpoint.ip4,
        endpoint.ip6,
        nat4=(network.option(options.MODE4) or "nat") in translates,
        nat6=(network.option(options.MODE6) or "nat") in translates,
        carry=context.config.userland_proxy,
        v6_host=os.path.exists("/proc/net/if_inet6"),
    )


def publisher(context: NetworkContext, record: SandboxRecord) -> Endpoint | None:
    """The endpoint that publishes the container's ports."""
    found = _publisher(context, record)
    return found.endpoint if found else None


async def publish(
    context: NetworkContext, container: ContainerPlan, record: SandboxRecord, undo: AsyncExitStack
) -> None:
    """Allocates and binds the container's host ports; the rules follow with the interface.

    Its other endpoints on routed networks are open without host ports.

    :raises WharfError: ``driver failed programming external connectivity on endpoint …``; PERMISSION_DENIED: the
        owner's role has a range of ports, and none of them is free.
    """
    through = _publisher(context, record)
    for other in record.endpoints:
        if through is None or other is not through.endpoint:
            open_routed(context, container, other)
    if through is None:
        return
    endpoint, network = through.endpoint, context.networks[through.endpoint.network]
    defaults = _default_hosts(context, network)
    port_requests = portmap.port_requests(container.config, container.host_config, defaults)
    if not port_requests:
        return
    own = await context.own_ports(container.owner)
    taken_by_others: set[tuple[str, int]] = set()
    for attempt in range(256):
        try:
            found = portmap.allocate(
                context.ports, endpoint.id, port_requests, through.target, lambda *port: port in taken_by_others, own
            )
        except WharfError as error:
            if attempt == 0 and context.ending:
                await context.wait_teardowns()
                continue
            if error.kind is Kind.PERMISSION_DENIED:
                raise
            raise _external(endpoint, error) from None
        undo.callback(context.ports.release, endpoint.id)
        try:
            if found.listens:
                await context.forwarder.publish(endpoint.id, found.listens)
                undo.push_async_callback(context.forwarder.release, endpoint.id)
        except PortInUse as error:
            context.ports.release(endpoint.id)
            random = next((key for key in found.random if key[1] == error.port), None)
            if random is not None:
                taken_by_others.add(random)
                continue
            protocol = next((item.protocol for item in found.listens if _covers(item, error.port)), "tcp")
            sentence = portmap.in_use_sentence(protocol, error.host, error.port, error.message)
            raise _external(endpoint, WharfError(Kind.INTERNAL, sentence)) from None
        except WharfError as error:
            context.ports.release(endpoint.id)
            raise _external(endpoint, error) from None
        endpoint.publications, endpoint.listens, endpoint.ports = found.publications, found.listens, found.ports
        return
    raise _external(endpoint, WharfError(Kind.INTERNAL, "no host port is free"))


def open_routed(context: NetworkContext, container: ContainerPlan, endpoint: Endpoint) -> None:
    """Opens the container's ports on an endpoint by which its traffic doesn't leave, if the network is routed."""
    network = context.networks[endpoint.network]
    if network.driver != BRIDGE or network.internal:
        return
    target = _target(context, endpoint)
    if target.nat4 and target.nat6:
        return
    requests = portmap.port_requests(container.config, container.host_config, _default_hosts(context, network))
    found = portmap.open_routed(requests, target)
    endpoint.publications, endpoint.listens, endpoint.ports = found.publications, [], found.ports


def holds_host_ports(endpoint: Endpoint) -> bool:
    """Whether the container's host ports are published on the endpoint."""
    return any(span.host_port for span in endpoint.ports)


def port_range(listen: Listen, host: str) -> PortRange:
    """The host ports that a listening entry binds at one address."""
    return PortRange(listen.protocol, host, listen.port, listen.port + listen.size - 1)


def _covers(listen: Listen, port: int) -> bool:
    return listen.port <= port < listen.port + listen.size


def _external(endpoint: Endpoint, error: WharfError) -> WharfError:
    return WharfError(
        Kind.INTERNAL,
        f"driver failed programming external connectivity on endpoint {endpoint.name} ({endpoint.id}): {error.message}",
    )


def _default_hosts(context: NetworkContext, network: Network) -> list[str]:
    """The host addresses for a published port without one."""
    chosen = [item for item in (network.option(options.BINDING4), network.option(options.BINDING6)) if item]
    if network.option(options.BINDING4) == "::":
        return ["0.0.0.0", "::"]
    if not chosen and context.config.ip not in ("", "0.0.0.0"):
        chosen = [context.config.ip]
    return [item for item in chosen if item != "0.0.0.0"] or ["0.0.0.0", "::"]
