"""rtnetlink over a blocking socket: links, addresses, routes.

A :class:`Netlink` belongs to the network namespace of the thread that created it, wherever it is used later; it keeps
that namespace alive until it is closed. Calls block while the kernel's RTNL lock is held, so call them in a thread.
Requests are plain messages from the functions below; :meth:`Netlink.run` sends any number of them with one system call.
Errors are ``OSError`` with the kernel's errno.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

from server.networks.netlink.channel import ACK, CREATE, DUMP, EXCL, HEADER, REQUEST, Channel
from server.networks.netlink.codec import ifaddrmsg, ifinfmsg, rtmsg

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
IFF_UP = 0x1
# linux/if_link.h, of IFLA_INET6_ADDR_GEN_MODE
_IN6_ADDR_GEN_MODE_NONE = 1
IFA_F_NODAD = 0x02
RT_TABLE_MAIN = 254

Message = Any
Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. ``master``: the index of its bridge; 0: none. ``vxlan``: the identifier, the local address and
    the UDP port of a VXLAN device."""

    index: int
    name: str
    kind: str
    master: int
    mac: str
    mtu: int
    up: bool
    alias: str = ""
    vxlan: tuple[int, str, int] | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table; ``gateway`` empty: directly on the link."""

    destination: str
    gateway: str
    interface: int


def _message(kind: Any, command: int, flags: int) -> Message:
    message = kind()
    message["header"]["type"] = command
    message["header"]["flags"] = REQUEST | ACK | flags
    return message


def link_add(
    kind: str,
    name: str,
    *,
    peer: str = "",
    peer_netns: int | None = None,
    netns: int | None = None,
    parent: int = 0,
    mtu: int = 0,
    mac: str = "",
    master: int = 0,
    up: bool = False,
    data: Sequence[tuple[str, object]] = (),
) -> Message:
    """Creates a device. ``peer`` is a veth's other end, created in the namespace of the fd ``peer_netns``; ``data`` are
    the kind's own attributes by pyroute2's names. EEXIST: the name is taken.

    The kernel accepts no alias for a new device: set it with :func:`link_set`, in the same :meth:`Netlink.run`.
    """
    message = _message(ifinfmsg, RTM_NEWLINK, CREATE | EXCL)
    info: list[tuple[str, object]] = [("IFLA_INFO_KIND", kind)]
    inner = list(data)
    if peer:
        attrs: list[tuple[str, object]] = [("IFLA_IFNAME", peer)]
        if peer_netns is not None:
            attrs.append(("IFLA_NET_NS_FD", peer_netns))
        if mtu:
            attrs.append(("IFLA_MTU", mtu))
        inner.append(("VETH_INFO_PEER", {"attrs": attrs}))
    if inner:
        info.append(("IFLA_INFO_DATA", {"attrs": inner}))
    attributes: list[tuple[str, object]] = [("IFLA_IFNAME", name)]
    if parent:
        attributes.append(("IFLA_LINK", parent))
    if netns is not None:
        attributes.append(("IFLA_NET_NS_FD", netns))
    attributes += _link_attributes(mtu=mtu, mac=mac, master=master, alias="")
    attributes.append(("IFLA_LINKINFO", {"attrs": info}))
    message["attrs"] = attributes
    if up:
        message["flags"] = message["change"] = IFF_UP
    return message


def _link_attributes(*, mtu: int, mac: str, master: int | None, alias: str) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    if mtu:
        found.append(("IFLA_MTU", mtu))
    if mac:
        found.append(("IFLA_ADDRESS", mac))
    if master:
        found.append(("IFLA_MASTER", master))
    if alias:
        found.append(("IFLA_IFALIAS", alias))
    return found


def link_set(
    name: str = "",
    *,
    index: int = 0,
    rename: str = "",
    mtu: int = 0,
    mac: str = "",
    master: int = 0,
    netns: int | None = None,
    up: bool | None = None,
    alias: str = "",
    link_local: bool = True,
    brport: Mapping[str, object] | None = None,
) -> Message:
    """Changes a device, given by ``index`` or by ``name``. ``brport``: attributes of it as a bridge's port. ``netns``:
    the file descriptor of the namespace that it moves to, where it has the name ``rename``. ``link_local`` False: the
    kernel gives it no link-local IPv6 address when it goes up later (not in the same message)."""
    message = _message(ifinfmsg, RTM_NEWLINK, 0)
    message["index"] = index
    attributes: list[tuple[str, object]] = []
    if not index:
        attributes.append(("IFLA_IFNAME", name))
    elif rename:
        attributes.append(("IFLA_IFNAME", rename))
    if netns is not None:
        attributes.append(("IFLA_NET_NS_FD", netns))
    attributes += _link_attributes(mtu=mtu, mac=mac, master=master, alias=alias)
    if not link_local:
        generation = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _IN6_ADDR_GEN_MODE_NONE)]}
        attributes.append(("IFLA_AF_SPEC", {"attrs": [("AF_INET6", generation)]}))
    if brport:
        data = {"attrs": list(brport.items())}
        attributes.append(
            ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data)]})
        )
    message["attrs"] = attributes
    if up is not None:
        message["flags"], message["change"] = (IFF_UP if up else 0), IFF_UP
    return message


def link_delete(name: str) -> Message:
    message = _message(ifinfmsg, RTM_DELLINK, 0)
    message["attrs"] = [("IFLA_IFNAME", name)]
    return message


def _address(command: int, flags: int, index: int, interface: Interface) -> Message:
    message = _message(ifaddrmsg, command, flags)
    v4 = interface.version == 4
    message["family"] = socket.AF_INET if v4 else socket.AF_INET6
    message["prefixlen"] = interface.network.prefixlen
    message["index"] = index
    attributes: list[tuple[str, object]] = [("IFA_ADDRESS", str(interface.ip))]
    if v4:
        attributes.append(("IFA_LOCAL", str(interface.ip)))
        if interface.network.prefixlen < 31 and command == RTM_NEWADDR:
            attributes.append(("IFA_BROADCAST", str(interface.network.broadcast_address)))
    elif command == RTM_NEWADDR:
        # Duplicate address detection would delay the address for seconds; IPAM knows that it is free.
        message["flags"] = IFA_F_NODAD
    message["attrs"] = attributes
    return message


def address_add(index: int, interface: Interface) -> Message:
    """EEXIST: the device has it already."""
    return _address(RTM_NEWADDR, CREATE | EXCL, index, interface)


def address_delete(index: int, interface: Interface) -> Message:
    return _address(RTM_DELADDR, 0, index, interface)


def route_add(destination: str, *, gateway: str = "", interface: int = 0) -> Message:
    """A route of the main table. ``destination``: ``default4``, ``default6`` or a prefix."""
    return _route(RTM_NEWROUTE, CREATE | EXCL, destination, gateway, interface)


def route_delete(destination: str, *, gateway: str = "", interface: int = 0) -> Message:
    return _route(RTM_DELROUTE, 0, destination, gateway, interface)


def _route(command: int, flags: int, destination: str, gateway: str, interface: int) -> Message:
    message = _message(rtmsg, command, flags)
    attributes: list[tuple[str, object]] = [("RTA_TABLE", RT_TABLE_MAIN)]
    if destination in ("default4", "default6"):
        message["family"] = socket.AF_INET if destination == "default4" else socket.AF_INET6
        message["dst_len"] = 0
    else:
        target = ip_interface(destination)
        message["family"] = socket.AF_INET if target.version == 4 else socket.AF_INET6
        message["dst_len"] = target.network.prefixlen
        attributes.append(("RTA_DST", str(target.ip)))
    message["table"] = RT_TABLE_MAIN
    if command == RTM_NEWROUTE:
        message["proto"] = 3  # RTPROT_BOOT, as ip(8) writes
        message["type"] = 1  # RTN_UNICAST
    message["scope"] = 0 if gateway or command == RTM_DELROUTE or message["family"] == socket.AF_INET6 else 253
    if gateway:
        attributes.append(("RTA_GATEWAY", gateway))
    if interface:
        attributes.append(("RTA_OIF", interface))
    message["attrs"] = attributes
    return message


class Netlink(Channel):
    """Requests and dumps of links, addresses and routes."""

    def run(self, *messages: Message) -> None:
        """Sends the requests together, waits for all answers and raises the first error.

        The kernel also executes the requests after a failed one.
        """
        with self._lock:
            data, first = self._encode(messages)
            errors = self._acknowledged(data, range(first, first + len(messages)))
        if errors:
            sequence, code = errors[0]
            raise OSError(code, os.strerror(code), _subject(messages[sequence - first]))

    def _encode(self, messages: Sequence[Message]) -> tuple[bytes, int]:
        first = self._sequence + 1
        parts = []
        for message in messages:
            self._sequence += 1
            message["header"]["sequence_number"] = self._sequence
            message.reset()
            message.encode()
            data = bytes(message.data)
            parts.append(data + b"\0" * (-len(data) % 4))
        return b"".join(parts), first

    def _dump(self, kind: Any, request: Message) -> list[Message]:
        with self._lock:
            data, sequence = self._encode((request,))
            answers = self._answers(data, sequence)
        found = []
        for answer, body in answers:
            message = kind(HEADER.pack(len(body) + HEADER.size, answer, 0, sequence, 0) + body)
            message.decode()
            found.append(message)
        return found

    def links(self) -> list[Link]:
        """Every device of the namespace."""
        request = _message(ifinfmsg, RTM_GETLINK, DUMP)
        request["header"]["flags"] = REQUEST | DUMP
        return [_link(message) for message in self._dump(ifinfmsg, request)]

    def link(self, name: str = "", *, index: int = 0) -> Link | None:
        """One device, or None."""
        request = _message(ifinfmsg, RTM_GETLINK, 0)
        request["index"] = index
        if not index:
            request["attrs"] = [("IFLA_IFNAME", name)]
        try:
            found = self._dump(ifinfmsg, request)
        except OSError as error:
            if error.errno == 19:  # ENODEV
                return None
            raise
        return _link(found[0]) if found else None

    def addresses(self, index: int = 0) -> list[tuple[int, Interface]]:
        """(device, address) pairs of one device or of all, including link-local IPv6 ones."""
        request = _message(ifaddrmsg, RTM_GETADDR, 0)
        request["header"]["flags"] = REQUEST | DUMP
        request["index"] = index
        found = []
        for message in self._dump(ifaddrmsg, request):
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            found.append((message["index"], ip_interface(f"{text}/{message['prefixlen']}")))
        return found

    def routes(self, family: int = socket.AF_INET) -> list[Route]:
        """The routes of the main table."""
        request = _message(rtmsg, RTM_GETROUTE, 0)
        request["header"]["flags"] = REQUEST | DUMP
        request["family"] = family
        found = []
        for message in self._dump(rtmsg, request):
            if (message.get_attr("RTA_TABLE") or message["table"]) != RT_TABLE_MAIN or message["type"] != 1:
                continue
            target = message.get_attr("RTA_DST")
            any_ = "0.0.0.0" if family == socket.AF_INET else "::"
            found.append(
                Route(
                    f"{target or any_}/{message['dst_len']}",
                    message.get_attr("RTA_GATEWAY") or "",
                    message.get_attr("RTA_OIF") or 0,
                )
            )
        return found


def _link(message: Message) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") if info else "") or "",
        master=message.get_attr("IFLA_MASTER") or 0,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & IFF_UP),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        vxlan=_vxlan(info),
    )


def _vxlan(info: Message | None) -> tuple[int, str, int] | None:
    if info is None or info.get_attr("IFLA_INFO_KIND") != "vxlan":
        return None
    data = info.get_attr("IFLA_INFO_DATA")
    names = ("IFLA_VXLAN_ID", "IFLA_VXLAN_LOCAL", "IFLA_VXLAN_PORT")
    number, local, port = (data.get_attr(name) for name in names)
    return number or 0, local or "", port or 0


def _subject(message: Message) -> str | None:
    """The subject of a failed request, for the error's text."""
    attributes = dict(message["attrs"] or ())
    for name in ("IFLA_IFNAME", "IFA_ADDRESS", "RTA_DST", "RTA_GATEWAY"):
        if name in attributes:
            return str(attributes[name])
    return None
