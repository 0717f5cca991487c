"""The drivers' devices: the device of a network, and the link that attaches a container to it."""

import asyncio
import errno
import os
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network

from engine.common.errors import Kind, WharfError, invalid
from server.networks import options
from server.networks.bridges import bridge, interfaces, ownership, vxlan
from server.networks.bridges.interfaces import BridgePort
from server.networks.context import NetworkContext
from server.networks.ipam.allocator import mac_from_address
from server.networks.model import BRIDGE, IPVLAN, MACVLAN, Endpoint, Network
from server.networks.netlink.namespace_pool import Namespace, NamespacePool, mark
from server.networks.netlink.rtnetlink import Interface, Netlink, link_add, link_delete, link_set

_REMOVAL = "device "


async def ensure_ready(context: NetworkContext, network: Network) -> None:
    """Creates the network's device again if another program has removed it."""
    if not network.ready:
        await context.run_in_thread(make_device, context, network)


def make_device(context: NetworkContext, network: Network) -> None:
    """In a thread: creates the bridge with its addresses and rules, or the parent of a macvlan or ipvlan network.

    :raises WharfError, OSError: also if another engine manages the bridge.
    """
    with context.devices:
        if network.bridged:
            ownership.claim_bridge(context, network)
            _make_bridge(context, network)
            if network.overlay:
                vxlan.ensure(context, network)
        elif network.driver in (MACVLAN, IPVLAN):
            _make_parent(context, network)
        network.ready = True


def is_adopted(context: NetworkContext, network: Network) -> bool:
    """Whether the bridge is an administrator's (``--bridge``): the engine never creates or removes it."""
    return network.default_bridge and not network.owner and context.config.bridge not in ("", "none")


def _make_bridge(context: NetworkContext, network: Network) -> None:
    device_mtu = vxlan.mtu(network) if network.overlay else options.mtu(network.options)
    # The kernel refuses an MTU above 1500 until a port has it; it raises the bridge's MTU with its ports.
    addresses = bridge_addresses(network)
    if is_adopted(context, network):
        # An administrator's bridge keeps its addresses; one without any gets ours.
        found = context.host.link(network.bridge)
        if found is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), network.bridge)
        present = {address.version for at, address in context.host.addresses(found.index) if at == found.index}
        addresses = [address for address in addresses if address.version == 4 and 4 not in present]
        device_mtu = 0
    mac = mac_from_address(ip_interface(network.node_address).ip) if network.node_address else ""
    link = bridge.ensure(
        context.host,
        network.bridge,
        addresses,
        mtu=device_mtu,
        alias=mark(context.config.network_name),
        mac=mac or network.mac,
        fixed_mac=bool(mac),
    )
    network.index, network.mac = link.index, link.mac
    if not options.flag(network.options, options.ICC, default=True) and context.config.iptables:
        bridge.filter_bridged()
    if context.config.iptables:
        bridge.localnet(network.bridge, on=True)
    context.firewall.add_bridge(options.rules(network))
    if context.config.ip_forward:
        context.firewall.enable_forwarding()
        if network.enable_ipv6:
            context.firewall.enable_forwarding(v6=True)


def bridge_addresses(network: Network) -> list[Interface]:
    """The host's addresses on the bridge: the gateways. An isolated gateway mode gives the host no address. On an
    overlay network, the host has some only to send what reaches published ports: the gateway, which all nodes have,
    and its own."""
    found: list[Interface] = []
    if network.overlay and not network.ingress:
        return found
    if network.node_address:
        found.append(ip_interface(network.node_address))
    for config in network.ipam or ():
        subnet = ip_network(config.subnet)
        if not config.gateway or not network.enables(subnet.version):
            continue
        mode = network.option(options.MODE4 if subnet.version == 4 else options.MODE6)
        if mode == "isolated" or (
            subnet.version == 4 and options.flag(network.options, options.INHIBIT4, default=False)
        ):
            continue
        found.append(ip_interface(f"{config.gateway}/{subnet.prefixlen}"))
    return found


def removal_key(network: Network) -> str:
    """The key of a pending removal of a network's device."""
    return f"{_REMOVAL}{network.bridge or network.parent}"


def removals(context: NetworkContext) -> list[asyncio.Task[None]]:
    """The pending removals of networks' devices."""
    return [task for key, task in context.ending.items() if key.startswith(_REMOVAL)]


def remove_device(context: NetworkContext, network: Network) -> None:
    """In a thread: removes what :func:`make_device` created. A missing device is fine, and another engine's stays."""
    with context.devices:
        network.ready = False
        if network.bridged:
            if ownership.owns_bridge(context, network):
                context.firewall.remove_bridge(network.bridge)
                remove_links(context, network)
                ownership.release_bridge(context, network)
            return
    if network.made_parent:
        try:
            context.host.run(link_delete(network.parent))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise


def remove_links(context: NetworkContext, network: Network) -> None:
    """In a thread: removes the bridge and the VXLAN device of a network, if this engine created them."""
    if network.vxlan:
        vxlan.remove(context, network)
    bridge.remove(context.host, network.bridge, mark(context.config.network_name))


def _make_parent(context: NetworkContext, network: Network) -> None:
    name = network.parent
    link = context.host.link(name)
    network.index = link.index if link else _make_vlan(context.host, network, name, mark(context.config.network_name))


