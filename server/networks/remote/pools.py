"""The subnets of networks with an IPAM plugin: allocation, release, and replay at the daemon's start."""

import logging
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from engine.common.errors import WharfError, internal, invalid
from server.networks.ipam.allocator import Network as Subnet
from server.networks.model import Endpoint, Network, PoolConfig, RemoteEndpoint
from server.networks.remote.ipam import Pool, RemoteIpam

log = logging.getLogger(__name__)

GATEWAY_REQUEST = {"RequestAddressType": "com.docker.network.gateway"}
ENDPOINT_NAME = "com.docker.network.endpoint.name"
MAC_ADDRESS = "com.docker.network.endpoint.macaddress"
#: Subnets that a plugin may offer, each overlapping a route of the host, before the request fails.
_OFFERS = 64


async def request_pools(
    ipam: RemoteIpam,
    network: Network,
    requested: Sequence[PoolConfig],
    skips: tuple[bool, bool],
    routes: Sequence[Subnet],
) -> None:
    """Fills ``network.ipam`` subnet by subnet; :func:`release_pools` releases what it has after a failure.

    :param requested: the subnets of the request; the plugin chooses one for an enabled family without any.
    :param skips: the IPv4 and the IPv6 gateway are not allocated if the request has none.
    :param routes: a subnet that the plugin chooses for a local network overlaps none of these.
    """
    network.ipam = []
    if not network.address_space:
        local, shared = await ipam.address_spaces()
        network.address_space = shared if network.scope == "global" else local
    for version, enabled, skip in ((4, network.enable_ipv4, skips[0]), (6, network.enable_ipv6, skips[1])):
        if not enabled:
            continue
        configs = [config for config in requested if ip_network(config.subnet).version == version]
        for config in configs or (None,):
            if config is not None:
                pool = await _request_pool(ipam, network, config.subnet, config.ip_range, version)
                made = replace(config, aux={}, gateway="", subnet=str(pool.subnet), pool_id=pool.id)
            else:
                pool = await _choose_pool(ipam, network, routes, version)
                made = PoolConfig(str(pool.subnet), pool_id=pool.id)
            network.ipam.append(made)
            await _request_gateway(ipam, made, pool, config.gateway if config else "", skip=skip)
            for name, address in (config.aux if config else {}).items():
                await _request_auxiliary(ipam, made, name, address, version)


async def _request_pool(ipam: RemoteIpam, network: Network, subnet: str, area: str, version: int) -> Pool:
    return await ipam.request_pool(network.address_space, subnet, area, network.ipam_options, v6=version == 6)


async def _choose_pool(ipam: RemoteIpam, network: Network, routes: Sequence[Subnet], version: int) -> Pool:
    """A subnet of the plugin's choice. Overlapping ones are released at the end, so that it doesn't return them
    again."""
    async with AsyncExitStack() as refused:
        for _ in range(_OFFERS):
            pool = await _request_pool(ipam, network, "", "", version)
            if network.scope == "global" or not pool.subnet.prefixlen or not _overlaps(pool.subnet, routes):
                return pool
            refused.push_async_callback(_logged, ipam.release_pool(pool.id), f"release of pool {pool.id}")
        raise internal(f'all subnets that IPAM plugin "{ipam.client.name}" chooses overlap with routes of the host')


def _overlaps(subnet: Subnet, others: Iterable[Subnet]) -> bool:
    if isinstance(subnet, IPv4Network):
        return any(isinstance(other, IPv4Network) and subnet.overlaps(other) for other in others)
    return any(isinstance(other, IPv6Network) and subnet.overlaps(other) for other in others)


async def _request_gateway(ipam: RemoteIpam, config: PoolConfig, pool: Pool, requested: str, *, skip: bool) -> None:
    gateway = pool.gateway if not requested else None
    if gateway is None and (requested or not skip):
        try:
            gateway = await ipam.request_address(pool.id, requested, GATEWAY_REQUEST, pool.subnet.version)
        except WharfError as error:
            raise internal(f"failed to allocate gateway ({requested}): {error.message}") from error
    if gateway is not None:
        config.gateway = str(gateway.ip)
        bits = gateway.network.prefixlen
        config.gateway_bits = 0 if bits == pool.subnet.prefixlen else bits


