"""The record of a network of the swarm, and the request with which a node makes a node-local one."""

from ipaddress import ip_network

from api_models.network import ConfigReference, NetworkCreateRequest
from server.networks import options
from server.networks.model import Network, PoolConfig
from server.networks.overlay.model import SwarmNetwork


def record(network: SwarmNetwork) -> Network:
    """The record of an overlay network on this node; for a node-local one, what all nodes have in common."""
    made = Network(
        id=network.id,
        name=network.name,
        driver=network.driver,
        created_ns=network.created_ns,
        scope="swarm",
        enable_ipv6=any(ip_network(subnet).version == 6 for subnet, _ in network.subnets),
        internal=network.internal,
        attachable=network.attachable,
        ingress=network.ingress,
        config_from=network.config_from,
        ipam_options=dict(network.ipam_options) if network.ipam_options else None,
        ipam=[PoolConfig(subnet, gateway=address, configured=True) for subnet, address in network.subnets],
        options=dict(network.options or {}),
        labels=dict(network.labels or {}),
    )
    if network.node_local:
        made.ipam_driver = ""
        return made
    made.bridge = f"br-{network.id[:12]}"
    made.options[options.VNI] = str(network.vni)
    place(made, network)
    if network.mtu:
        made.options[options.MTU] = str(network.mtu)
    made.pools = made.make_pools()
    return made


def place(made: Network, network: SwarmNetwork) -> None:
    """Sets what depends on the other nodes."""
    made.vxlan_local, made.vxlan_port = network.local, network.port if network.local else 0
    made.node_address = network.node_address


def request(network: SwarmNetwork) -> NetworkCreateRequest:
    """The request for a node-local network."""
    return NetworkCreateRequest(
        name=network.name,
        driver=network.driver,
        internal=network.internal,
        attachable=network.attachable,
        config_from=ConfigReference(network=network.config_from),
        labels=network.labels,
    )
