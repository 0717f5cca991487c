"""The Ethernet between hosts: a bridge in a namespace of its own, whose firewall drops what a fault drops."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network

from compat_tests.support.host import resources
from compat_tests.support.hosts.machine import Namespaces

# No route leads from here to other networks, so it may be the same in each test run.
SUBNET = IPv4Network("192.168.64.0/24")
#: The bridge's own address, from which clients ask the machines.
_BRIDGE, _FIRST = 1, 11

_FIREWALL = """
table bridge faults {
  set cut { type ifname . ifname; }
  chain forward { type filter hook forward priority 0; iifname . oifname @cut drop; }
}
"""


class Segment:
    """The bridge, with a port for each machine."""

    def __init__(self) -> None:
        self._resources = resources.allocate("segment")
        self._namespaces = Namespaces("segment", self._resources.footprint.mark)
        #: The address of each machine by its name.
        self.addresses: dict[str, str] = {}

    def open(self) -> None:
        bridge = "ip link add br0 type bridge forward_delay 0 mcast_snooping 0"
        address = f"ip addr add {SUBNET[_BRIDGE]}/{SUBNET.prefixlen} dev br0"
        self._namespaces.open(bridge, "ip link set br0 up", address)
        self._nft(_FIREWALL)

    @property
    def enter(self) -> list[str]:
        """The start of a command that runs a program beside the machines: no fault concerns it."""
        return self._namespaces.enter

    def port(self, name: str) -> SegmentPort:
        """The next port, for a machine with this name."""
        self.addresses[name] = str(SUBNET[_FIRST + len(self.addresses)])
        return SegmentPort(self, name)

    def run(self, *argv: str) -> None:
        """Run a program in the namespace of the bridge."""
        self._namespaces.run(*argv)

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Drop all packets between the machines of each pair of names, in both directions."""
        if elements := self._elements(pairs):
            self._nft(f"add element bridge faults cut {{ {elements} }}")

    def heal(self, pairs: Iterable[tuple[str, str]] | None = None) -> None:
        """End the faults between these pairs; None: all faults."""
        if pairs is None:
            self._nft("flush set bridge faults cut")
        elif elements := self._elements(pairs):
            # The deletion of a missing element is an error, its addition is not.
            self._nft(f"add element bridge faults cut {{ {elements} }}")
            self._nft(f"delete element bridge faults cut {{ {elements} }}")

    def _elements(self, pairs: Iterable[tuple[str, str]]) -> str:
        return ", ".join(f'"{a}" . "{b}", "{b}" . "{a}"' for a, b in pairs)

    def _nft(self, text: str) -> None:
        self._namespaces.run("nft", "-f", "-", input=text)

    def close(self) -> list[str]:
        """End it; returns what is left, which is an error."""
        self._namespaces.close()
        left = self._resources.footprint.leftovers()
        self._resources.footprint.remove()
        resources.clear(self._resources.root)
        return left


@dataclass(frozen=True, slots=True)
class SegmentPort:
    """Implements ``machine.Port``."""

    segment: Segment
    name: str

    @property
    def address(self) -> str:
        return self.segment.addresses[self.name]

    @property
    def names(self) -> str:
        return "".join(f"{address} {name}\n" for name, address in self.segment.addresses.items())

    def plug(self, machine: Namespaces) -> None:
        # The kernel deletes the link of ended namespaces a while later.
        link = f"ip link del {self.name} 2>&-; ip link add {self.name} type veth peer name eth0 netns {machine.pid}"
        self.segment.run("sh", "-c", f"{link} && ip link set {self.name} master br0 up")
        address = f"ip addr add {self.address}/{SUBNET.prefixlen} dev eth0"
        machine.run("sh", "-c", f"{address} && ip link set eth0 up")


def between(one: Collection[str], others: Collection[str]) -> list[tuple[str, str]]:
    """All pairs of a name of the one and a name of the others."""
    return [(a, b) for a in one for b in others if a != b]
