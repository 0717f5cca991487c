"""The machine's network interfaces, as the choice of a node's addresses needs them."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Interface:
    """``kind``: the kernel's name of its driver, "" for hardware."""

    name: str
    kind: str
    up: bool
    addresses: Sequence[Address]


@dataclass(frozen=True, slots=True)
class Interfaces:
    """``own``: the subnets of the engine's networks, whose interfaces are none of the machine's. ``advertised``: the
    address or interface that a node advertises by default (``--swarm-default-advertise-addr``); "": one is chosen."""

    all: Sequence[Interface]
    own: Sequence[IPv4Network | IPv6Network] = ()
    advertised: str = ""
