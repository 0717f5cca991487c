"""Linux bridges: made, adopted, checked and removed. Blocks; belongs in a thread."""

import contextlib
import errno
import os
import secrets
from collections.abc import Sequence
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
    host: Netlink, name: str, addresses: Sequence[Interface], *, mtu: int = 0, alias: str = "", mac: str = ""
) -> Link:
    """The bridge ``name`` is there, up, and has exactly these addresses; returns it.

    :param mac: of a new device, "" any: neighbours that knew a former one's go on with it.

    A bridge that is there already is taken over: IPv4 addresses that it should not have go (dockerd does the
    same to docker0). Containers stay plugged in.

    :raises WharfError: the name is that of a device that is no bridge.
    """
    link = host.link(name)
    fresh = link is None
    if link is None:
        # A MAC of its own: a bridge without one takes that of a port, and changes it when the port goes.
        mac = mac or "02:42:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(4))
        with contextlib.suppress(FileExistsError):
            # Up at once: each message waits for a lock that the host's other engines and devices want, too.
            host.run(link_add("bridge", name, mac=mac, up=True), link_set(name, alias=alias))
        link = host.link(name)
        if link is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)
    elif link.kind != "bridge":
        raise WharfError(Kind.INTERNAL, f"existing interface {name} is not a bridge")
    if any(address.version == 6 for address in addresses):
        with contextlib.suppress(OSError):
            sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0")
    present = set() if fresh else {address for index, address in host.addresses(link.index) if index == link.index}
    # An IPv6 address is there once, with whatever prefix: it stays, as that of a bridge only informs.
    stay = {address for address in present if address.version == 6 and address.ip in {wish.ip for wish in addresses}}
    for address in addresses:
        if address not in present and all(address.ip != other.ip for other in stay):
            host.run(address_add(link.index, address))
    for address in present - set(addresses) - stay:
        if address.version == 6 and isinstance(address, IPv6Interface) and address.ip.is_link_local:
            continue
        if any(address.version == wanted.version for wanted in addresses):
            host.run(address_delete(link.index, address))
    if not link.up or (mtu and link.mtu != mtu):
        # Set on a bridge that is there it stays; one that it was made with would follow the ports.
        host.run(link_set(index=link.index, up=True, mtu=mtu))
    return link


def localnet(name: str, *, on: bool) -> None:
    """Whether the host's 127.0.0.1 may be translated towards the bridge."""
    sysctl(f"net/ipv4/conf/{name}/route_localnet", "1" if on else "0")


def filter_bridged() -> None:
    """Makes the firewall see traffic between ports of one bridge, for bridges without icc.

    :raises WharfError: this kernel cannot.
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
    """Removes a bridge that carries ``alias``, so was made here: an admin's stays. One that is gone is fine."""
    link = host.link(name)
    if link is None or link.alias != alias:
        return
    try:
        host.run(link_delete(name))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
