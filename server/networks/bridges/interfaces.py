"""Attaches a namespace to a network and detaches it: links, addresses, routes. Blocks; call it in a thread.

A failing function undoes its earlier steps, so a caller gets all of it or nothing.
"""

import contextlib
import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from server.networks.netlink import netns
from server.networks.netlink.namespace_pool import Namespace, NamespacePool
from server.networks.netlink.rtnetlink import (
    Interface,
    Message,
    Netlink,
    address_add,
    link_delete,
    link_set,
    route_add,
    route_delete,
)


@dataclass(frozen=True, slots=True)
class InterfaceSpec:
    """The properties of a container's interface. ``name`` is its name inside.

    ``routes``: (destination, next hop or "") in addition to the subnet's route. ``sysctls`` with ``IFNAME`` in their
    names are set for the interface before it is set up.
    """

    name: str
    addresses: tuple[Interface, ...]
    mac: str = ""
    mtu: int = 0
    ipv6: bool = False
    routes: tuple[tuple[str, str], ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A container's default route: through ``gateway``, or directly through the interface."""

    interface: str
    gateway: str = ""
    version: int = 4


class Attacher(Protocol):
    """A driver's part: the link that becomes the interface inside."""

    def attach(self, pool: NamespacePool, space: Namespace, spec: InterfaceSpec) -> str:
        """Creates the link inside and returns the name of its host end ("" if there is none). Undoes itself on
        failure."""
        ...

    def detach(self, pool: NamespacePool, space: Namespace, spec: InterfaceSpec, veth: str) -> None:
        """Undoes :meth:`attach`, which returned ``veth``."""
        ...


@dataclass(frozen=True, slots=True)
class BridgePort:
    """A veth whose host end is a port of a bridge."""

    host: Netlink
    bridge: int
    hairpin: bool = False

    def attach(self, pool: NamespacePool, space: Namespace, spec: InterfaceSpec) -> str:
        if space.veth and spec.name == "eth0":
            veth, space.veth = space.veth, ""
        else:
            veth = pool.add_veth(space.path, spec.name, spec.mtu)
        try:
            self.join(veth, spec.mtu)
        except BaseException:
            with contextlib.suppress(OSError):
                pool.delete_link(veth)
            raise
        return veth

    def detach(self, pool: NamespacePool, space: Namespace, spec: InterfaceSpec, veth: str) -> None:
        pool.delete_link(veth)

    def join(self, veth: str, mtu: int = 0) -> None:
        """Makes a link of the host a port of the bridge.

        :raises OSError: one of them is gone.
        """
        messages = [link_set(veth, master=self.bridge, up=True, mtu=mtu)]
        if self.hairpin:
            messages.append(link_set(veth, brport={"IFLA_BRPORT_MODE": 1}))
        self.host.run(*messages)


def attach_interface(pool: NamespacePool, space: Namespace, attacher: Attacher, spec: InterfaceSpec) -> str:
    """Attaches one interface; returns the name of its link's host end."""
    with ExitStack() as undo:
        veth = attacher.attach(pool, space, spec)
        undo.callback(_quietly, lambda: attacher.detach(pool, space, spec, veth))
        link = space.netlink.link(spec.name)
        if link is None:
            raise OSError(errno.ENODEV, "the interface is missing in the container's namespace", spec.name)
        settings = dict(spec.sysctls)
        if spec.ipv6:
            settings = {f"net/ipv6/conf/{spec.name}/disable_ipv6": "0", **settings}
        elif not space.ipv6_disabled(spec.name):
            netns.without_ipv6(space.path, spec.name)
        if settings:
            netns.sysctls(space.path, settings)
        messages: list[Message] = [link_set(index=link.index, mac=spec.mac, mtu=spec.mtu, up=True)]
        messages += [address_add(link.index, address) for address in spec.addresses]
        messages += [route_add(destination, gateway=hop, interface=link.index) for destination, hop in spec.routes]
        space.netlink.run(*messages)
        undo.pop_all()
    return veth


def _quietly(action: Callable[[], object]) -> None:
    with contextlib.suppress(OSError):
        action()


def detach_interface(pool: NamespacePool, netlink: Netlink | None, name: str, veth: str) -> None:
    """Removes an interface by whichever of its ends still exists."""
    if veth:
        pool.delete_link(veth)
    elif netlink is not None:
        try:
            netlink.run(link_delete(name))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise


def set_default_routes(netlink: Netlink, routes: Sequence[DefaultRoute]) -> None:
    """Sets the default routes to exactly these (one for IPv4, one for IPv6, or none)."""
    by_version: Mapping[int, DefaultRoute] = {route.version: route for route in routes}
    links = {link.name: link.index for link in netlink.links()}
    for version, family, name in ((4, 2, "default4"), (6, 10, "default6")):
        route = by_version.get(version)
        index = links.get(route.interface, 0) if route else 0
        for present in netlink.routes(family):
            if present.destination not in ("0.0.0.0/0", "::/0"):
                continue
            if route and present.gateway == route.gateway and present.interface == index:
                route = None  # it exists already
                continue
            netlink.run(route_delete(name, gateway=present.gateway, interface=present.interface))
        if route:
            netlink.run(route_add(name, gateway=route.gateway, interface=index))
