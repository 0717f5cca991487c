"""The networks of a container, validated with dockerd's sentences, and its addresses there."""

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from api_models.network import EndpointSettings
from engine.common.errors import Kind, WharfError, invalid, not_found
from server.containers.plan import ContainerPlan
from server.networks import options
from server.networks.context import NetworkContext
from server.networks.ipam.allocator import Address, AddressInUse, PoolExhausted, mac_from_address
from server.networks.model import BRIDGE, HOST, NULL, Endpoint, Network

_MAC = re.compile(r"[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}")
_DEFAULT_MODES = ("", "default", "bridge")


def mode_of(container: ContainerPlan) -> str:
    """The kind of sandbox that the container gets: own, host, none or container."""
    mode = container.host_config.network_mode
    if mode.startswith("container:"):
        return "container"
    if mode == "host":
        return "host"
    if container.config.network_disabled or list(container.networking) == ["none"]:
        return "none"  # also without a default bridge
    return "none" if mode == "none" and not container.networking else "own"


def network_key(container: ContainerPlan) -> str:
    """The network that the container's mode names."""
    mode = container.host_config.network_mode
    return "bridge" if mode in _DEFAULT_MODES else mode


def uses_default_bridge(container: ContainerPlan) -> bool:
    """Whether the container joins the network ``bridge`` of its owner, as far as its names tell."""
    if mode_of(container) == "container" or container.config.network_disabled:
        return False
    return "bridge" in (container.networking or (network_key(container),))


def normalize(context: NetworkContext, container: ContainerPlan) -> None:
    """Completes ``container.networking``: keys are names, the mode's network first. The container joins the networks of
    the request's endpoints, and the one of its mode only if there are none.

    :raises WharfError: NOT_FOUND, INVALID: as dockerd at create.
    """
    if mode_of(container) == "container" or container.config.network_disabled:
        container.networking = {}
        return
    found: dict[str, EndpointSettings] = {}
    known = context.of(container.owner)
    main = network_key(container)
    if main == "bridge" and known.by_name("bridge") is None:
        main = "none"  # --bridge=none: there is no default network
    for key in sorted(container.networking, key=lambda key: key != main) or [main]:
        network = known.find(key)
        settings = container.networking.get(key) or EndpointSettings()
        if network is None:
            # The network may be created before the container is started; else the start fails.
            found[key] = settings
            continue
        if network.name in found and key != main:
            settings = settings if settings != EndpointSettings() else found[network.name]
        found[network.name] = replace(
            settings, network_id="", endpoint_id="", gateway="", ip_address="", ip_prefix_len=0, ipv6_gateway="",
            global_ipv6_address="", global_ipv6_prefix_len=0, dns_names=None,
        )  # fmt: skip
    container.networking = found


def check_endpoint(network: Network, settings: EndpointSettings) -> None:
    """Validates the settings of an endpoint on a network.

    :raises WharfError: INVALID (400), with all of dockerd's sentences.
    """
    if network.config_only:
        raise WharfError(Kind.PERMISSION_DENIED, "cannot create endpoint on configuration-only network")
    if settings.mac_address and not _MAC.fullmatch(settings.mac_address):
        raise invalid(f"invalid MAC address {settings.mac_address}")
    if settings.mac_address and network.overlay:
        # Other nodes compute it; dockerd's nodes notify each other of it.
        raise invalid(f"MAC address cannot be chosen on network {network.name}: it follows from the IPv4 address")
    problems: list[str] = []
    ipam = settings.ipam_config
    requested = [ipam.ipv4_address, ipam.ipv6_address] if ipam else []
    if settings.aliases and network.predefined:
        problems.append("network-scoped aliases are only supported for user-defined networks")
    if any(requested):
        problems += _check_addresses(network, settings)
    if ipam and ipam.link_local_ips:
        problems += [f"invalid link-local IP address: {text}" for text in ipam.link_local_ips if not _local(text)]
    if problems:
        raise invalid("invalid endpoint settings:\n" + join_sentences(problems))
    options.endpoint_sysctls(settings.driver_opts)


def join_sentences(problems: Sequence[str]) -> str:
    """Joins several sentences to one text, like Docker's multierror."""
    return problems[0] if len(problems) == 1 else "\n".join(f"* {text}" for text in problems)


def _local(text: str) -> bool:
    try:
        return ip_address(text).is_link_local
    except ValueError:
        return False


