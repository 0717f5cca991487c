"""The pools from which networks without a given subnet get one, and the subnets that the host uses."""

import contextlib
import secrets
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Network, ip_network

from server.networks.ipam import allocator
from server.networks.ipam.allocator import DefaultPool, Network
from server.networks.netlink.rtnetlink import Netlink


def default_pools(configured: Sequence[DefaultPool], version: int) -> Iterable[DefaultPool]:
    """The configured pools of a family; else dockerd's for IPv4, and a random unique local prefix (RFC 4193) for
    IPv6."""
    found = [pool for pool in configured if pool.base.version == version]
    if found:
        return found
    if version == 4:
        return allocator.LOCAL_DEFAULTS
    prefix = IPv6Network((0xFD << 120 | int.from_bytes(secrets.token_bytes(5), "big") << 80, 48))
    return [DefaultPool(prefix, 64)]


def subnets_in_use(host: Netlink) -> list[Network]:
    """In a thread: the networks that the host has routes to."""
    found: list[Network] = []
    for family in (2, 10):
        for route in host.routes(family):
            with contextlib.suppress(ValueError):
                found.append(ip_network(route.destination, strict=False))
    return [network for network in found if network.prefixlen]
