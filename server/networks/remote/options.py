"""The options of the driver protocol, with the reference's labels and Go's JSON forms."""

import base64
from collections.abc import Sequence
from ipaddress import ip_network

from api_models.network import EndpointSettings
from server.config.model import Config
from server.containers.plan import ContainerPlan
from server.networks.model import Network, PoolConfig, SandboxRecord
from server.networks.ports import portmap

_PREFIX = "com.docker.network"
PORTS = f"{_PREFIX}.portmap"
EXPOSED = f"{_PREFIX}.endpoint.exposedports"
NO_IPV6_PROXY = f"{_PREFIX}.driver.private.no_proxy_6to4"
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


def network_options(network: Network) -> dict[str, object]:
    """``Options`` of ``CreateNetwork`` and ``GwAllocCheck``."""
    found: dict[str, object] = {
        f"{_PREFIX}.generic": dict(network.options),
        f"{_PREFIX}.enable_ipv4": network.enable_ipv4,
        f"{_PREFIX}.enable_ipv6": network.enable_ipv6,
    }
    if network.internal:
        found[f"{_PREFIX}.internal"] = True
    return found


def pool_data(network: Network, version: int) -> list[dict[str, object]]:
    """``IPv4Data`` or ``IPv6Data`` of ``CreateNetwork``."""
    if not network.enables(version):
        return []
    if network.ipam_driver == "null":
        return [{"AddressSpace": "null", "Pool": "0.0.0.0/0" if version == 4 else "::/0"}]
    space = network.address_space if network.remote_ipam else "LocalDefault"
    configs = [config for config in network.ipam or () if ip_network(config.subnet).version == version]
    return [_pool(config, space) for config in configs]


def _pool(config: PoolConfig, space: str) -> dict[str, object]:
    bits = ip_network(config.subnet).prefixlen
    found: dict[str, object] = {"AddressSpace": space, "Pool": config.subnet}
    if config.gateway:
        found["Gateway"] = f"{config.gateway}/{config.gateway_bits or bits}"
    if config.aux:
        found["AuxAddresses"] = {name: f"{address}/{bits}" for name, address in config.aux.items()}
    return found


def endpoint_options(
    config: Config, container: ContainerPlan, network: Network, settings: EndpointSettings, record: SandboxRecord
) -> dict[str, object]:
    """``Options`` of ``CreateEndpoint``. One network of the container has its ports, if it isn't internal."""
    found: dict[str, object] = dict(settings.driver_opts or {})
    servers = container.host_config.dns or config.dns
    if not network.internal:
        if not any(endpoint.ports for endpoint in record.endpoints):
            bound = container.host_config.port_bindings or {}
            public = container.host_config.publish_all_ports
            exposed = portmap.exposed(container.config, container.host_config)
            ports = [port for port in exposed if public or f"{port[0]}/{port[1]}" in bound]
            found |= {PORTS: _published(container), EXPOSED: _exposed(ports)}
        if servers:
            found[f"{_PREFIX}.endpoint.dnsservers"] = list(servers)
    if settings.mac_address:
        octets = bytes.fromhex(settings.mac_address.replace(":", "").replace("-", ""))
        found[f"{_PREFIX}.endpoint.macaddress"] = base64.b64encode(octets).decode()
    return found


def sandbox_options(container: ContainerPlan) -> dict[str, object]:
    """``Options`` of ``Join`` and ``ProgramExternalConnectivity``."""
    exposed = portmap.exposed(container.config, container.host_config)
    return {PORTS: _published(container), EXPOSED: _exposed(exposed)}


def _published(container: ContainerPlan) -> list[dict[str, object]]:
    ports = portmap.port_requests(container.config, container.host_config, ())
    return [_binding(item, host) for item in ports for host in item.hosts or ("",)]


def _binding(port: portmap.PortRequest, host: str) -> dict[str, object]:
    return {
        "Proto": _PROTOCOLS[port.protocol],
        "IP": "",
        "Port": port.port,
        "HostIP": host,
        "HostPort": port.first,
        "HostPortEnd": port.last,
    }


def _exposed(ports: Sequence[tuple[int, str]]) -> list[dict[str, int]]:
    return [{"Proto": _PROTOCOLS[protocol], "Port": port} for port, protocol in ports]
