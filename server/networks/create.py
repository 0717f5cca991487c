"""``docker network create``: checks the whole request before it creates anything."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import pairwise

from api_models.network import NetworkCreateRequest
from engine.common.errors import Kind, WharfError, internal, invalid, not_found
from server.networks import checks, options
from server.networks.bridges import devices
from server.networks.context import NetworkContext
from server.networks.ipam import allocator
from server.networks.ipam.allocator import Network as Subnet
from server.networks.ipam.allocator import PoolExhausted
from server.networks.ipam.pools import default_pools, subnets_in_use
from server.networks.model import BRIDGE, HOST, IPVLAN, MACVLAN, NULL, OVERLAY, Network, PoolConfig
from server.swarmtext import NO_MANAGER


async def create(context: NetworkContext, request: NetworkCreateRequest, owner: str = "") -> Network:
    """Creates a network of this owner, ready for use.

    :raises WharfError: with dockerd's sentence and kind; nothing remains.
    """
    check_name(context, request.name, owner)
    return await _create(context, _record(context, request, owner), request)


async def create_node_local(context: NetworkContext, id: str, request: NetworkCreateRequest) -> Network:
    """As ``create``, for a network of the swarm that this node makes by itself, with the id that it has there."""
    check_name(context, request.name, "")
    network = _record(context, request, "")
    network.id, network.scope = id, "swarm"
    return await _create(context, network, request)


async def _create(context: NetworkContext, network: Network, request: NetworkCreateRequest) -> Network:
    if network.config_only:
        _families(network, request)
        network.ipam = checks.pools(request, ipv6=network.enable_ipv6) or None
        context.add(network)
        await context.store.put(network)
        _announce(context, network)
        return network
    async with AsyncExitStack() as undo:
        if network.uses_plugins:
            await context.remote.resolve(network, request.scope)
            _check_scope(context, network)
        try:
            await _fill(context, network, request, undo)
        except PoolExhausted:
            if not context.ending:
                raise
            # Wait until the subnets of removed networks are free.
            await context.wait_teardowns()
            await _fill(context, network, request, undo)
        check_name(context, request.name, network.owner)  # another create may have used it meanwhile
        # Add it before the next await: two concurrent creates can't share a name, a subnet or a bridge.
        context.add(network)
        undo.callback(context.discard, network)
        if network.bridge or network.parent:
            # The device of a removed network with the same name may still exist.
            if (pending := context.ending.get(devices.removal_key(network))) is not None:
                await asyncio.wait([pending])
            undo.push_async_callback(context.run_in_thread, devices.remove_device, context, network)
            await context.run_in_thread(devices.make_device, context, network)
        if network.uses_plugins:
            await context.remote.create_network(network, undo)
        await context.store.put(network)
        undo.pop_all()
    _announce(context, network)
    return network


def _announce(context: NetworkContext, network: Network) -> None:
    context.bus.publish(
        "network", "create", network.id, {"name": network.name, "type": network.driver}, owner=network.owner
    )


def check_name(context: NetworkContext, name: str, owner: str) -> None:
    """:raises WharfError: as ``checks.check_form``; CONFLICT: the owner has a network of this name."""
    checks.check_form(name)
    if context.of(owner).by_name(name) is not None:
        raise checks.exists(name)


_ON_WORKER = "Cannot create a multi-host network from a worker node. Please create the network from a manager node."


def _record(context: NetworkContext, request: NetworkCreateRequest, owner: str) -> Network:
    driver = request.driver or BRIDGE
    worker = context.attacher is not None
    if driver == OVERLAY or request.ingress:
        alone = driver == OVERLAY and not worker
        raise WharfError(Kind.UNAVAILABLE if alone else Kind.PERMISSION_DENIED, NO_MANAGER)
    if request.scope == "swarm" and context.swarm is None:
        if worker:
            raise WharfError(Kind.PERMISSION_DENIED, _ON_WORKER)
        raise invalid("cannot create a swarm scoped network when swarm is not active")
    if request.scope not in ("", "local", "swarm"):
        raise invalid(f"unsupported network scope: {request.scope}")
    if request.config_only and (request.internal or request.attachable or request.ingress or request.scope):
        raise invalid(checks.CONFIG_ONLY)
    if driver in (HOST, NULL):
        raise WharfError(Kind.PERMISSION_DENIED, f'only one instance of "{driver}" network is allowed')
    if request.config_only:
        driver = NULL  # --config-from chooses it
    ipam_driver = (request.ipam.driver if request.ipam else "") or "default"
    ipam_options = request.ipam.options if request.ipam else None
    network = Network(
        id=secrets.token_hex(32),
        name=request.name,
        driver=driver,
        created_ns=time.time_ns(),
        owner=owner,
        internal=request.internal,
        attachable=request.attachable,
        config_only=request.config_only,
        ipam_driver=ipam_driver,
        ipam_options=None if ipam_options is None else dict(ipam_options),
        options=dict(request.options or {}),
        labels=dict(request.labels or {}),
    )
    source = request.config_from.network if request.config_from else ""
    if source:
        _copy_config(context, network, request, source)
    return network


def _check_scope(context: NetworkContext, network: Network) -> None:
    """The networks of a plugin with global scope are the swarm's, which knows managed plugins only. On a node without a
    swarm, the plugins of several engines find each other by themselves.

    :raises WharfError: with dockerd's and SwarmKit's sentences.
    """
    if network.scope == "local" or context.attacher is None:
        return
    if context.swarm is None:
        raise WharfError(Kind.PERMISSION_DENIED, _ON_WORKER)
    sentence = f"legacy plugin {network.driver} of type NetworkDriver is not supported in swarm mode"
    raise invalid(f"rpc error: code = InvalidArgument desc = {sentence}")


def _copy_config(context: NetworkContext, network: Network, request: NetworkCreateRequest, source: str) -> None:
    checks.check_config(request)
    config = context.of(network.owner).by_name(source)
    if config is None or not config.config_only:
        raise not_found(f'configuration network "{source}" does not exist')
    network.config_from = source
    network.enable_ipv4, network.enable_ipv6 = config.enable_ipv4, config.enable_ipv6
    network.ipam_driver, network.ipam_options = config.ipam_driver, config.ipam_options
    network.options = dict(config.options)
    network.labels = dict(config.labels)


async def _fill(context: NetworkContext, network: Network, request: NetworkCreateRequest, undo: AsyncExitStack) -> None:
    """Sets options, subnets and devices: all decisions before anything is created."""
    defaults = context.config.default_network_opts.get(network.driver, {})
    network.options = {**defaults, **network.options}
    if network.driver == BRIDGE and context.config.mtu and options.MTU not in network.options:
        network.options[options.MTU] = str(context.config.mtu)
    source = context.of(network.owner).by_name(network.config_from) if network.config_from else None
    if source is None:
        _families(network, request)
    if not network.remote:
        options.check(network)
    if source is not None:
        requested = [replace(item, aux=dict(item.aux)) for item in source.ipam or ()]
    else:
        requested = checks.pools(request, ipv6=network.enable_ipv6)
    if not network.enable_ipv4 and not network.enable_ipv6 and network.ipam_driver != "null":
        raise invalid("IPv4 or IPv6 must be enabled")
    if network.ipam_driver == "null":
        if requested:
            raise invalid("network configured with null IPAM driver cannot have a subnet")
        if network.driver == BRIDGE:
            raise invalid("ipv4 pool is empty")
        network.ipam = []
    else:
        skips = await context.remote.skips_gateway(network) if network.remote else _without_gateways(network)
        nets = _check_subnets(network, requested)
        if network.remote_ipam:
            await context.remote.request_pools(network, requested, skips, undo)
            _check_overlaps(context, network)
        else:
            routes = await context.run_in_thread(subnets_in_use, context.host)
            _subnets(context, network, requested, nets, routes, skips)
    network.pools = network.make_pools()
    _devices(context, network)


def _families(network: Network, request: NetworkCreateRequest) -> None:
    given = network.options
    network.enable_ipv4 = options.family(given, options.ENABLE4, request.enable_ipv4, default=True)
    network.enable_ipv6 = options.family(given, options.ENABLE6, request.enable_ipv6, default=False)


def _check_subnets(network: Network, requested: Sequence[PoolConfig]) -> list[Subnet]:
    """The requested subnets, which don't overlap.

    :raises WharfError: INVALID: they do, or the driver supports only one.
    """
    nets = [ip_network(config.subnet) for config in requested]
    # Subnets are disjoint or nested, so in this order one that overlaps any other overlaps its neighbour.
    ordered = sorted(nets, key=lambda net: (net.version, net.network_address.packed, net.prefixlen))
    if any(net.version == other.version and net.overlaps(other) for net, other in pairwise(ordered)):
        raise invalid("multiple overlapping subnet configuration is not supported")
    if network.driver == BRIDGE:
        for version in (4, 6):
            if sum(net.version == version for net in nets) > 1:
                raise invalid("bridge driver doesn't support multiple subnets")
    return nets


def _check_overlaps(context: NetworkContext, network: Network) -> None:
    """A plugin may allocate any subnet; two bridges must not have the same.

    :raises WharfError: PERMISSION_DENIED.
    """
    if network.driver != BRIDGE:
        return
    nets = [ip_network(config.subnet) for config in network.ipam or ()]
    for other in context:
        for subnet in other.subnets if other.driver == BRIDGE else ():
            if any(net.version == subnet.version and net.overlaps(subnet) for net in nets):
                bridge, theirs = network.option(options.NAME) or f"br-{network.id[:12]}", other.bridge
                raise WharfError(
                    Kind.PERMISSION_DENIED,
                    f"cannot create network {network.id} ({bridge}): conflicts with network {other.id} ({theirs}): "
                    f"networks have overlapping IPv{subnet.version}",
                )


def _subnets(
    context: NetworkContext,
    network: Network,
    requested: list[PoolConfig],
    nets: Sequence[Subnet],
    routes: Sequence[Subnet],
    skips: tuple[bool, bool],
) -> None:
    """The network's subnets: the requested ones (``nets``), and one from the pools for a family without any, or with
    the size of a subnet only (``0.0.0.0/24``, ``::/120``)."""
    # Those of IPAM plugins are in an address space of their own.
    taken = [subnet for other in context if not other.remote_ipam for subnet in other.subnets]
    for net in nets:
        if not net.network_address.is_unspecified and any(
            net.version == other.version and net.overlaps(other) for other in taken
        ):
            raise WharfError(Kind.PERMISSION_DENIED, "Pool overlaps with other one on this address space")
    configs = list(requested)
    pools = context.pools
    for version, enabled in ((4, network.enable_ipv4), (6, network.enable_ipv6)):
        given = [(at, net) for at, net in enumerate(nets) if net.version == version]
        sized = next(((at, net) for at, net in given if net.network_address.is_unspecified), None)
        if enabled and (sized or not given):
            candidates = allocator.of_size(default_pools(pools, version), sized[1].prefixlen if sized else 0)
            subnet = str(allocator.choose_subnet(candidates, (*taken, *routes), version=version))
            if sized:
                configs[sized[0]] = replace(configs[sized[0]], subnet=subnet)
            else:
                configs.append(PoolConfig(subnet))
    for config in configs:
        version = ip_network(config.subnet).version
        if network.enables(version):
            _choose_gateway(config, skip=skips[0] if version == 4 else skips[1])
    network.ipam = configs


def _choose_gateway(config: PoolConfig, *, skip: bool) -> None:
    """The first free address, unless one was given or the driver has none (``skip``)."""
    if config.gateway:
        _check_gateway(config)
    elif not skip:
        config.gateway = str(config.make_pool().first_usable())


def _without_gateways(network: Network) -> tuple[bool, bool]:
    """Whether one of the engine's own drivers needs no IPv4 and no IPv6 gateway."""
    if network.driver == BRIDGE:
        return _without_gateway(network, 4), _without_gateway(network, 6)
    without = network.internal or network.routes_without_gateway
    return without, without


