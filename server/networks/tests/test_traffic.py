"""Reachability: real connections between containers, the host and a neighbour, for each kind of network."""

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from server.networks.netlink.rtnetlink import Netlink, address_add
from server.networks.netlink.tests.space import Echo, ask, inside, link_names, refused, until
from server.networks.tests.lan import HOST, HOST6, OUTSIDE, OUTSIDE6, UPLINK, scenario
from server.networks.tests.world import World

pytestmark = pytest.mark.root

GATEWAY_MODE = "com.docker.network.bridge.gateway_mode_ipv4"
GATEWAY_MODE6 = "com.docker.network.bridge.gateway_mode_ipv6"
UDP = socket.SOCK_DGRAM


@contextlib.contextmanager
def echoes(*servers: tuple[str, str, int], kind: int = socket.SOCK_STREAM, v6: bool = False) -> Iterator[None]:
    """Echo servers as (namespace, name, port)."""
    with contextlib.ExitStack() as stack:
        for path, name, port in servers:
            stack.callback(Echo(path, name, port, kind=kind, v6=v6).close)
        yield


def bindings(*ports: str, host: str = "", protocol: str = "tcp") -> dict[str, list[dict[str, str]]]:
    """``8080:80`` … as the API's PortBindings."""
    found: dict[str, list[dict[str, str]]] = {}
    for text in ports:
        outer, _, inner = text.partition(":")
        found.setdefault(f"{inner}/{protocol}", []).append({"HostIp": host, "HostPort": outer})
    return found


