"""The record of a network of the swarm."""

from ipaddress import ip_network

from server.networks import options
from server.networks.model import OVERLAY, Network, PoolConfig
from server.networks.overlay.model import OverlayNetwork


def record(network: OverlayNetwork) -> Network:
    """The record of the network on this node."""
    made = Network(
        id=network.id,
        name=network.name,
        driver=OVERLAY,
        created_ns=network.created_ns,
        scope="swarm",
        enable_ipv6=any(ip_network(subnet).version == 6 for subnet, _ in network.subnets),
        internal=network.internal,
        attachable=network.attachable,
        ingress=network.ingress,
        ipam_options=dict(network.ipam_options) if network.ipam_options else None,
        ipam=[PoolConfig(subnet, gateway=address, configured=True) for subnet, address in network.subnets],
        options={**(network.options or {}), options.VNI: str(network.vni)},
        labels=dict(network.labels or {}),
        bridge=f"br-{network.id[:12]}",
    )
    place(made, network)
    if network.mtu:
        made.options[options.MTU] = str(network.mtu)
    made.pools = made.make_pools()
    return made


def place(made: Network, network: OverlayNetwork) -> None:
    """Sets what depends on the other nodes."""
    made.vxlan_local, made.vxlan_port = network.local, network.port if network.local else 0
    made.node_address = network.node_address
