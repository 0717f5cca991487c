"""The firewall's elements of endpoints: published ports, and the ports that legacy links open."""

from engine.common.errors import Kind, WharfError
from server.containers.plan import ContainerPlan
from server.networks import links, options
from server.networks.context import NetworkContext
from server.networks.model import BRIDGE, Endpoint, SandboxRecord
from server.networks.nftables import rules
from server.networks.nftables.mesh import Element
from server.networks.nftables.rules import LinkRule
from server.networks.ports import portmap


def of_endpoint(endpoint: Endpoint) -> list[Element]:
    """The firewall's elements of an endpoint."""
    found = rules.port_elements(endpoint.publications)
    return found + rules.link_elements(LinkRule(*item) for item in endpoint.links)


def refresh(context: NetworkContext, endpoint: Endpoint) -> None:
    """In a thread: replaces the firewall's elements of an endpoint whose ports or links changed while it was
    attached."""
    context.firewall.remove(endpoint.id)
    if found := of_endpoint(endpoint):
        context.firewall.add(endpoint.id, found)


def open_links(context: NetworkContext, container: ContainerPlan, record: SandboxRecord) -> None:
    """On a bridge with icc disabled, a link opens the server's exposed ports to the client."""
    for other, _ in links.legacy(context, container):
        server = context.sandboxes.get(other.id)
        if server is None:
            raise WharfError(
                Kind.INTERNAL, f"Cannot link to a non running container: /{other.name} AS /{container.name}"
            )
        for endpoint in record.endpoints:
            network = context.networks[endpoint.network]
            there = server.endpoint(network.id)
            if there is None or network.driver != BRIDGE or options.flag(network.options, options.ICC, default=True):
                continue
            for port, protocol in portmap.exposed(other.config, other.host_config):
                for client, target in ((endpoint.ip4, there.ip4), (endpoint.ip6, there.ip6)):
                    if client and target:
                        endpoint.links.append((client, target, protocol, port))


def close_links(context: NetworkContext, container: ContainerPlan, record: SandboxRecord) -> None:
    """In a thread: closes the ports that links had opened to a running client which has these links no more."""
    servers = [context.sandboxes.get(other.id) for other, _ in links.legacy(context, container, strict=False)]
    linked = {address for server in servers if server for item in server.endpoints for address in (item.ip4, item.ip6)}
    for endpoint in record.endpoints:
        kept = [link for link in endpoint.links if link[1] in linked]
        if kept != endpoint.links:
            endpoint.links = kept
            refresh(context, endpoint)
