"""The predefined networks: bridge, host and none."""

import secrets
import time
from ipaddress import ip_interface, ip_network

from engine.common.errors import Kind, WharfError
from server.networks import options
from server.networks.bridges import attach, default_bridge
from server.networks.context import Room
from server.networks.ipam import allocator
from server.networks.ipam.pools import default_pools
from server.networks.model import BRIDGE, HOST, NULL, Network, PoolConfig
from server.networks.netlink.namespace_pool import mark
from server.networks.netlink.rtnetlink import Interface, Link
from server.networks.sandbox import subnets_in_use


async def ensure(room: Room) -> None:
    """Creates missing ones and updates the default bridge to the current flags.

    :raises WharfError: a flag that can't be satisfied.
    """
    for name, driver in (("none", NULL), ("host", HOST)):
        if room.by_name(name) is None:
            network = Network(secrets.token_hex(32), name, driver, time.time_ns(), predefined=True)
            room.add(network)
            await room.store.put(network)
    present = room.by_name("bridge")
    if room.config.bridge == "none":
        if present is not None:
            room.discard(present)
            await room.store.delete(present)
        return
    network = present or Network(secrets.token_hex(32), "bridge", BRIDGE, time.time_ns(), predefined=True)
    await _configure(room, network)
    if present is None:
        room.add(network)
    await room.store.put(network)


async def _configure(room: Room, network: Network) -> None:
    settings = room.config
    network.bridge = room.config.bridge_device
    network.enable_ipv6 = settings.ipv6
    known = {_version(config): config for config in network.ipam or ()}
    device = await room.work(_device_addresses, room, network.bridge)
    taken = [subnet for other in room if other is not network for subnet in other.subnets]
    routes = await room.work(subnets_in_use, room.host)
    # Ignore the bridge's own route.
    routes = [route for route in routes if not any(route == address.network for address in device)]
    configs = [_v4(room, known.get(4), device, [*taken, *routes])]
    if settings.ipv6:
        configs.append(_v6(room, known.get(6), device, [*taken, *routes]))
    network.ipam = configs
    network.pools = [config.make_pool() for config in configs]
    network.options = {
        options.DEFAULT: "true",
        options.ICC: str(settings.icc).lower(),
        options.MASQUERADE: str(settings.ip_masq).lower(),
        options.BINDING4: settings.ip or "0.0.0.0",
        options.NAME: network.bridge,
        options.MTU: str(settings.mtu or 1500),
    }


def _version(config: PoolConfig) -> int:
    return ip_network(config.subnet).version


def _device_addresses(room: Room, name: str) -> list[Interface]:
    link = room.host.link(name)
    if link is None:
        if room.config.bridge not in ("", "none"):
            raise WharfError(
                Kind.INVALID_ARGUMENT, f"bridge device with non default name {name} must be created manually"
            )
        return []
    if room.config.bridge in ("", "none"):
        _check_alone(room, link)
    return [address for index, address in room.host.addresses(link.index) if index == link.index]


def _check_alone(room: Room, link: Link) -> None:
    """Two engines on one bridge would allocate the same addresses."""
    ours = mark(room.config.network_name)
    others = [port.name for port in room.host.links() if port.master == link.index and port.alias != ours]
    if others and link.alias != ours:
        raise WharfError(
            Kind.INVALID_ARGUMENT,
            f"bridge {link.name} is in use by another engine ({', '.join(others)} plugged in): "
            "choose another one with --bridge-name, or use --bridge to share it",
        )


def _v4(room: Room, known: PoolConfig | None, device: list[Interface], taken: list[allocator.Network]) -> PoolConfig:
    settings = room.config
    fixed = ip_interface(settings.fixed_cidr) if settings.fixed_cidr else None
    found = ip_interface(settings.bip) if settings.bip else default_bridge.address(room, known, device, fixed, 4)
    if found is None and settings.bridge and fixed is None:
        raise WharfError(Kind.INVALID_ARGUMENT, f"bridge {settings.bridge} has no IPv4 address")
    if found is None:
        pools = [pool for pool in room.pools if pool.base.version == 4] or allocator.LOCAL_DEFAULTS
        subnet = fixed.network if fixed is not None else allocator.choose_subnet(pools, taken, version=4)
        found = ip_interface(f"{subnet[1]}/{subnet.prefixlen}")
    return default_bridge.pool(room, found, fixed, settings.default_gateway)


def _v6(room: Room, known: PoolConfig | None, device: list[Interface], taken: list[allocator.Network]) -> PoolConfig:
    settings = room.config
    fixed = ip_interface(settings.fixed_cidr_v6) if settings.fixed_cidr_v6 else None
    found = ip_interface(settings.bip6) if settings.bip6 else default_bridge.address(room, known, device, fixed, 6)
    if found is None:
        pools = list(default_pools(room.pools, 6))
        subnet = fixed.network if fixed is not None else allocator.choose_subnet(pools, taken, version=6)
        found = ip_interface(f"{subnet[1]}/{subnet.prefixlen}")
    return default_bridge.pool(room, found, fixed, settings.default_gateway_v6)


async def make_devices(room: Room) -> None:
    """Creates the default bridge's device, at start."""
    network = room.by_name("bridge")
    if network is not None:
        await room.work(attach.make_device, room, network)