def _check_addresses(network: Network, settings: EndpointSettings) -> list[str]:
    assert settings.ipam_config is not None
    problems = []
    if network.predefined:
        problems.append("user-specified IP address is supported on user-defined networks only")
    for text, version in ((settings.ipam_config.ipv4_address, 4), (settings.ipam_config.ipv6_address, 6)):
        if not text:
            continue
        try:
            address = ip_address(text)
        except ValueError:
            address = None
        if address is None or address.version != version:
            problems.append(f"invalid IPv{version} address: {text}")
        if address is None or not any(address in ip_network(item.subnet) for item in network.ipam or ()):
            problems.append(f"no configured subnet contains IP address {text}")
    return problems


def check_combination(networks: Sequence[Network], mode: str) -> None:
    """Checks that host and none are not combined with other networks.

    :raises WharfError: they are.
    """
    on_host = [network.driver == HOST for network in networks]
    if mode == "host" and not all(on_host):
        raise invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    if mode != "host" and any(on_host):
        raise invalid("cannot connect container to host network - container must be created in host network mode")
    if len(networks) < 2:
        return
    if any(network.driver == NULL for network in networks):
        raise invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )


def dns_names(container: ContainerPlan, settings: EndpointSettings, network: Network) -> list[str]:
    """The names by which others on the network find the container, without duplicates."""
    return own_names(container, settings) if network.user_defined else []


def own_names(container: ContainerPlan, settings: EndpointSettings) -> list[str]:
    """The names of a container on a user-defined network."""
    names = [container.name, *(settings.aliases or ()), container.id[:12]]
    if container.config.hostname and container.config.hostname != container.id[:12]:
        names.append(container.config.hostname)
    return list(dict.fromkeys(name for name in names if name))


def without_ipv6(container: ContainerPlan, settings: EndpointSettings | None = None) -> bool:
    """Whether the container's own sysctls, or those of the endpoint, disable IPv6: it gets no such address, and no name
    has one."""
    if settings and ("net.ipv6.conf.IFNAME.disable_ipv6", "1") in options.endpoint_sysctls(settings.driver_opts):
        return True
    sysctls = container.host_config.sysctls or {}
    return any(sysctls.get(f"net.ipv6.conf.{name}.disable_ipv6") == "1" for name in ("all", "lo"))


def make(context: NetworkContext, container: ContainerPlan, network: Network, settings: EndpointSettings) -> Endpoint:
    """An endpoint without addresses; the network doesn't know it yet.

    :raises WharfError: NOT_FOUND: the network was removed meanwhile, or is being removed.
    """
    if context.networks.get(network.id) is not network or network.unfinished:
        raise not_found(f"network {network.name} not found")
    return Endpoint(
        id=secrets.token_hex(32),
        network=network.id,
        container=container.id,
        name=container.name,
        dns_names=dns_names(container, settings, network),
        settings=settings.wire(),
    )


def create(context: NetworkContext, container: ContainerPlan, network: Network, settings: EndpointSettings) -> Endpoint:
    """An endpoint with allocated addresses. Undone by :func:`release`.

    :raises WharfError: an address is in use or none is left; NOT_FOUND: the network was removed meanwhile.
    """
    endpoint = make(context, container, network, settings)
    before = context.last.get(container.id)
    old = before.endpoint(network.id) if before else None
    try:
        for version in (4,) if without_ipv6(container, settings) else (4, 6):
            _allocate(network, endpoint, settings, old, version)
        endpoint.mac = chosen_mac(settings) or derived_mac(endpoint)
    except BaseException:
        release(network, endpoint)
        raise
    network.endpoints[container.id] = endpoint
    return endpoint


def _allocate(
    network: Network, endpoint: Endpoint, settings: EndpointSettings, old: Endpoint | None, version: int
) -> None:
    pools = [pool for pool in network.pools if pool.subnet.version == version]
    if not pools:
        return
    ipam = settings.ipam_config
    text = (ipam.ipv4_address if version == 4 else ipam.ipv6_address) if ipam else ""
    requested = ip_address(text) if text else None
    if requested is None and network.overlay:
        if version == 4:
            raise WharfError(Kind.INTERNAL, f"the swarm has assigned no address on network {network.name}")
        return None
    prefer: Address | None = None
    if old:
        remembered = old.ip4 if version == 4 else old.ip6
        prefer = ip_address(remembered) if remembered else None
    address = None
    for pool in pools:
        if requested is not None and requested not in pool:
            continue
        if prefer is not None and prefer not in pool and len(pools) > 1:
            continue
        try:
            address = pool.allocate(endpoint.id, requested=requested, prefer=prefer)
        except PoolExhausted:
            continue
        except AddressInUse:
            raise WharfError(Kind.PERMISSION_DENIED, "Address already in use") from None
        prefix = pool.subnet.prefixlen
        break
    if address is None and prefer is not None:
        return _allocate(network, endpoint, settings, None, version)
    if address is None:
        raise WharfError(
            Kind.INTERNAL,
            f"no available IPv{version} addresses on this network's address pools: {network.name} ({network.id})",
        )
    if version == 4:
        endpoint.address4, endpoint.gateway4 = f"{address}/{prefix}", gateway_of(network, address)
    else:
        endpoint.address6, endpoint.gateway6 = f"{address}/{prefix}", gateway_of(network, address)
    return None


