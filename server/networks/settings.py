"""``NetworkSettings`` of a container, before, during and after its run, in dockerd's form."""

from collections.abc import Sequence
from typing import Any

from api_models.network import EndpointSettings
from server.containers.model import Container
from server.networks import endpoints
from server.networks.context import NetworkContext
from server.networks.model import BRIDGE, Endpoint, Network, SandboxRecord
from server.networks.ports import portmap


def settings(context: NetworkContext, container: Container) -> dict[str, Any]:
    """inspect's ``NetworkSettings`` (a new dict)."""
    record = context.sandboxes.get(container.id)
    # dockerd has no sandbox if the network is disabled.
    shown = None if container.config.network_disabled else record
    bridge = context.by_name("bridge")
    on_bridge = record.endpoint(bridge.id) if record and bridge and record.mode == "own" else None
    found: dict[str, Any] = {
        # dockerd shows the name only of an administrator's bridge (--bridge).
        "Bridge": context.config.bridge if on_bridge and context.config.bridge != "none" else "",
        "SandboxID": shown.id if shown else "",
        "SandboxKey": _key(context, shown),
        "Ports": _ports(context, container, record),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
    }
    networks = {}
    for name, wanted in container.networking.items():
        network = context.by_name(name)
        endpoint = record.endpoint(network.id) if record and network else None
        networks[name] = _endpoint(container, network, wanted, endpoint)
    if on_bridge is not None:
        # The default bridge's endpoint is also shown at the top, for clients older than networks.
        for key in ("EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress"):
            found[key] = networks["bridge"][key] if "bridge" in networks else found[key]
        for key in ("GlobalIPv6Address", "GlobalIPv6PrefixLen"):
            found[key] = networks["bridge"][key] if "bridge" in networks else found[key]
    found["Networks"] = networks
    return found


def _key(context: NetworkContext, record: SandboxRecord | None) -> str:
    if record is None:
        return ""
    if record.mode == "host":
        return f"{context.config.exec_root}/netns/default"
    return record.path


def _ports(
    context: NetworkContext, container: Container, record: SandboxRecord | None
) -> dict[str, list[dict[str, str]] | None]:
    if record is None or not any(context.networks[item.network].driver == BRIDGE for item in record.endpoints):
        return {}  # only bridges publish
    spans = [span for endpoint in record.endpoints for span in endpoint.ports]
    return portmap.inspect_ports(spans, container.config, container.host_config)


def _endpoint(
    container: Container, network: Network | None, wanted: EndpointSettings, endpoint: Endpoint | None
) -> dict[str, Any]:
    names: Sequence[str] | None = wanted.dns_names
    if network is not None and container.started_before:
        names = endpoints.dns_names(container, wanted, network) or None
    # Before the first start, dockerd has not looked up the network.
    network_id = network.id if network is not None and (endpoint or container.started_before) else ""
    asked = wanted.wire()
    prefix4 = int(endpoint.address4.partition("/")[2] or 0) if endpoint else 0
    prefix6 = int(endpoint.address6.partition("/")[2] or 0) if endpoint else 0
    return {
        **asked,
        "MacAddress": endpoint.mac if endpoint else wanted.mac_address,
        "NetworkID": network_id,
        "EndpointID": endpoint.id if endpoint else "",
        "Gateway": endpoint.gateway4 if endpoint else "",
        "IPAddress": endpoint.ip4 if endpoint else "",
        "IPPrefixLen": prefix4,
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": endpoint.ip6 if endpoint else "",
        "GlobalIPv6PrefixLen": prefix6,
        "DNSNames": None if names is None else list(names),
    }
