"""Containers on networks of plugins: links, routes, gateways, ports; and nothing left after failures and crashes."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.common.errors import Kind, WharfError
from server.networks import query
from server.networks.netlink.tests.space import ask, inside, link_names
from server.networks.remote.tests.plugins import BRIDGE, IpamPlugin, NetworkPlugin, mac_of
from server.networks.sandboxes.gateway import NAME as GATEWAY
from server.networks.tests.lan import HOST, OUTSIDE, lan, resolve, scenario
from server.networks.tests.test_traffic import bindings, echoes
from server.networks.tests.world import World, configured

pytestmark = pytest.mark.root

SUBNET = {"IPAM": {"Config": [{"Subnet": "10.88.0.0/24"}]}}


def with_plugin(root: Path, body: Callable[[World, NetworkPlugin], Awaitable[None]], **settings: Any) -> None:
    """Runs a test with an engine and a driver ``net`` in the same namespace."""
    (root / "plugins").mkdir()
    with contextlib.ExitStack() as stack:
        plugins: list[NetworkPlugin] = []

        def begin() -> None:
            plugins.append(stack.enter_context(NetworkPlugin(root / "plugins" / "net.sock", **settings)))

        async def run(world: World, _: str) -> None:
            await body(world, plugins[0])

        scenario(root, run, before=begin)


async def settled(world: World) -> None:
    await world.networks.context.wait_teardowns()


def links(plugin: NetworkPlugin) -> set[str]:
    """The links that the driver made and that are on the host."""
    return {name for name in link_names() if name.startswith(("ph", "pc"))}


def test_a_container_on_a_plugin_network(tmp_path: Path) -> None:
    async def body(world: World, plugin: NetworkPlugin) -> None:
        network = await world.network("far", Driver="net", Options={"color": "red"}, **SUBNET)
        assert (network.scope, network.driver) == ("local", "net")
        made = plugin.networks[network.id]
        assert made["Options"]["com.docker.network.generic"] == {"color": "red"}
        assert made["IPv4Data"] == [{"AddressSpace": "LocalDefault", "Pool": "10.88.0.0/24", "Gateway": "10.88.0.1/24"}]
        one, path = await world.run("one", network="far")
        two, other = await world.run("two", network="far")
        shown = world.endpoint(one, "far")
        assert (shown["IPAddress"], shown["Gateway"], shown["IPPrefixLen"]) == ("10.88.0.2", "10.88.0.1", 24)
        assert shown["MacAddress"] == mac_of(plugin.of("Join")[0])
        assert plugin.of("Join")[0]["SandboxKey"] == path
        assert "plug0" in inside(path, "ip", "-o", "link")
        assert "default via 10.88.0.1" in inside(path, "ip", "route")
        assert links(plugin) == {plugin.host_name(body) for body in plugin.of("Join")}
        with echoes((path, "one", 80)):
            assert ask("10.88.0.2", 80, path=other).startswith("one")
            assert ask("10.88.0.2", 80).startswith("one")
        assert resolve(other, "one") == (0, ["10.88.0.2"])
        assert set(plugin.external) == plugin.joins == set(plugin.endpoints)
        assert world.networks.drivers() == ["bridge", "host", "ipvlan", "macvlan", "net", "null", "overlay"]
        with pytest.raises(WharfError, match="has active endpoints"):
            await world.networks.delete("far")
        for container in (one, two):
            await world.stop(container)
        await settled(world)
        assert not plugin.endpoints
        assert not links(plugin)
        await world.networks.delete("far")
        assert not plugin.networks

    with_plugin(tmp_path, body)


def test_the_order_of_the_calls(tmp_path: Path) -> None:
    async def body(world: World, plugin: NetworkPlugin) -> None:
        await world.network("far", Driver="net", **SUBNET)
        box, _ = await world.run("box", network="far")
        await world.stop(box)
        await settled(world)
        await world.networks.delete("far")
        assert plugin.order() == [
            "CreateNetwork",
            "CreateEndpoint",
            "Join",
            "ProgramExternalConnectivity",
            "RevokeExternalConnectivity",
            "Leave",
            "DeleteEndpoint",
            "DeleteNetwork",
        ]

    with_plugin(tmp_path, body)


def test_static_routes(tmp_path: Path) -> None:
    async def body(world: World, plugin: NetworkPlugin) -> None:
        plugin.joined = {
            "Gateway": "",
            "StaticRoutes": [
                {"Destination": "10.90.0.0/16", "RouteType": 0, "NextHop": "10.89.0.9"},
                {"Destination": "10.89.0.0/24", "RouteType": 1},
                {"Destination": "0.0.0.0/0", "RouteType": 0, "NextHop": "10.88.0.7"},
            ],
        }
        await world.network("far", Driver="net", **SUBNET)
        _, path = await world.run("box", network="far")
        routes = inside(path, "ip", "route")
        assert "default via 10.88.0.7 dev plug0" in routes
        assert "10.89.0.0/24 dev plug0 scope link" in routes
        assert "10.90.0.0/16 via 10.89.0.9 dev plug0" in routes
        assert world.networks.context.by_name(GATEWAY) is None
        # A next hop that can't be reached fails the start.
        plugin.joined["StaticRoutes"] = [{"Destination": "10.91.0.0/16", "NextHop": "10.99.0.9"}]
        before = link_names()
        container = await world.create("bad", network="far")
        with pytest.raises(WharfError, match="to sandbox: network is unreachable"):
            await world.start(container)
        assert len(plugin.endpoints) == len(plugin.joins) == 1
        assert link_names() - {GATEWAY} == before

    with_plugin(tmp_path, body)


def test_without_a_gateway_the_engine_adds_one(tmp_path: Path) -> None:
    async def body(world: World, plugin: NetworkPlugin) -> None:
        await world.network("far", Driver="net", **SUBNET)
        box, path = await world.run("box", network="far", PortBindings=bindings("8081:80"))
        context = world.networks.context
        gateway = context.by_name(GATEWAY)
        assert gateway is not None
        assert gateway.bridge == GATEWAY
        shown = (await world.networks.inspect(GATEWAY))["Containers"][box.id]
        assert shown["Name"] == f"gateway_{context.sandboxes[box.id].id[:12]}"
        assert list(world.settings(box)["Networks"]) == ["far"]
        assert "eth0" in inside(path, "ip", "-o", "link")
        assert f"default via {gateway.gateway(4)} dev eth0" in inside(path, "ip", "route")
        assert not plugin.external
        with echoes((path, "box", 80)):
            assert ask(HOST, 8081).startswith("box")
        assert world.settings(box)["Ports"]["80/tcp"][0]["HostPort"] == "8081"
        hosts = await asyncio.to_thread(Path(box.hosts_path).read_text)
        assert "10.88.0.2" in hosts
        assert shown["IPv4Address"].partition("/")[0] not in hosts
        with pytest.raises(WharfError, match="endpoint with name box already exists in network docker_gwbridge"):
            await world.networks.connect(GATEWAY, "box", None)
        old, box.name = box.name, "crate"
        await world.networks.rename(box, old)
        assert (await world.networks.inspect(GATEWAY))["Containers"][box.id]["Name"] == shown["Name"]
        box.name = old
        await world.networks.rename(box, "crate")
        # A bridge that leads out replaces it, and its end brings it back.
        await world.network("near")
        await world.networks.connect("near", "box", None)
        assert box.id not in gateway.endpoints
        assert "dev eth1" in inside(path, "ip", "route")
        assert "eth0" not in inside(path, "ip", "-o", "link")
        with echoes((path, "box", 80)):
            assert ask(HOST, 8081).startswith("box")
        await world.networks.disconnect("near", "box")
        assert box.id in gateway.endpoints
        with echoes((path, "box", 80)):
            assert ask(HOST, 8081).startswith("box")
        await world.networks.disconnect("far", "box")
        assert box.id not in gateway.endpoints
        assert inside(path, "ip", "-o", "link").count("\n") == 1  # lo
        assert not plugin.endpoints
        await world.stop(box)
        await settled(world)
        await world.networks.delete(GATEWAY)

    with_plugin(tmp_path, body, gateway=False)


def test_a_plugin_may_refuse_the_gateway(tmp_path: Path) -> None:
    async def body(world: World, plugin: NetworkPlugin) -> None:
        plugin.joined = {"DisableGatewayService": True}
        await world.network("far", Driver="net", **SUBNET)
        _, path = await world.run("box", network="far")
        assert "default" not in inside(path, "ip", "route")
        assert world.networks.context.by_name(GATEWAY) is None

    with_plugin(tmp_path, body, gateway=False)


def test_connect_and_disconnect_while_it_runs(tmp_path: Path) -> None:
    async def body(world: World, plugin: NetworkPlugin) -> None:
        await world.network("far", Driver="net", **SUBNET)
        box, path = await world.run("box")
        await world.networks.connect("far", "box", None)
        assert "10.88.0.2/24" in inside(path, "ip", "-o", "addr")
        # Its default route stays: networks are in the order of their names.
        assert plugin.external == {}
        assert "default via 172.30.250.1 dev eth0" in inside(path, "ip", "route")
        await world.networks.disconnect("bridge", "box")
        assert set(plugin.external) == set(plugin.endpoints)
        assert "default via 10.88.0.1 dev plug0" in inside(path, "ip", "route")
        await world.networks.connect("bridge", "box", None)
        assert plugin.external == {}
        await world.networks.disconnect("far", "box")
        assert not plugin.endpoints
        assert not links(plugin)
        assert "plug0" not in inside(path, "ip", "-o", "link")
        assert not world.networks.context.sandboxes[box.id].pending
        # A plugin that refuses leaves the container as it was.
        plugin.instead["Join"] = lambda _: {"Err": "no room"}
        with pytest.raises(WharfError, match=r"^remote: no room$"):
            await world.networks.connect("far", "box", None)
        assert not plugin.endpoints
        assert list(box.networking) == ["bridge"]
        assert not world.networks.context.sandboxes[box.id].pending

    with_plugin(tmp_path, body)


@pytest.mark.parametrize("word", ["CreateEndpoint", "Join", "ProgramExternalConnectivity"])
def test_whatever_the_plugin_refuses_nothing_remains(tmp_path: Path, word: str) -> None:
    async def body(world: World, plugin: NetworkPlugin) -> None:
        network = await world.network("far", Driver="net", **SUBNET)
        plugin.instead[word] = lambda _: {"Err": "not today"}
        container = await world.create("box", network="far", endpoints={"far": {}})
        with pytest.raises(WharfError, match="remote: not today") as error:
            await world.start(container)
        assert error.value.kind is Kind.INTERNAL
        assert not plugin.endpoints
        assert not plugin.joins
        assert not links(plugin)
        assert len(await asyncio.to_thread(os.listdir, f"{tmp_path}/run/netns")) <= world.networks.context.pool._size
        assert not network.pools[0].taken
        assert not network.endpoints
        assert not (await world.networks.context.store.load())[1]
        del plugin.instead[word]
        await world.start(container)

    with_plugin(tmp_path, body)


def test_a_link_that_is_not_there_fails_the_start(tmp_path: Path) -> None:
    async def body(world: World, plugin: NetworkPlugin) -> None:
        await world.network("far", Driver="net", **SUBNET)
        plugin.joined = {"InterfaceName": {"SrcName": "nowhere", "DstPrefix": "eth"}}
        container = await world.create("box", network="far")
        words = 'failed to add interface nowhere to sandbox: failed to get link by name "nowhere": Link not found'
        with pytest.raises(WharfError, match=words):
            await world.start(container)
        assert not plugin.endpoints
        assert not links(plugin)

    with_plugin(tmp_path, body)


def test_a_network_that_the_plugin_refuses(tmp_path: Path) -> None:
    async def body(world: World, plugin: NetworkPlugin) -> None:
        plugin.instead["CreateNetwork"] = lambda _: {"Err": "no more"}
        with pytest.raises(WharfError, match=r"^remote: no more$"):
            await world.network("far", Driver="net", **SUBNET)
        assert plugin.order() == ["CreateNetwork"]  # it has nothing to delete
        assert world.networks.context.by_name("far") is None
        assert "far" not in [item.name for item in (await world.networks.context.store.load())[0]]
        plugin.instead["CreateNetwork"] = lambda _: b"garbage"
        with pytest.raises(WharfError, match="it did not answer in HTTP"):
            await world.network("far", Driver="net", **SUBNET)
        assert plugin.order()[-1] == "DeleteNetwork"  # it may have it
        plugin.instead["CreateNetwork"] = lambda _: b"HTTP/1.1 200 OK\r\n\r\nnull"
        await world.network("far", Driver="net", **SUBNET)

    with_plugin(tmp_path, body)


def test_a_driver_of_global_scope(tmp_path: Path) -> None:
    async def body(world: World, plugin: NetworkPlugin) -> None:
        assert (await world.network("far", Driver="net", **SUBNET)).scope == "global"
        with pytest.raises(WharfError, match="cannot downgrade network scope for net networks"):
            await world.network("near", Driver="net", Scope="local")

    with_plugin(tmp_path, body, scope="global")


def test_a_plugin_with_no_interface_of_the_engines(tmp_path: Path) -> None:
    """The null IPAM driver, and a driver that makes its interface in the namespace itself, or none."""

    async def body(world: World, plugin: NetworkPlugin) -> None:
        far = await world.network("far", Driver="net", IPAM={"Driver": "null"})
        assert query.show(world.networks.context, far)["IPAM"]["Config"] == [{"Subnet": "0.0.0.0/0"}]
        assert plugin.of("CreateNetwork")[0]["IPv4Data"] == [{"AddressSpace": "null", "Pool": "0.0.0.0/0"}]
        plugin.given = {"Address": "192.0.2.77/24"}
        plugin.joined = {"DisableGatewayService": True}
        box, path = await world.run("box", network="far")
        assert world.address(box, "far") == "192.0.2.77"
        assert inside(path, "ip", "-o", "link").count("\n") == 1
        await world.stop(box)
        await settled(world)
        assert not plugin.endpoints

    with_plugin(tmp_path, body, wires=False)


@contextlib.contextmanager
def plugins(root: Path, **capabilities: bool) -> Iterator[tuple[NetworkPlugin, IpamPlugin]]:
    with NetworkPlugin(root / "plugins" / "net.sock") as net:
        with IpamPlugin(root / "plugins" / "ipam.sock", **capabilities) as ipam:
            yield net, ipam


def test_an_ipam_plugin_for_the_engines_own_bridge(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()

    async def body(world: World, outside: str) -> None:
        with IpamPlugin(tmp_path / "plugins" / "ipam.sock", RequiresMACAddress=True) as ipam:
            await world.network("far", IPAM={"Driver": "ipam", "Options": {"size": "small"}})
            assert (await world.networks.inspect("far"))["IPAM"] == {
                "Driver": "ipam",
                "Options": {"size": "small"},
                "Config": [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"}],
            }
            one, path = await world.run("one", network="far")
            _, other = await world.run("two", network="far")
            assert world.address(one, "far") == "10.77.0.2"
            mac = ipam.of("RequestAddress")[1]["Options"]["com.docker.network.endpoint.macaddress"]
            assert world.endpoint(one, "far")["MacAddress"] == mac
            assert mac in inside(path, "ip", "-o", "link")
            with echoes((path, "one", 80), (outside, "far away", 80)):
                assert ask("10.77.0.2", 80, path=other).startswith("one")
                assert ask(OUTSIDE, 80, path=path) == f"far away {HOST}"
            ipam.instead["RequestAddress"] = lambda _: {"Error": "full"}
            with pytest.raises(WharfError, match=r"^remote: full$"):
                await world.run("three", network="far")
            with pytest.raises(WharfError, match=r"^failed to allocate gateway \(\): remote: full$"):
                await world.network("more", IPAM={"Driver": "ipam"})
            assert list(ipam.pools.values()) == ["10.77.0.0/24"]
            del ipam.instead["RequestAddress"]
            for container in tuple(world.registry):
                await world.stop(container)
            await settled(world)
            assert ipam.taken == {"pool of 10.77.0.0/24": {"10.77.0.1"}}
            await world.networks.delete("far")
            assert not ipam.pools

    scenario(tmp_path, body)


def test_a_restart_keeps_containers_and_replays(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()

    async def body() -> None:
        world = World(tmp_path, configured(tmp_path))
        await world.open()
        with plugins(tmp_path, RequiresRequestReplay=True) as (net, first):
            await world.network("far", Driver="net", IPAM={"Driver": "ipam"})
            box, path = await world.run("box", network="far")
            taken = dict(first.taken)
            await world.kill()
        with plugins(tmp_path, RequiresRequestReplay=True) as (again, second):
            again.networks, again.endpoints, again.joins = net.networks, net.endpoints, net.joins
            again.external = net.external
            await world.open()
            assert second.taken == taken
            assert not again.of("Join")
            with echoes((path, "box", 80)):
                assert ask("10.77.0.2", 80).startswith("box")
            assert resolve(path, "box") == (0, ["10.77.0.2"])
            await world.stop(box)
            await settled(world)
            assert not again.endpoints
            assert second.taken == {"pool of 10.77.0.0/24": {"10.77.0.1"}}
            await world.networks.delete("far")
            await world.close()

    with lan(tmp_path):
        asyncio.run(body())


def test_a_crash_leaves_nothing_at_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()

    async def body() -> None:
        world = World(tmp_path, configured(tmp_path))
        await world.open()
        with plugins(tmp_path) as (net, ipam):
            await world.network("far", Driver="net", IPAM={"Driver": "ipam"})
            await world.run("runs", network="far")
            gone, _ = await world.run("gone", network="far")
            half, _ = await world.run("half")
            context = world.networks.context
            network = context.of("").get("far")
            record = context.sandboxes[half.id]
            # As if the daemon died between CreateEndpoint and Join of a connect, and in the creation of a network.
            await context.remote.create_endpoint(half, network, half.networking["bridge"], record)
            other = await world.network("other", Driver="net", IPAM={"Driver": "ipam"})
            other.unfinished = True
            await context.store.put(other)
            assert len(net.endpoints) == 3
            await world.kill()
            gone.state.running = False
            await world.open()
            await settled(world)
            assert len(net.endpoints) == len(net.joins) == 1
            assert [item["NetworkID"] for item in net.networks.values()] == [network.id]
            assert {len(addresses) for addresses in ipam.taken.values()} == {2}
            assert world.networks.context.by_name("other") is None
            stored = await world.networks.context.store.load()
            assert not any(item.pending for item in stored[1])
            assert len(stored[1]) == 2
            for container in tuple(world.registry):
                await world.stop(container)
            await settled(world)
            await world.networks.delete("far")
        await world.close()

    with lan(tmp_path):
        asyncio.run(body())


def test_a_plugin_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()

    async def body() -> None:
        world = World(tmp_path, configured(tmp_path))
        await world.open()
        with plugins(tmp_path):
            await world.network("far", Driver="net", IPAM={"Driver": "ipam"})
            await world.network("near", Driver="net", **SUBNET)
            box, path = await world.run("box", network="far")
            await world.networks.connect("near", "box", None)
        before = link_names()
        # This daemon has used the driver: what it can't tell it is logged.
        await world.networks.disconnect("near", "box")
        assert "plug1" not in inside(path, "ip", "-o", "link")
        assert len(link_names()) < len(before)
        await world.networks.delete("near")
        with pytest.raises(WharfError, match='plugin "net" not found'):
            await world.network("new", Driver="net")
        await world.kill()
        await world.open()
        # This one has not.
        words = 'failed to get driver during endpoint leave: plugin "net" not found'
        with pytest.raises(WharfError, match=words):
            await world.networks.disconnect("far", "box")
        await world.stop(box)
        await settled(world)
        assert not {name for name in link_names() if name.startswith(("ph", "pc"))}
        with pytest.raises(WharfError, match="error while removing network: failed deleting Network: plugin"):
            await world.networks.delete("far")
        assert world.networks.context.by_name("far") is not None
        # The next start removes it.
        await world.close()
        await world.open()
        await settled(world)
        assert world.networks.context.by_name("far") is None
        await world.close()
        assert BRIDGE in link_names()  # the plugin's own

    with lan(tmp_path):
        asyncio.run(body())