def gateway_of(network: Network, address: Address) -> str:
    """The gateway of the address's subnet, or the other router that ``--default-gateway`` names for a bridge. Internal
    networks have none, nor have those of a swarm: their subnet's gateway is not on every node."""
    if network.overlay or (network.internal and network.driver == BRIDGE):
        return ""
    for config in network.ipam or ():
        if address in ip_network(config.subnet):
            other = config.aux.get(f"DefaultGatewayIPv{address.version}") if network.driver == BRIDGE else None
            return other or config.gateway
    return ""


def chosen_mac(settings: EndpointSettings) -> str:
    """The requested MAC address in the kernel's form; "": none was requested."""
    return settings.mac_address.lower().replace("-", ":")


def derived_mac(endpoint: Endpoint) -> str:
    """The MAC address that belongs to the endpoint's addresses; "" without any."""
    if endpoint.ip4:
        return mac_from_address(IPv4Address(endpoint.ip4))
    if endpoint.ip6:
        return mac_from_address(IPv6Address(endpoint.ip6))
    return ""


def random_mac() -> str:
    """A locally administered MAC address, for an IPAM plugin that must know it before it allocates an address."""
    return ":".join(f"{octet:02x}" for octet in b"\x02\x42" + secrets.token_bytes(4))


def register(context: NetworkContext, network: Network, endpoint: Endpoint) -> None:
    """Makes an endpoint with addresses from a plugin known to its network. Undone by :func:`release`.

    :raises WharfError: NOT_FOUND: the network was removed meanwhile.
    """
    if context.networks.get(network.id) is not network or network.unfinished:
        raise not_found(f"network {network.name} not found")
    for interface in endpoint.interfaces:
        if interface.version == 4:
            endpoint.gateway4 = gateway_of(network, interface.ip)
        else:
            endpoint.gateway6 = gateway_of(network, interface.ip)
    network.endpoints[endpoint.container] = endpoint


def reserve(network: Network, endpoint: Endpoint) -> None:
    """Allocates the addresses of a stored endpoint again, after the daemon's start."""
    for interface in endpoint.interfaces:
        for pool in network.pools:
            if interface.ip in pool:
                pool.taken[interface.ip] = endpoint.id
    network.endpoints[endpoint.container] = endpoint


def release(network: Network, endpoint: Endpoint) -> None:
    """Releases the addresses; a second call does nothing."""
    for interface in endpoint.interfaces:
        for pool in network.pools:
            if interface.ip in pool:
                pool.release(interface.ip, endpoint.id)
    if network.endpoints.get(endpoint.container) is endpoint:
        del network.endpoints[endpoint.container]


def in_order(networks: Mapping[str, Network], endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """The endpoints of a container in dockerd's order, in which interfaces are numbered and names are looked up."""

    def rank(endpoint: Endpoint) -> tuple[int, bool, bool, bool, str]:
        network = networks[endpoint.network]
        dual = bool(endpoint.gateway4 and endpoint.gateway6)
        return (-endpoint.gw_priority, endpoint.implicit, network.internal, not dual, network.name)

    return sorted(endpoints, key=rank)


def default_gateways(
    networks: Mapping[str, Network], endpoints: Iterable[Endpoint]
) -> tuple[Endpoint | None, Endpoint | None]:
    """The endpoints through which a container's IPv4 and IPv6 traffic leaves."""

    ordered = in_order(networks, endpoints)
    first4 = next((item for item in ordered if _leads_out(networks[item.network], item, 4)), None)
    first6 = next((item for item in ordered if _leads_out(networks[item.network], item, 6)), None)
    return first4, first6


def _leads_out(network: Network, endpoint: Endpoint, version: int) -> bool:
    if network.remote:
        return endpoint.default_hop(version) is not None
    if network.internal:
        return False
    if version == 4:
        return bool(endpoint.address4) and (bool(endpoint.gateway4) or network.routes_without_gateway)
    return bool(endpoint.address6) and (bool(endpoint.gateway6) or network.routes_without_gateway)
