"""``NetworkSettings`` of a container, before, during and after its run, as dockerd shows them."""

from collections.abc import Mapping
from dataclasses import replace

from api_models.container import NetworkSettings, PortBinding
from api_models.network import EndpointSettings
from server.containers.model import Container
from server.networks import endpoints
from server.networks.context import NetworkContext
from server.networks.model import BRIDGE, Endpoint, Network, SandboxRecord
from server.networks.ports import portmap

_UNASSIGNED = Endpoint(id="", network="", container="", name="")


def settings(context: NetworkContext, container: Container) -> NetworkSettings:
    """Return inspect's ``NetworkSettings``."""
    record = context.sandboxes.get(container.id)
    # dockerd has no sandbox if the network is disabled.
    shown = None if container.config.network_disabled else record
    known = context.of(container.owner)
    bridge = known.by_name("bridge")
    on_bridge = record is not None and record.mode == "own" and bridge is not None and record.endpoint(bridge.id)
    networks = {}
    for name, requested in container.networking.items():
        network = known.by_name(name)
        endpoint = record.endpoint(network.id) if record and network else None
        networks[name] = _endpoint(container, network, requested, endpoint)
    # The default bridge's endpoint is also shown at the top, for clients older than networks.
    top = (networks.get("bridge") if on_bridge else None) or EndpointSettings()
    return NetworkSettings(
        # dockerd shows the name only of an administrator's bridge (--bridge).
        bridge=context.config.bridge if on_bridge and context.config.bridge != "none" else "",
        sandbox_id=shown.id if shown else "",
        sandbox_key=_key(context, shown),
        ports=_ports(context, container, record),
        endpoint_id=top.endpoint_id,
        gateway=top.gateway,
        global_ipv6_address=top.global_ipv6_address,
        global_ipv6_prefix_len=top.global_ipv6_prefix_len,
        ip_address=top.ip_address,
        ip_prefix_len=top.ip_prefix_len,
        ipv6_gateway=top.ipv6_gateway,
        mac_address=top.mac_address,
        networks=networks,
    )


def _key(context: NetworkContext, record: SandboxRecord | None) -> str:
    if record is None:
        return ""
    if record.mode == "host":
        return f"{context.config.exec_root}/netns/default"
    return record.path


def _ports(
    context: NetworkContext, container: Container, record: SandboxRecord | None
) -> Mapping[str, tuple[PortBinding, ...] | None]:
    if record is None or not any(context.networks[item.network].driver == BRIDGE for item in record.endpoints):
        return {}  # only bridges publish
    spans = [span for endpoint in record.endpoints for span in endpoint.ports]
    return portmap.inspect_ports(spans, container.config, container.host_config)


def _endpoint(
    container: Container, network: Network | None, requested: EndpointSettings, endpoint: Endpoint | None
) -> EndpointSettings:
    names = requested.dns_names
    if network is not None and container.started_before:
        names = tuple(endpoints.dns_names(container, requested, network)) or None
    # Before the first start, dockerd has not looked up the network.
    network_id = network.id if network is not None and (endpoint or container.started_before) else ""
    assigned = endpoint or _UNASSIGNED
    return replace(
        requested,
        mac_address=endpoint.mac if endpoint else requested.mac_address,
        network_id=network_id,
        endpoint_id=assigned.id,
        gateway=assigned.gateway4,
        ip_address=assigned.ip4,
        ip_prefix_len=int(assigned.address4.partition("/")[2] or 0),
        ipv6_gateway=assigned.gateway6,
        global_ipv6_address=assigned.ip6,
        global_ipv6_prefix_len=int(assigned.address6.partition("/")[2] or 0),
        dns_names=names,
    )