async def _request_auxiliary(ipam: RemoteIpam, config: PoolConfig, name: str, address: str, version: int) -> None:
    try:
        await ipam.request_address(config.pool_id, address, None, version)
    except WharfError as error:
        raise internal(f"failed to allocate secondary ip address ({name}:{address}): {error.message}") from error
    config.aux[name] = address


async def release_pools(ipam: RemoteIpam, network: Network) -> None:
    """Releases the subnets with their gateways and auxiliary addresses. Failures are logged."""
    configs, network.ipam = network.ipam or [], []
    for config in configs:
        for address in filter(None, (config.gateway, *config.aux.values())):
            await _logged(ipam.release_address(config.pool_id, address), f"release of address {address}")
        await _logged(ipam.release_pool(config.pool_id), f"release of pool {config.pool_id}")


async def _logged(call: Awaitable[None], what: str) -> None:
    try:
        await call
    except WharfError as error:
        log.warning("%s failed: %s", what, error)


async def replay(ipam: RemoteIpam, network: Network, endpoints: Iterable[Endpoint]) -> None:
    """Repeats the requests for a network's subnets, and for the addresses of running containers' endpoints.

    :raises WharfError: the plugin refuses one.
    """
    renamed: dict[str, str] = {}
    for config in network.ipam or ():
        version = ip_network(config.subnet).version
        pool = await _request_pool(ipam, network, config.subnet, config.ip_range, version)
        renamed[config.pool_id], config.pool_id = pool.id, pool.id
        if config.gateway:
            await ipam.request_address(pool.id, config.gateway, GATEWAY_REQUEST, version)
        for address in config.aux.values():
            await ipam.request_address(pool.id, address, None, version)
    for endpoint in endpoints:
        state = endpoint.remote or RemoteEndpoint()
        endpoint.remote = replace(
            state, pool4=renamed.get(state.pool4, state.pool4), pool6=renamed.get(state.pool6, state.pool6)
        )
        for interface in endpoint.interfaces:
            id = endpoint.remote.pool4 if interface.version == 4 else endpoint.remote.pool6
            await ipam.request_address(id, str(interface.ip), address_options(ipam, endpoint), interface.version)


def address_options(ipam: RemoteIpam, endpoint: Endpoint) -> dict[str, str]:
    """The options of an endpoint's request for an address."""
    found = {ENDPOINT_NAME: endpoint.name}
    if ipam.needs_mac:
        found[MAC_ADDRESS] = endpoint.mac
    return found


async def request_addresses(ipam: RemoteIpam, network: Network, endpoint: Endpoint, *, ipv6: bool) -> None:
    """Sets the endpoint's addresses, from the subnet that has the requested one, or from the first.

    :raises WharfError: the plugin refuses; INVALID_ARGUMENT: no subnet has the requested address.
    """
    requested = endpoint.settings.get("IPAMConfig") or {}
    for version in (4, 6):
        if not network.enables(version) or (version == 6 and not ipv6):
            continue
        configs = [config for config in network.ipam or () if ip_network(config.subnet).version == version]
        if not configs:
            raise internal(f"no IPv{version} information available for endpoint {endpoint.name}")
        await _request_address(ipam, endpoint, configs, requested.get(f"IPv{version}Address") or "", version)


async def _request_address(
    ipam: RemoteIpam, endpoint: Endpoint, configs: Sequence[PoolConfig], address: str, version: int
) -> None:
    pools = [config for config in configs if not address or _contains(config, address)]
    if not pools:
        raise invalid(f"invalid address {address}: It does not belong to any of this network's subnets")
    allocated = await ipam.request_address(pools[0].pool_id, address, address_options(ipam, endpoint), version)
    state = endpoint.remote or RemoteEndpoint()
    if version == 4:
        endpoint.address4, endpoint.remote = str(allocated), replace(state, pool4=pools[0].pool_id)
    else:
        endpoint.address6, endpoint.remote = str(allocated), replace(state, pool6=pools[0].pool_id)


def _contains(config: PoolConfig, address: str) -> bool:
    return ip_address(address) in ip_network(config.subnet)


async def release_addresses(ipam: RemoteIpam, endpoint: Endpoint) -> None:
    """Releases the endpoint's addresses. Failures are logged."""
    state = endpoint.remote or RemoteEndpoint()
    for pool, address in ((state.pool4, endpoint.ip4), (state.pool6, endpoint.ip6)):
        if pool and address:
            await _logged(ipam.release_address(pool, address), f"release of address {address}")
