"""The flags that open the host's forwarding: packets from a neighbour get through with the flag, and are dropped
without."""

import contextlib
import os
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from server.networks.netlink import netns
from server.networks.netlink.rtnetlink import Netlink, address_add, link_add, link_set, route_add
from server.networks.netlink.tests.space import ask, refused
from server.networks.tests.lan import HOST, OUTSIDE, UPLINK, nft, scenario
from server.networks.tests.test_traffic import bindings, echoes
from server.networks.tests.world import World

pytestmark = pytest.mark.root

WEB = "172.30.250.2"
FAR_HOST, FAR = "198.51.100.1", "198.51.100.2"


def mark_packets(mark: int) -> None:
    """Set the firewall mark of what arrives from the neighbour."""
    nft(
        f"""table ip marks {{
            chain early {{
                type filter hook prerouting priority raw; policy accept;
                iifname {UPLINK} meta mark set {mark}
            }}
        }}"""
    )


@contextlib.contextmanager
def second_neighbour(root: Path) -> Iterator[str]:
    """A namespace on another link of the host, whose default route leads to the host; yields its path."""
    path = str(root / "outside" / "far")
    with Netlink() as host, netns.create(path) as there:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            host.run(link_add("veth", "up1", peer="eth0", peer_netns=target))
        finally:
            os.close(target)
        for netlink, name, address in ((host, "up1", FAR_HOST), (there, "eth0", FAR)):
            link = netlink.link(name)
            assert link is not None
            netlink.run(link_set(index=link.index, up=True), address_add(link.index, ip_interface(f"{address}/24")))
        there.run(route_add("default4", gateway=FAR_HOST))
        try:
            yield path
        finally:
            netns.delete(path)


@pytest.mark.parametrize("allowed", [False, True])
def test_direct_routing(tmp_path: Path, allowed: bool) -> None:
    async def body(world: World, outside: str) -> None:
        _, web = await world.run("web", PortBindings=bindings("8080:80"))
        with echoes((web, "web", 80), (web, "closed", 81)):
            assert ask(HOST, 8080, path=outside) == f"web {OUTSIDE}"
            if allowed:
                assert ask(WEB, 80, path=outside) == f"web {OUTSIDE}"
            else:
                assert refused(WEB, 80, path=outside)
            assert refused(WEB, 81, path=outside), "a port that is not published stays closed"

    scenario(tmp_path, body, allow_direct_routing=allowed)


@pytest.mark.parametrize(
    ("flag", "mark", "accepted"),
    [("", 7, False), ("7", 7, True), ("7", 23, False), ("0x10/0xf0", 0x17, True), ("0x10/0xf0", 0x27, False)],
)
def test_a_firewall_mark(tmp_path: Path, flag: str, mark: int, accepted: bool) -> None:
    async def body(world: World, outside: str) -> None:
        mark_packets(mark)
        _, web = await world.run("web")
        await world.network("inner", Internal=True)
        inner, closed = await world.run("inner", network="inner")
        with echoes((web, "web", 81), (closed, "inner", 81)):
            if accepted:
                assert ask(WEB, 81, path=outside) == f"web {OUTSIDE}"
            else:
                assert refused(WEB, 81, path=outside)
            assert refused(world.address(inner, "inner"), 81, path=outside), "an internal network stays closed"

    scenario(tmp_path, body, bridge_accept_fwmark=flag)


@pytest.mark.parametrize(
    ("settings", "routed"), [({}, False), ({"ip_forward_no_drop": True}, True), ({"iptables": False}, True)]
)
def test_the_host_as_a_router_for_others(tmp_path: Path, settings: dict[str, Any], routed: bool) -> None:
    """The engine switches forwarding on, so it decides whether the host also routes between its other links."""

    async def body(world: World, outside: str) -> None:
        assert netns.sysctl("net.ipv4.ip_forward") == "1"
        with second_neighbour(tmp_path) as far, echoes((far, "far", 80)):
            if routed:
                assert ask(FAR, 80, path=outside) == f"far {OUTSIDE}"
            else:
                assert refused(FAR, 80, path=outside)
            assert ask(FAR, 80).startswith("far")

    scenario(tmp_path, body, **settings)


def test_a_host_that_is_a_router_already_stays_one(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        with second_neighbour(tmp_path) as far, echoes((far, "far", 80)):
            assert ask(FAR, 80, path=outside) == f"far {OUTSIDE}"

    def prepare() -> None:
        netns.sysctl("net.ipv4.ip_forward", "1")

    scenario(tmp_path, body, before=prepare)