def _without_gateway(network: Network, version: int) -> bool:
    """Whether a bridge has no address and no route needs one: containers may use the gateway's address then."""
    if network.option(options.MODE4 if version == 4 else options.MODE6) == "isolated":
        return True
    return version == 4 and network.internal and options.flag(network.options, options.INHIBIT4, default=False)


def _check_gateway(config: PoolConfig) -> None:
    gateway, subnet = ip_address(config.gateway), ip_network(config.subnet)
    ends = (subnet.network_address, subnet.broadcast_address) if subnet.version == 4 and subnet.prefixlen < 31 else ()
    if gateway in ends:
        raise internal(f"failed to allocate gateway ({gateway}): Address already in use")
    for name, text in config.aux.items():
        if ip_address(text) == gateway:
            raise internal(f"failed to allocate secondary ip address ({name}:{text}): Address already in use")


def _devices(context: NetworkContext, network: Network) -> None:
    short = network.id[:12]
    if network.driver == BRIDGE:
        network.bridge = network.option(options.NAME) or f"br-{short}"
        for other in context:
            if other.bridge == network.bridge:
                raise WharfError(
                    Kind.PERMISSION_DENIED,
                    f"cannot create network {network.id} ({network.bridge}): conflicts with network "
                    f"{other.id} ({other.bridge}): networks have same bridge name",
                )
    elif network.driver in (MACVLAN, IPVLAN):
        parent = network.option("parent")
        if parent == "lo":
            raise invalid(f"loopback interface is not a valid {network.driver} parent link")
        network.parent = parent or f"dm-{short}"
        if not parent:
            network.internal = True
        for other in context:
            if other.driver == network.driver and other.parent == network.parent:
                raise WharfError(
                    Kind.PERMISSION_DENIED,
                    f"network {other.id} is already using parent interface {network.parent}",
                )
