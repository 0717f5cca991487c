"""Creates, adopts, checks and removes Linux bridges. Blocks; call it in a thread."""

import contextlib
import errno
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Interface

from engine.common.errors import Kind, WharfError
from server.networks.netlink.netns import sysctl
from server.networks.netlink.rtnetlink import (
    Interface,
    Link,
    Netlink,
    address_add,
    address_delete,
    link_add,
    link_delete,
    link_set,
)


def ensure(
    host: Netlink,
    name: str,
    addresses: Sequence[Interface],
    *,
    mtu: int = 0,
    alias: str = "",
    mac: str = "",
    fixed_mac: bool = False,
) -> Link:
    """Makes sure that the bridge ``name`` exists, is up, and has exactly these addresses; returns it.

    :param mac: of a new device, "" any: neighbours that know a former device's MAC can still reach it.
    :param fixed_mac: ``mac`` is also set on an existing device.

    An existing bridge is adopted: its other IPv4 addresses are removed (as dockerd does with docker0). Containers stay
    attached.

    :raises WharfError: a device of that name is not a bridge.
    """
    link = host.link(name)
    fresh = link is None
    if link is None:
        # Set a MAC: a bridge without one takes a port's, and changes it when the port is removed.
        mac = mac or "02:42:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(4))
        with contextlib.suppress(FileExistsError):
            # Set it up in the same batch: each message waits for a lock that other engines and devices of the host use
            # too.
            host.run(link_add("bridge", name, mac=mac, up=True), link_set(name, alias=alias))
        link = host.link(name)
        if link is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)
    elif link.kind != "bridge":
        raise WharfError(Kind.INTERNAL, f"existing interface {name} is not a bridge")
    if fixed_mac and link.mac != mac:
        host.run(link_set(index=link.index, mac=mac))
        link = replace(link, mac=mac)
    if any(address.version == 6 for address in addresses):
        with contextlib.suppress(OSError):
            sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0")
    present = set() if fresh else {address for index, address in host.addresses(link.index) if index == link.index}
    # The kernel has an IPv6 address once, with any prefix: keep it, as a bridge's prefix has no effect.
    stay = {address for address in present if address.version == 6 and address.ip in {other.ip for other in addresses}}
    for address in addresses:
        if address not in present and all(address.ip != other.ip for other in stay):
            host.run(address_add(link.index, address))
    for address in present - set(addresses) - stay:
        if address.version == 6 and isinstance(address, IPv6Interface) and address.ip.is_link_local:
            continue
        if any(address.version == other.version for other in addresses):
            host.run(address_delete(link.index, address))
    if not link.up or (mtu and link.mtu != mtu):
        # An MTU set on an existing bridge stays; one given at its creation would follow the ports.
        host.run(link_set(index=link.index, up=True, mtu=mtu))
    return link


def localnet(name: str, *, on: bool) -> None:
    """Whether the host's 127.0.0.1 may be translated towards the bridge."""
    sysctl(f"net/ipv4/conf/{name}/route_localnet", "1" if on else "0")


def filter_bridged() -> None:
    """Makes the firewall see traffic between ports of one bridge, for bridges without icc.

    :raises WharfError: this kernel can't.
    """
    for name in ("iptables", "ip6tables"):
        try:
            if sysctl(f"net/bridge/bridge-nf-call-{name}") != "1":
                sysctl(f"net/bridge/bridge-nf-call-{name}", "1")
        except FileNotFoundError:
            raise WharfError(
                Kind.INTERNAL,
                "cannot restrict inter-container communication: "
                "please ensure that br_netfilter kernel module is loaded",
            ) from None


def remove(host: Netlink, name: str, alias: str) -> None:
    """Removes a bridge with ``alias``, which this engine created: an administrator's stays. A missing one is fine."""
    link = host.link(name)
    if link is None or link.alias != alias:
        return
    try:
        host.run(link_delete(name))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
