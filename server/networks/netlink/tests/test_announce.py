"""The announcements of an interface, as its neighbours' kernels understand them."""

import contextlib
import subprocess
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from server.networks.netlink import netns
from server.networks.netlink.announce import announce
from server.networks.netlink.rtnetlink import address_add, link_add, link_set
from server.networks.netlink.tests.space import own_namespace, until

pytestmark = pytest.mark.root

ADDRESSES = [ip_interface("198.51.100.7/24"), ip_interface("2001:db8::7/64")]
OTHER, MAC = "02:42:00:00:00:01", "02:42:de:ad:be:ef"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two namespaces with the ends of a veth, ``eth0``; the second knows the addresses of the first with another MAC
    address."""
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    with own_namespace(), contextlib.ExitStack() as stack:
        ends = []
        for path, own in ((one, ADDRESSES), (two, [ip_interface("198.51.100.8/24"), ip_interface("2001:db8::8/64")])):
            netlink = stack.enter_context(contextlib.closing(netns.create(path)))
            stack.callback(netns.delete, path)
            ends.append((path, netlink, own))
        with open(one) as target:
            ends[1][1].run(link_add("veth", "eth0", peer="moved"))
            moved = ends[1][1].link("moved")
            assert moved is not None
            ends[1][1].run(link_set(index=moved.index, rename="eth0", netns=target.fileno()))
        for _, netlink, own in ends:
            link = netlink.link("eth0")
            assert link is not None
            mac = MAC if own is ADDRESSES else ""
            netlink.run(link_set(index=link.index, mac=mac, up=True), *(address_add(link.index, each) for each in own))
        for address in ADDRESSES:
            ip(two, "neigh", "replace", str(address.ip), "lladdr", OTHER, "dev", "eth0", "nud", "stale")
        yield one, two


def ip(path: str, *argv: str) -> str:
    argv = ("nsenter", f"--net={path}", "ip", *argv)
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout


def known(path: str) -> list[str]:
    return [ip(path, "neigh", "show", "to", str(address.ip), "dev", "eth0").split()[2] for address in ADDRESSES]


def test_neighbours_update_a_mac_address(pair: tuple[str, str]) -> None:
    one, two = pair
    assert known(two) == [OTHER, OTHER]

    def updated() -> bool:
        announce(one, "eth0", ADDRESSES)
        return known(two) == [MAC, MAC]

    assert until(updated), ip(two, "neigh")


def test_a_link_without_ethernet_announces_nothing(pair: tuple[str, str]) -> None:
    announce(pair[0], "lo", ADDRESSES)
    assert known(pair[1]) == [OTHER, OTHER]


def test_a_missing_interface_is_an_error(pair: tuple[str, str]) -> None:
    with pytest.raises(OSError, match="No such device"):
        announce(pair[0], "eth1", ADDRESSES)
