"""The predefined networks: bridge, host and none."""

import secrets
import time
from dataclasses import replace
from ipaddress import ip_interface, ip_network

from engine.common.errors import Kind, WharfError
from server.networks import options
from server.networks.bridges import default_bridge, devices
from server.networks.context import NetworkContext
from server.networks.ipam import allocator
from server.networks.ipam.pools import default_pools, subnets_in_use
from server.networks.model import BRIDGE, HOST, NULL, Network, PoolConfig
from server.networks.netlink.namespace_pool import mark
from server.networks.netlink.rtnetlink import Interface, Link

# The prefix length of the subnet of an owner's default bridge.
_OWNER_BITS = 24


async def ensure(context: NetworkContext) -> None:
    """Creates missing ones and updates the default bridge to the current flags.

    :raises WharfError: a flag that can't be satisfied.
    """
    for name, driver in (("none", NULL), ("host", HOST)):
        if context.by_name(name) is None:
            network = Network(secrets.token_hex(32), name, driver, time.time_ns(), predefined=True)
            context.add(network)
            await context.store.put(network)
    present = context.by_name("bridge")
    if context.config.bridge == "none":
        if present is not None:
            context.discard(present)
            await context.store.delete(present)
        return
    network = present or Network(secrets.token_hex(32), "bridge", BRIDGE, time.time_ns(), predefined=True)
    await _configure(context, network)
    if present is None:
        context.add(network)
    await context.store.put(network)


async def ensure_bridge(context: NetworkContext, owner: str) -> None:
    """Makes the network ``bridge`` of an owner, if it is missing: a bridge and a subnet of its own, with the options of
    the engine's default bridge. Nothing without a default bridge (``--bridge none``), nor for administrators.

    :raises WharfError: no subnet is free.
    """
    default = context.by_name("bridge")
    if not owner or default is None or context.of(owner).by_name("bridge") is not None:
        return
    routes = await context.run_in_thread(subnets_in_use, context.host)
    if context.of(owner).by_name("bridge") is not None:
        return  # another request has made it meanwhile
    taken = [subnet for other in context if not other.remote_ipam for subnet in other.subnets]
    # Small: there may be as many as users, and the pools are cut for networks with hundreds of containers.
    pools = [replace(pool, size=max(pool.size, _OWNER_BITS)) for pool in default_pools(context.pools, 4)]
    subnet = allocator.choose_subnet(pools, (*taken, *routes), version=4)
    network = Network(secrets.token_hex(32), "bridge", BRIDGE, time.time_ns(), owner=owner, predefined=True)
    network.bridge = f"br-{network.id[:12]}"
    network.ipam = [PoolConfig(str(subnet), gateway=str(subnet[1]))]
    network.pools = network.make_pools()
    network.options = {**default.options, options.NAME: network.bridge}
    context.add(network)
    try:
        await context.store.put(network)
    except BaseException:
        context.discard(network)
        raise


async def _configure(context: NetworkContext, network: Network) -> None:
    config = context.config
    network.bridge = config.bridge_device
    network.enable_ipv6 = config.ipv6
    known = {_version(pool): pool for pool in network.ipam or ()}
    device = await context.run_in_thread(_device_addresses, context, network.bridge)
    taken = [subnet for other in context if other is not network for subnet in other.subnets]
    routes = await context.run_in_thread(subnets_in_use, context.host)
    # Ignore the bridge's own route.
    routes = [route for route in routes if not any(route == address.network for address in device)]
    network.ipam = [_v4(context, known.get(4), device, [*taken, *routes])]
    if config.ipv6:
        network.ipam.append(_v6(context, known.get(6), device, [*taken, *routes]))
    network.pools = [pool.make_pool() for pool in network.ipam]
    network.options = {
        options.DEFAULT: "true",
        options.ICC: str(config.icc).lower(),
        options.MASQUERADE: str(config.ip_masq).lower(),
        options.BINDING4: config.ip or "0.0.0.0",
        options.NAME: network.bridge,
        options.MTU: str(config.mtu or 1500),
    }


def _version(pool: PoolConfig) -> int:
    return ip_network(pool.subnet).version


def _device_addresses(context: NetworkContext, name: str) -> list[Interface]:
    link = context.host.link(name)
    if link is None:
        if context.config.bridge not in ("", "none"):
            raise WharfError(
                Kind.INVALID_ARGUMENT, f"bridge device with non default name {name} must be created manually"
            )
        return []
    if context.config.bridge in ("", "none"):
        _check_alone(context, link)
    return [address for index, address in context.host.addresses(link.index) if index == link.index]


def _check_alone(context: NetworkContext, link: Link) -> None:
    """Two engines on one bridge would allocate the same addresses."""
    own_mark = mark(context.config.network_name)
    others = [port.name for port in context.host.links() if port.master == link.index and port.alias != own_mark]
    if others and link.alias != own_mark:
        raise WharfError(
            Kind.INVALID_ARGUMENT,
            f"bridge {link.name} is in use by another engine ({', '.join(others)} plugged in): "
            "choose another one with --bridge-name, or use --bridge to share it",
        )


def _v4(
    context: NetworkContext, known: PoolConfig | None, device: list[Interface], taken: list[allocator.Network]
) -> PoolConfig:
    config = context.config
    fixed = ip_interface(config.fixed_cidr) if config.fixed_cidr else None
    found = ip_interface(config.bip) if config.bip else default_bridge.address(context, known, device, fixed, 4)
    if found is None and config.bridge and fixed is None:
        raise WharfError(Kind.INVALID_ARGUMENT, f"bridge {config.bridge} has no IPv4 address")
    if found is None:
        pools = [pool for pool in context.pools if pool.base.version == 4] or allocator.LOCAL_DEFAULTS
        subnet = fixed.network if fixed is not None else allocator.choose_subnet(pools, taken, version=4)
        found = ip_interface(f"{subnet[1]}/{subnet.prefixlen}")
    return default_bridge.pool(context, found, fixed, config.default_gateway)


def _v6(
    context: NetworkContext, known: PoolConfig | None, device: list[Interface], taken: list[allocator.Network]
) -> PoolConfig:
    config = context.config
    fixed = ip_interface(config.fixed_cidr_v6) if config.fixed_cidr_v6 else None
    found = ip_interface(config.bip6) if config.bip6 else default_bridge.address(context, known, device, fixed, 6)
    if found is None:
        pools = list(default_pools(context.pools, 6))
        subnet = fixed.network if fixed is not None else allocator.choose_subnet(pools, taken, version=6)
        found = ip_interface(f"{subnet[1]}/{subnet.prefixlen}")
    return default_bridge.pool(context, found, fixed, config.default_gateway_v6)


async def make_devices(context: NetworkContext) -> None:
    """Creates the default bridge's device, at start."""
    network = context.by_name("bridge")
    if network is not None:
        await context.run_in_thread(devices.make_device, context, network)
