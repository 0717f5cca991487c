"""The daemon's network flags: their effect on the default bridge, and on new networks and containers."""

import subprocess
from collections.abc import Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from engine.common.errors import WharfError
from server.config.types import AddressPool
from server.networks.netlink import netns
from server.networks.netlink.rtnetlink import Netlink, address_add, link_add, link_set
from server.networks.netlink.tests.space import Echo, ask, link_names
from server.networks.tests.lan import HOST, HOST6, OUTSIDE, OUTSIDE6, scenario
from server.networks.tests.test_traffic import bindings, echoes
from server.networks.tests.world import World, opened

pytestmark = pytest.mark.root


async def shown(world: World, name: str = "bridge") -> Mapping[str, Any]:
    return await world.networks.inspect(name)


def addresses(device: str) -> set[str]:
    with Netlink() as netlink:
        link = netlink.link(device)
        assert link is not None
        return {str(address) for index, address in netlink.addresses(link.index) if not address.ip.is_link_local}


def default_route(path: str) -> str:
    """The default router of a namespace."""
    argv = ["nsenter", f"--net={path}", "ip", "route", "show", "default"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[2]


def test_ipv6_on_the_default_bridge(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        assert (await shown(world))["EnableIPv6"] is True
        assert addresses("wt0") == {"172.30.250.1/24", "fd00:d0c::1/64"}
        web, path = await world.run("web", PortBindings=bindings("8080:80"))
        assert world.endpoint(web)["GlobalIPv6Address"] == "fd00:d0c::2"
        with echoes((path, "six", 80), v6=True), echoes((outside, "out", 80), v6=True):
            assert ask(HOST6, 8080, path=outside) == f"six {OUTSIDE6}"
            assert ask(OUTSIDE6, 80, path=path) == f"out {HOST6}"

    scenario(tmp_path, body, ipv6=True, fixed_cidr_v6="fd00:d0c::/64")


def test_a_fixed_range_and_gateway(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        config = (await shown(world))["IPAM"]["Config"][0]
        assert (config["Subnet"], config["IPRange"], config["Gateway"]) == (
            "172.30.250.0/24", "172.30.250.128/30", "172.30.250.1",
        )  # fmt: skip
        assert [world.address((await world.run(f"c{n}"))[0]) for n in range(3)] == [
            f"172.30.250.{n}" for n in (128, 129, 130)
        ]

    scenario(tmp_path, body, fixed_cidr="172.30.250.128/30")


def test_existing_addresses_of_the_bridge(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        assert (await shown(world))["IPAM"]["Config"] == [
            {"Subnet": "10.46.0.0/20", "IPRange": "10.46.0.0/20", "Gateway": "10.46.0.8"},
            {"Subnet": "fd00:46::/56", "IPRange": "fd00:46::/64", "Gateway": "fd00:46::8"},
        ]
        box, _ = await world.run("box")
        assert world.address(box) == "10.46.0.1"
        assert world.endpoint(box)["GlobalIPv6Address"].startswith("fd00:46::")

    def prepare() -> None:
        with Netlink() as netlink:
            netlink.run(link_add("bridge", "wt0"))
            link = netlink.link("wt0")
            assert link is not None
            for text in ("10.46.0.8/24", "fd00:46::8/56"):
                netlink.run(address_add(link.index, ip_interface(text)))

    scenario(tmp_path, body, before=prepare, bip="", ipv6=True, fixed_cidr="10.46.0.0/20", fixed_cidr_v6="fd00:46::/64")


def test_another_router_as_gateway(tmp_path: Path) -> None:
    """The host keeps its address; containers use the other router."""

    async def body(world: World, outside: str) -> None:
        assert addresses("wt0") == {"172.30.250.1/24", "fd00:d0c::1/64"}
        box, path = await world.run("box")
        endpoint = world.endpoint(box)
        assert (endpoint["Gateway"], endpoint["IPv6Gateway"]) == ("172.30.250.9", "fd00:d0c::9")
        assert (endpoint["IPAddress"], endpoint["GlobalIPv6Address"]) == ("172.30.250.2", "fd00:d0c::2")
        assert default_route(path) == "172.30.250.9"

    scenario(
        tmp_path,
        body,
        ipv6=True,
        fixed_cidr_v6="fd00:d0c::/64",
        default_gateway="172.30.250.9",
        default_gateway_v6="fd00:d0c::9",
    )


def test_a_fixed_range_is_the_subnet_of_a_bridge_without_address(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        config = (await shown(world))["IPAM"]["Config"][0]
        assert (config["Subnet"], config["Gateway"]) == ("10.45.0.0/25", "10.45.0.1")
        box, _ = await world.run("box")
        assert world.address(box).startswith("10.45.0.")
        with Netlink() as netlink:
            assert ip_interface("10.45.0.1/25") in [address for _, address in netlink.addresses()]

    def prepare() -> None:
        with Netlink() as netlink:
            netlink.run(link_add("bridge", "bare0"))

    scenario(tmp_path, body, before=prepare, bridge="bare0", bip="", fixed_cidr="10.45.0.0/25")


def test_an_administrators_bridge(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        assert (await shown(world))["IPAM"]["Config"] == [{"Subnet": "10.44.0.0/24", "Gateway": "10.44.0.7"}]
        web, path = await world.run("web", PortBindings=bindings("8080:80"))
        assert world.address(web).startswith("10.44.0.")
        assert world.settings(web)["Bridge"] == "admin0"
        with echoes((path, "web", 80)):
            assert ask(HOST, 8080, path=outside) == f"web {OUTSIDE}"

    def prepare() -> None:
        with Netlink() as netlink:
            netlink.run(link_add("bridge", "admin0"))
            link = netlink.link("admin0")
            assert link is not None
            netlink.run(link_set(index=link.index, up=True), address_add(link.index, ip_interface("10.44.0.7/24")))

    def stays() -> None:
        assert "admin0" in link_names()

    scenario(tmp_path, body, before=prepare, after=stays, bridge="admin0", bip="")


def test_a_missing_bridge(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None: ...

    with pytest.raises(WharfError, match="bridge device with non default name nosuch0 must be created manually"):
        scenario(tmp_path, body, bridge="nosuch0", bip="")


def test_a_bridge_of_another_engine(tmp_path: Path) -> None:
    def prepare() -> None:
        with Netlink() as netlink:
            netlink.run(link_add("bridge", "wt0"))
            link = netlink.link("wt0")
            assert link is not None
            netlink.run(link_add("veth", "other0", peer="other1", master=link.index))

    async def body(world: World, outside: str) -> None: ...

    with pytest.raises(WharfError, match=r"bridge wt0 is in use by another engine \(other0 plugged in\)"):
        scenario(tmp_path, body, before=prepare)


def test_no_default_bridge(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        assert {network.name for network in world.networks.context} == {"host", "none"}
        container, _ = await world.run("lone")
        assert list(container.networking) == ["none"]
        await world.network("net")
        await world.run("other", network="net")

    scenario(tmp_path, body, bridge="none", bip="")


def test_an_engine_without_a_bridge_beside_another(tmp_path: Path) -> None:
    """Neither takes the other's links and rules for its own."""

    async def body(world: World, outside: str) -> None:
        async def serves(port: int, name: str) -> None:
            _, path = await world.run(name, PortBindings=bindings(f"{port}:80"))
            with echoes((path, name, 80)):
                assert ask(HOST, port, path=outside) == f"{name} {OUTSIDE}"

        _, path = await world.run("first", PortBindings=bindings("8080:80"))
        with echoes((path, "first", 80)):
            async with opened(tmp_path / "second", bridge="none", bip="") as second:
                await second.run("lone")
                assert ask(HOST, 8080, path=outside) == f"first {OUTSIDE}"
                for number in range(4):  # more than are prepared
                    await serves(8081 + number, f"more{number}")
            assert ask(HOST, 8080, path=outside) == f"first {OUTSIDE}"
        await serves(8090, "last")

    scenario(tmp_path, body)


def test_address_pools_options_and_mtu(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        await world.network("net")
        await world.network("six", EnableIPv6=True)
        assert (await shown(world, "net"))["IPAM"]["Config"][0]["Subnet"] == "10.55.0.0/28"
        assert [item["Subnet"] for item in (await shown(world, "six"))["IPAM"]["Config"]] == [
            "10.55.0.16/28",
            "fd55::/64",
        ]
        assert (await shown(world, "net"))["Options"] == {
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.driver.mtu": "1400",
        }
        _, path = await world.run("one", network="net")
        with netns.open_netlink(path) as netlink:
            link = netlink.link("eth0")
            assert link is not None
            assert link.mtu == 1400
        for number in range(2):
            await world.network(f"n{number}")
        with pytest.raises(WharfError, match="could not find an available, non-overlapping IPv4 address pool"):
            await world.network("toomuch")
        await world.networks.delete("n0")
        await world.network("again")

    pools = (AddressPool("10.55.0.0/26", 28), AddressPool("fd55::/63", 64))
    options = {"bridge": {"com.docker.network.bridge.enable_icc": "false"}}
    scenario(tmp_path, body, default_address_pools=pools, default_network_opts=options, mtu=1400)


def test_published_at_one_address_by_default(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        web, path = await world.run("web", PortBindings=bindings("8080:80"))
        assert world.settings(web)["Ports"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
        with echoes((path, "web", 80)):
            assert ask("127.0.0.1", 8080).startswith("web")
            assert ask(HOST, 8080, path=outside) == ""

    scenario(tmp_path, body, ip="127.0.0.1")


def test_the_default_gateways_network(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        for number, name in enumerate(("a", "b", "c")):
            await world.network(name, IPAM={"Config": [{"Subnet": f"10.60.{number}.0/24"}]}, Internal=name == "c")
        endpoints: dict[str, Any] = {"a": {}, "b": {"GwPriority": 5}, "c": {"GwPriority": 9}}
        container, path = await world.run("one", network="a", endpoints=endpoints, PortBindings=bindings("8080:80"))
        server = Echo(outside, "out", 80)
        try:
            for gone, address in (("", "10.60.1.2"), ("b", "10.60.0.2")):
                if gone:
                    await world.networks.disconnect(gone, "one")
                assert ask(OUTSIDE, 80, path=path) == f"out {HOST}"
                with echoes((path, "web", 80)):
                    assert ask(HOST, 8080, path=outside) == f"web {OUTSIDE}"
                assert address in world.networks.context.firewall.dump()
            await world.networks.disconnect("a", "one")
            assert ask(OUTSIDE, 80, path=path) == ""
            assert world.settings(container)["Ports"]["80/tcp"] is None
        finally:
            server.close()

    scenario(tmp_path, body)


def test_subnets_as_inspect_shows_them(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        async def shown(name: str, *configs: dict[str, Any], **fields: Any) -> Any:
            await world.network(name, IPAM={"Config": list(configs)}, **fields)
            return (await world.networks.inspect(name))["IPAM"]["Config"]

        v4, v6 = {"Subnet": "10.99.1.0/24"}, {"Subnet": "fd00:99:1::/64"}
        own4, own6 = {**v4, "Gateway": "10.99.1.1"}, {**v6, "Gateway": "fd00:99:1::1"}
        assert await shown("both", v6, v4, EnableIPv6=True) == [own4, own6]
        # A subnet that the engine chose is shown after a given one.
        v6 = {"Subnet": "fd00:99:2::/64", "IPRange": "fd00:99:2::8000/113"}
        first, second = await shown("six", v6, EnableIPv6=True)
        assert first == {**v6, "Gateway": "fd00:99:2::8000"}
        assert sorted(second) == ["Gateway", "Subnet"]
        # Only a configuration-only network shows a subnet of a family that is not enabled.
        v6 = {"Subnet": "fd00:99:3::/64"}
        (only,) = await shown("four", v6)
        assert ":" not in only["Subnet"]
        assert await shown("config", v6, ConfigOnly=True) == [v6]

    scenario(tmp_path, body)