def test_a_published_port_is_reached_from_everywhere(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        _, web = await world.run("web", PortBindings=bindings("8080:80"))
        _, client = await world.run("client")
        await world.network("other")
        _, far = await world.run("far", network="other")
        with echoes((web, "web", 80)):
            for address in ("127.0.0.1", HOST, "172.30.250.1", "::1", HOST6):
                assert ask(address, 8080).startswith("web"), address
            assert ask(HOST, 8080, path=outside) == f"web {OUTSIDE}"
            assert ask(HOST6, 8080, path=outside).startswith("web")
            for path in (client, far, web):
                assert ask(HOST, 8080, path=path).startswith("web")
            # unpublished ports are closed except in the own network
            assert ask("172.30.250.2", 80, path=client).startswith("web")
            assert refused("172.30.250.2", 81, path=outside)
            # a route that bypasses the host's address doesn't reach a published port: it may be published at loopback
            # only
            assert refused("172.30.250.2", 80, path=outside)
            assert refused("172.30.250.2", 80, path=far)

    scenario(tmp_path, body)


def test_a_published_port_at_a_link_local_address(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("six", EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd99:6::/64"}]})
        _, web = await world.run("web", network="six", PortBindings=bindings("8080:80"))
        with Netlink() as netlink:
            link = netlink.link(UPLINK)
            assert link is not None
            found = (address.ip for _, address in netlink.addresses(link.index))
            address = next(ip for ip in found if ip.version == 6 and ip.is_link_local)
        with echoes((web, "web", 80), v6=True):
            # The kernel first looks whether others have its link-local addresses.
            assert until(lambda: ask(f"{address}%{UPLINK}", 8080, seconds=1).startswith("web"))
            assert until(lambda: ask(f"{address}%eth0", 8080, path=outside, seconds=1).startswith("web"))

    scenario(tmp_path, body)


def test_udp_and_one_address_only(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        ports = {
            **bindings("5353:53", protocol="udp"),
            **bindings("8081:81", host="127.0.0.1"),
            **bindings("8082:82", host=HOST),
            **bindings("8083:83", host="::1"),
        }
        _, web = await world.run("web", PortBindings=ports)
        with echoes((web, "dns", 53), kind=UDP), echoes(*((web, "web", port) for port in (81, 82, 83))):
            for address in ("127.0.0.1", HOST, "::1", HOST6):
                assert ask(address, 5353, kind=UDP).startswith("dns"), address
            assert ask(HOST, 5353, path=outside, kind=UDP) == f"dns {OUTSIDE}"
            assert ask("127.0.0.1", 8081).startswith("web")
            assert refused(HOST, 8081)
            assert refused(HOST, 8081, path=outside)
            assert ask(HOST, 8082, path=outside).startswith("web")
            assert refused("127.0.0.1", 8082)
            assert ask("::1", 8083).startswith("web")

    scenario(tmp_path, body)


def test_a_port_of_the_loopback_is_closed_to_packets_from_outside(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        _, web = await world.run("web", PortBindings=bindings("5353:53", host="127.0.0.2", protocol="udp"))
        inside(outside, "ip", "addr", "flush", "dev", "lo")
        inside(outside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
        inside(outside, "ip", "route", "add", "127.0.0.2", "via", HOST)
        with echoes((web, "dns", 53), kind=UDP):
            assert ask("127.0.0.2", 5353, kind=UDP).startswith("dns")
            assert ask("127.0.0.2", 5353, path=outside, kind=UDP, seconds=1) == ""

    scenario(tmp_path, body)


@pytest.mark.parametrize("flags", [{"iptables": False}, {"userland_proxy": False}], ids=lambda flags: next(iter(flags)))
def test_without_rules_or_without_forwarder(tmp_path: Path, flags: dict[str, Any]) -> None:
    async def body(world: World, outside: str) -> None:
        ports = {**bindings("8080:80"), **bindings("5353:53", protocol="udp")}
        container, web = await world.run("web", PortBindings=ports)
        with echoes((web, "web", 80)), echoes((web, "dns", 53), kind=UDP):
            for address in ("127.0.0.1", HOST):
                assert ask(address, 8080).startswith("web"), address
                assert ask(address, 5353, kind=UDP).startswith("dns"), address
            assert ask(HOST, 8080, path=outside).startswith("web")
            assert ask(HOST, 5353, path=outside, kind=UDP).startswith("dns")
        with socket.socket() as sock, pytest.raises(OSError, match="in use"):
            sock.bind(("127.0.0.1", 8080))
        await world.stop(container)
        await world.networks.context.wait_teardowns()
        with socket.socket() as sock:
            # connections of the forwarder may still be closing
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 8080))
            sock.listen()

    scenario(tmp_path, body, **flags)


def test_a_range_of_ports_keeps_its_numbers(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        same = {"7000-7999/tcp": [{"HostPort": "7000-7999"}], "6000-6009/tcp": [{"HostPort": "16000-16009"}]}
        _, web = await world.run("web", PortBindings=same)
        with echoes((web, "first", 7000), (web, "last", 7999), (web, "moved", 6009)):
            assert ask(HOST, 7000, path=outside).startswith("first")
            assert ask(HOST, 7999, path=outside).startswith("last")
            assert ask(HOST, 16009, path=outside).startswith("moved")
            assert ask("127.0.0.1", 7999).startswith("last")
        assert "7000-7999" in world.networks.context.firewall.dump()

    scenario(tmp_path, body)


def test_networks_are_isolated(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("one")
        await world.network("inner", Internal=True)
        first, path1 = await world.run("first", network="one")
        second, path2 = await world.run("second", network="inner")
        third, path3 = await world.run("third", network="inner", PortBindings=bindings("8080:80"))
        await world.networks.connect("one", "third", None)
        with echoes((path1, "first", 80), (path2, "second", 80), (path3, "third", 80), (outside, "out", 80)):
            inner = world.address(third, "inner")
            assert ask(OUTSIDE, 80, path=path1).startswith(f"out {HOST}")
            assert ask(OUTSIDE, 80, path=path3).startswith("out")
            assert ask(inner, 80, path=path2).startswith("third")
            assert refused(OUTSIDE, 80, path=path2)
            assert refused(world.address(first, "one"), 80, path=path2)
            assert refused(world.address(second, "inner"), 80, path=path1)
            assert refused(world.address(second, "inner"), 80, path=outside)
            # its ports are published through the network with external connectivity
            assert ask(HOST, 8080, path=outside).startswith("third")

    scenario(tmp_path, body)


def test_icc_off_and_a_link_through_it(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        server, path1 = await world.run(
            "server", config={"ExposedPorts": {"80/tcp": {}}}, PortBindings=bindings("8080:80")
        )
        _, path2 = await world.run("friend", Links=["server:db"])
        _, path3 = await world.run("stranger")
        address = world.address(server)
        with echoes((path1, "server", 80), (path1, "server", 81), (path2, "friend", 80)):
            assert ask(address, 80, path=path2).startswith("server")
            assert refused(address, 81, path=path2)
            assert refused(address, 80, path=path3)
            # a published port is open to all, also through the host's address
            assert ask(HOST, 8080, path=path3).startswith("server")
            assert ask(OUTSIDE, 1, path=path3) == ""
            await world.networks.remove_link("friend/db", world.registry.of(""))
            assert refused(address, 80, path=path2)

    scenario(tmp_path, body, icc=False)


@pytest.mark.parametrize("mode", ["routed", "nat-unprotected"])
def test_gateway_modes_for_inbound_traffic(tmp_path: Path, mode: str) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network(
            "net",
            EnableIPv6=True,
            IPAM={"Config": [{"Subnet": "10.9.9.0/24"}, {"Subnet": "fd99:9::/64"}]},
            Options={GATEWAY_MODE: mode, GATEWAY_MODE6: mode},
        )
        web, path = await world.run("web", network="net", PortBindings=bindings("8080:80"))
        v4, v6 = world.address(web, "net"), str(world.endpoint(web, "net")["GlobalIPv6Address"])
        await world.network("other")
        await world.network("inner", Internal=True)
        _, neighbour = await world.run("near", network="other")
        _, enclosed = await world.run("enclosed", network="inner")
        with echoes((path, "web", 80), (path, "web", 81), (outside, "out", 80)):
            assert ask(v4, 80, path=outside) == f"web {OUTSIDE}"
            assert ask(v4, 80, path=neighbour).startswith("web")
            assert refused(v4, 80, path=enclosed)
            assert refused(v4, 81, path=neighbour) == (mode == "routed")
            if mode == "routed":
                assert refused(v4, 81, path=outside)
                assert refused(HOST, 8080)
                # outgoing traffic isn't translated either
                assert ask(OUTSIDE, 80, path=path) == f"out {v4}"
            else:
                assert ask(v4, 81, path=outside) == f"web {OUTSIDE}"
                assert ask(HOST, 8080, path=outside).startswith("web")
                assert ask(OUTSIDE, 80, path=path) == f"out {HOST}"
        with echoes((path, "six", 80), v6=True):
            assert ask(v6, 80, path=outside) == f"six {OUTSIDE6}"

    scenario(tmp_path, body)


def test_a_routed_network_beside_the_gateway(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("gate")
        await world.network("routed", IPAM={"Config": [{"Subnet": "10.9.9.0/24"}]}, Options={GATEWAY_MODE: "routed"})
        web, path = await world.run("web", network="gate", PortBindings=bindings("8080:80"))
        published = [("0.0.0.0", "8080"), ("::", "8080")]
        for _ in range(2):
            await world.networks.connect("routed", "web", None)
            with echoes((path, "web", 80), (path, "web", 81)):
                assert ask(HOST, 8080, path=outside).startswith("web")
                # The answers leave by the other network, so the host's own table shows that the port is open.
                assert ask(world.address(web, "routed"), 80).startswith("web")
            assert f"{world.address(web, 'routed')} . tcp . 80" in _set(world, "routed4")
            shown = [(item["HostIp"], item["HostPort"]) for item in world.settings(web)["Ports"]["80/tcp"]]
            assert shown == [*published, ("0.0.0.0", "")]
            await world.networks.disconnect("routed", "web")
            assert "tcp . 80" not in _set(world, "routed4")
        await world.networks.connect("routed", "web", None)
        await world.networks.disconnect("gate", "web")
        assert refused(HOST, 8080)
        await world.networks.connect("gate", "web", None)
        with echoes((path, "web", 80)):
            assert ask(HOST, 8080, path=outside).startswith("web")
        assert "tcp . 80" in _set(world, "routed4")

    scenario(tmp_path, body)


def test_a_disconnect_that_leaves_no_gateway(tmp_path: Path) -> None:
    """The container has set its other interface down, so the default route can't change to it."""

    async def body(world: World, outside: str) -> None:
        await world.network("one")
        await world.network("two")
        box, path = await world.run("box", network="one")
        await world.networks.connect("two", "box", None)
        assert inside(path, "ip", "link", "set", "eth1", "down") == ""
        await world.networks.disconnect("one", "box")
        await world.networks.connect("one", "box", None)
        assert world.address(box, "one")

    scenario(tmp_path, body)


def test_an_isolated_gateway_excludes_the_host(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        network = await world.network("lone", Internal=True, Options={GATEWAY_MODE: "isolated"})
        first, path1 = await world.run("first", network="lone")
        _, path2 = await world.run("second", network="lone")
        with echoes((path1, "first", 80)):
            assert ask(world.address(first, "lone"), 80, path=path2).startswith("first")
        with Netlink() as netlink:
            assert not [address for index, address in netlink.addresses(network.index) if address.version == 4]

    scenario(tmp_path, body)


def test_a_trusted_interface_reaches_published_ports(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        option = "com.docker.network.bridge.trusted_host_interfaces"
        await world.network("net", IPAM={"Config": [{"Subnet": "10.9.9.0/24"}]}, Options={option: UPLINK})
        web, path = await world.run("web", network="net", PortBindings=bindings("8080:80", host="127.0.0.1"))
        with echoes((path, "web", 80), (path, "web", 81)):
            assert ask(world.address(web, "net"), 80, path=outside).startswith("web")
            assert refused(world.address(web, "net"), 81, path=outside)

    scenario(tmp_path, body)


def test_ipv6_only(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("six", EnableIPv4=False, EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd99:6::/64"}]})
        web, path = await world.run("web", network="six", PortBindings=bindings("8080:80"))
        _, path2 = await world.run("other", network="six")
        shown = world.endpoint(web, "six")
        assert (shown["IPAddress"], shown["GlobalIPv6Address"], shown["IPv6Gateway"]) == ("", "fd99:6::2", "fd99:6::1")
        with echoes((path, "web", 80), v6=True), echoes((outside, "out", 80), v6=True):
            assert ask("fd99:6::2", 80, path=path2).startswith("web")
            assert ask(HOST6, 8080, path=outside) == f"web {OUTSIDE6}"
            assert ask("::1", 8080).startswith("web")
            # the forwarder serves IPv4 at the host
            assert ask("127.0.0.1", 8080).startswith("web")
            assert ask(HOST, 8080, path=outside).startswith("web")
            assert ask(OUTSIDE6, 80, path=path2) == f"out {HOST6}"

    scenario(tmp_path, body)


def test_a_chosen_source_address_and_none(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("chosen", Options={"com.docker.network.host_ipv4": "192.0.2.77"})
        await world.network(
            "bare",
            IPAM={"Config": [{"Subnet": "10.9.9.0/24"}]},
            Options={"com.docker.network.bridge.enable_ip_masquerade": "false"},
        )
        _, path1 = await world.run("first", network="chosen")
        second, path2 = await world.run("second", network="bare")
        with Netlink() as netlink:
            link = netlink.link(UPLINK)
            assert link is not None
            netlink.run(address_add(link.index, ip_interface("192.0.2.77/24")))
        with echoes((outside, "out", 80)):
            assert ask(OUTSIDE, 80, path=path1) == "out 192.0.2.77"
            assert ask(OUTSIDE, 80, path=path2) == f"out {world.address(second, 'bare')}"
        assert "10.9.9.0" not in _set(world, "masquerade4")
        assert "192.0.2.77" in _set(world, "source4")

    scenario(tmp_path, body)


def _set(world: World, name: str) -> str:
    """One set or map of the engine's table, as nft prints it."""
    dump = world.networks.context.firewall.dump()
    start = min(index for kind in ("set", "map") if (index := dump.find(f"\t{kind} {name} {{")) >= 0)
    return dump[start : dump.index("\n\t}", start)]


def test_a_killed_daemon_leaves_running_containers_their_traffic(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("net")
        web, path = await world.run("web", network="net", PortBindings=bindings("8080:80"))
        gone, _ = await world.run("gone", PortBindings=bindings("8081:80"))
        with echoes((path, "web", 80), (outside, "out", 80)):
            await world.kill()
            assert ask(HOST, 8080, path=outside) == f"web {OUTSIDE}"
            gone.state.running = False
            await world.open()
            assert ask(HOST, 8080, path=outside) == f"web {OUTSIDE}"
            assert ask("::1", 8080).startswith("web")
            assert ask(OUTSIDE, 80, path=path).startswith("out")
        assert "8081" not in world.networks.context.firewall.dump()
        veths = world.networks.context.sandboxes[web.id].endpoints[0].veth
        expected = {"lo", UPLINK, "wt0", world.networks.get("net").bridge, veths}
        pool = world.networks.context.pool
        assert until(lambda: len(pool._ready.get("", ())) == pool._size)
        assert link_names() == expected | {space.veth for space in pool._ready[""]}
        again, _ = await world.run("again", PortBindings=bindings("8081:80"))
        assert world.settings(again)["Ports"]["80/tcp"][0]["HostPort"] == "8081"

    scenario(tmp_path, body)