def _make_vlan(host: Netlink, network: Network, name: str, alias: str) -> int:
    """The 802.1q sub-interface ``eth0.10``, or the dummy device of a network without a parent."""
    base, dot, tag = name.rpartition(".")
    if not network.option("parent"):
        host.run(link_add("dummy", name, up=True), link_set(name, alias=alias))
    else:
        if not dot or not tag.isdigit():
            if dot:
                raise invalid(f"unable to parse a valid vlan id from: {tag} (ex. eth0.10 for vlan 10)")
            raise invalid(f"invalid subinterface vlan name {name}, example formatting is eth0.10")
        if not 0 < int(tag) < 4095:
            raise invalid(f"vlan id must be between 1-4094, received: {tag}")
        parent = host.link(base)
        if parent is None:
            raise invalid(f"-o parent interface was not found on the host: {base}")
        vlan = link_add("vlan", name, parent=parent.index, up=True, data=(("IFLA_VLAN_ID", int(tag)),))
        host.run(vlan, link_set(name, alias=alias))
    network.made_parent = True
    link = host.link(name)
    if link is None:
        raise OSError(errno.ENODEV, "the sub-interface is gone", name)
    return link.index


def attacher(context: NetworkContext, network: Network, endpoint: Endpoint) -> interfaces.Attacher:
    """The driver that attaches an interface to the network."""
    if network.bridged:
        return BridgePort(context.host, network.index, hairpin=bool(endpoint.publications))
    if network.driver == MACVLAN:
        mode = options.MACVLAN_MODES[network.option("macvlan_mode") or "bridge"]
        return _Sublink(context.host, "macvlan", network.index, (("IFLA_MACVLAN_MODE", mode),))
    if network.driver == IPVLAN:
        mode = options.IPVLAN_MODES[network.option("ipvlan_mode") or "l2"]
        flags = options.IPVLAN_FLAGS[network.option("ipvlan_flag") or "bridge"]
        return _Sublink(
            context.host, "ipvlan", network.index, (("IFLA_IPVLAN_MODE", mode), ("IFLA_IPVLAN_FLAGS", flags))
        )
    if network.remote and endpoint.remote is not None:
        from server.networks.bridges.moved_link import MovedLink  # no engine without plugins loads it

        return MovedLink(context.host, endpoint.remote.source)
    raise WharfError(Kind.NOT_IMPLEMENTED, f"network {network.name}: driver {network.driver} can't attach containers")


def restore_link(path: str, endpoint: Endpoint) -> None:
    """Moves the link that a plugin made from the namespace at ``path`` back to the host. A missing one is fine."""
    if endpoint.remote is not None and endpoint.remote.source and endpoint.interface:
        from server.networks.bridges import moved_link

        moved_link.restore(path, endpoint.interface, endpoint.remote.source)


def discard_link(path: str, endpoint: Endpoint) -> None:
    """Removes the link that a plugin made from the namespace at ``path``, if it is still there: its plugin did not
    answer. A device of the hardware returns to the host."""
    if endpoint.remote is not None and endpoint.remote.source and endpoint.interface:
        from server.networks.bridges import moved_link

        moved_link.discard(path, endpoint.interface, endpoint.remote.source)


@dataclass(frozen=True, slots=True)
class _Sublink:
    """A macvlan or ipvlan device of the parent, created inside the container's namespace."""

    host: Netlink
    kind: str
    parent: int
    data: tuple[tuple[str, object], ...]

    def attach(self, pool: NamespacePool, space: Namespace, spec: interfaces.InterfaceSpec) -> str:
        target = os.open(space.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.host.run(
                link_add(self.kind, spec.name, parent=self.parent, netns=target, data=self.data, mtu=spec.mtu)
            )
        except OSError as error:
            text = f"failed to create the {self.kind} port: {(error.strerror or '').lower()}"
            raise WharfError(Kind.INTERNAL, text) from error
        finally:
            os.close(target)
        return ""

    def detach(self, pool: NamespacePool, space: Namespace, spec: interfaces.InterfaceSpec, veth: str) -> None:
        space.netlink.run(link_delete(spec.name))


def interface_spec(network: Network, endpoint: Endpoint) -> interfaces.InterfaceSpec:
    """The properties of the interface."""
    driver_opts = endpoint.settings.get("DriverOpts") or {}
    sysctls = tuple(
        (key.replace("IFNAME", endpoint.interface) if "." not in endpoint.interface else _slashed(key, endpoint), value)
        for key, value in options.endpoint_sysctls(driver_opts)
    )
    # set_default_routes sets the default routes. The next hops of the others must be reachable before.
    given = [route for route in (endpoint.remote.routes if endpoint.remote else ()) if ip_network(route[0]).prefixlen]
    ipam = endpoint.settings.get("IPAMConfig") or {}
    local = [ip_interface(f"{text}/{64 if ':' in text else 16}") for text in ipam.get("LinkLocalIPs") or ()]
    return interfaces.InterfaceSpec(
        name=endpoint.interface,
        addresses=(*endpoint.interfaces, *local),
        # An ipvlan device has its parent's MAC.
        mac="" if network.driver == IPVLAN else endpoint.mac,
        mtu=_link_mtu(network),
        ipv6=bool(endpoint.address6),
        routes=tuple(sorted(given, key=lambda route: bool(route[1]))),
        sysctls=sysctls,
    )


def _link_mtu(network: Network) -> int:
    """The MTU of a container's link; 0: the driver's."""
    if network.remote:
        return 0  # A plugin's driver has options of its own and sets the MTU itself.
    if network.overlay:
        return vxlan.mtu(network)
    return options.mtu(network.options) or (1500 if network.driver == BRIDGE else 0)


def _slashed(key: str, endpoint: Endpoint) -> str:
    return key.replace(".", "/").replace("IFNAME", endpoint.interface)
