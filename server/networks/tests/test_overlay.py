"""Networks of a swarm on one node, with real traffic: names, virtual addresses, the routing mesh, recovery."""

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.common.system import linux
from server.networks.model import Network
from server.networks.netlink.tests.space import ask, inside, link_names, refused, until
from server.networks.overlay.model import Backend, MeshPort, ServiceAddresses, SwarmNetwork
from server.networks.sandboxes.gateway import NAME as GATEWAY
from server.networks.tests.lan import HOST, HOST6, OUTSIDE, lan, nft, resolve, scenario
from server.networks.tests.test_traffic import bindings, echoes
from server.networks.tests.world import World, configured

pytestmark = pytest.mark.root

NET = SwarmNetwork("nwnet0123456789abcdefghijk", "app", [("10.0.1.0/24", "10.0.1.1")], 4097, attachable=True)
INGRESS = SwarmNetwork("nwing0123456789abcdefghijk", "ingress", [("10.0.0.0/24", "10.0.0.1")], 4096, ingress=True)
VIP = "10.0.1.2"
UDP = socket.SOCK_DGRAM


async def attach(world: World, name: str, *networks: tuple[SwarmNetwork, str], **host: object) -> str:
    """Starts the container of a task; returns its namespace."""
    endpoints = {net.id: {"IPAMConfig": {"IPv4Address": address}} for net, address in networks}
    container = await world.create(name, network=networks[0][0].id, endpoints=endpoints, **host)
    container.managed = True
    sandbox = await world.start(container)
    return sandbox.netns_path or ""


def service(addresses: Sequence[str], *, name: str = "web", virtual: str = VIP) -> ServiceAddresses:
    backends = [Backend(f"{name}.{address.rpartition('.')[2]}", address) for address in addresses]
    return ServiceAddresses(f"id-{name}", (name, f"{name}-alias"), virtual, backends)


def network(world: World, wanted: SwarmNetwork = NET) -> Network:
    return world.networks.context.networks[wanted.id]


def test_tasks_reach_each_other_and_the_outside(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        overlay = world.networks.overlay
        assert list(overlay.realized()) == []
        await overlay.realize(NET)
        await overlay.realize(NET)
        assert list(overlay.realized()) == [NET.id]
        assert (network(world).scope, network(world).driver) == ("swarm", "overlay")
        one = await attach(world, "web.1", (NET, "10.0.1.5"))
        two = await attach(world, "web.2", (NET, "10.0.1.6"))
        assert "mtu 1450" in inside(one, "ip", "link", "show", "eth0")
        assert resolve(one, "web.2") == (0, ["10.0.1.6"])
        with echoes((two, "two", 80), (outside, "outside", 80)):
            assert ask("10.0.1.6", 80, path=one) == "two 10.0.1.5"
            # the way out is docker_gwbridge, with the host's address
            assert ask(OUTSIDE, 80, path=one) == f"outside {HOST}"
            assert refused("10.0.1.6", 80, path=outside)
            assert refused("10.0.1.6", 80)
        gateway = world.networks.context.by_name(GATEWAY)
        assert gateway is not None
        assert f"default via {gateway.gateway(4)} dev eth1" in inside(one, "ip", "route")

    scenario(tmp_path, body)


def test_an_internal_network_has_no_way_out(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        subnets = [("10.0.2.0/24", "10.0.2.1")]
        closed = SwarmNetwork("nwint0123456789abcdefghijk", "closed", subnets, 4098, internal=True)
        await world.networks.overlay.realize(closed)
        path = await attach(world, "task", (closed, "10.0.2.5"))
        assert "default" not in inside(path, "ip", "route")
        assert world.networks.context.by_name(GATEWAY) is None

    scenario(tmp_path, body)


def test_addresses_are_the_swarms(tmp_path: Path) -> None:
    async def body(world: World, _: str) -> None:
        await world.networks.overlay.realize(NET)
        await attach(world, "task", (NET, "10.0.1.5"))
        with pytest.raises(WharfError, match="Could not attach to network app: the swarm is not available"):
            await world.run("other", network=NET.id, endpoints={NET.id: {}})
        with pytest.raises(WharfError, match="Address already in use"):
            await attach(world, "third", (NET, "10.0.1.5"))
        with pytest.raises(WharfError, match=r"no configured subnet contains IP address 10\.0\.9\.5"):
            await attach(world, "fourth", (NET, "10.0.9.5"))

    scenario(tmp_path, body)


def test_a_local_network_keeps_its_name(tmp_path: Path) -> None:
    async def body(world: World, _: str) -> None:
        local = await world.network("app")
        with pytest.raises(WharfError, match="network with name app already exists"):
            await world.networks.overlay.realize(NET)
        assert world.networks.get("app") is local

    scenario(tmp_path, body)


def test_a_node_local_network_is_made_of_its_configuration(tmp_path: Path) -> None:
    near = SwarmNetwork("nwloc0123456789abcdefghijk", "near", driver="bridge", config_from="cfg", attachable=True)

    async def body(world: World, outside: str) -> None:
        overlay = world.networks.overlay
        with pytest.raises(WharfError, match='configuration network "cfg" does not exist'):
            await overlay.realize(near)
        assert not overlay.realized()
        await world.network("cfg", ConfigOnly=True, IPAM={"Config": [{"Subnet": "10.0.77.0/24"}]})
        for _ in range(2):
            await overlay.realize(near)
        await overlay.connect(near.id, ())
        await overlay.balance(near.id, ())
        made = world.networks.get("near")
        assert (made.id, made.scope, [str(pool.subnet) for pool in made.pools]) == (near.id, "swarm", ["10.0.77.0/24"])
        task = await world.create("task", network=near.id, endpoints={near.id: {}})
        task.managed = True
        await world.start(task)
        assert world.address(task, "near") == "10.0.77.2"
        # It is a network of the swarm: users can't attach to it by themselves, and it goes with the swarm.
        with pytest.raises(WharfError, match="Could not attach to network near: the swarm is not available"):
            await world.run("other", network=near.id, endpoints={near.id: {}})
        with pytest.raises(WharfError, match='configuration network "cfg" is in use'):
            await world.networks.delete("cfg")
        await world.stop(task)
        await overlay.close_swarm()
        assert not overlay.realized()
        await world.networks.delete("cfg")

    scenario(tmp_path, body)


def test_a_service_is_balanced(tmp_path: Path) -> None:
    async def body(world: World, _: str) -> None:
        overlay = world.networks.overlay
        await overlay.realize(NET)
        both = ("10.0.1.5", "10.0.1.6")
        backends = {address: await attach(world, f"web.{address[-1]}", (NET, address)) for address in both}
        client = await attach(world, "client", (NET, "10.0.1.9"))
        await overlay.balance(NET.id, [service(list(backends))])
        for name in ("web", "WEB-alias"):
            assert resolve(client, name) == (0, [VIP])
        assert sorted(resolve(client, "tasks.web")[1]) == ["10.0.1.5", "10.0.1.6"]
        assert resolve(client, "5.1.0.10.in-addr.arpa", 12)[1] == ["web.5.app"]
        servers = [(path, address, 80) for address, path in backends.items()]
        with echoes(*servers), echoes(*servers, kind=UDP):
            answers = Counter(ask(VIP, 80, path=client).partition(" ")[0] for _ in range(6))
            assert answers == {"10.0.1.5": 3, "10.0.1.6": 3}
            answers = Counter(ask(VIP, 80, path=client, kind=UDP).partition(" ")[0] for _ in range(4))
            assert set(answers) == {"10.0.1.5", "10.0.1.6"}
            # also a backend reaches its own service
            own = Counter(ask(VIP, 80, path=backends["10.0.1.5"]).partition(" ")[0] for _ in range(4))
            assert own == {"10.0.1.5": 2, "10.0.1.6": 2}
            await overlay.balance(NET.id, [service(["10.0.1.6"])])
            assert {ask(VIP, 80, path=client) for _ in range(3)} == {"10.0.1.6 10.0.1.9"}
            # a container that starts later has the rules, too
            late = await attach(world, "late", (NET, "10.0.1.10"))
            assert ask(VIP, 80, path=late) == "10.0.1.6 10.0.1.10"
            await overlay.balance(NET.id, [service([])])
            assert refused(VIP, 80, path=client)
        await overlay.balance(NET.id, [service(["10.0.1.5", "10.0.1.6"], virtual="")])
        assert sorted(resolve(client, "web")[1]) == ["10.0.1.5", "10.0.1.6"]
        assert refused(VIP, 80, path=client)

    scenario(tmp_path, body)


def test_a_connection_outlasts_a_change(tmp_path: Path) -> None:
    async def body(world: World, _: str) -> None:
        overlay = world.networks.overlay
        await overlay.realize(NET)
        web = await attach(world, "web.5", (NET, "10.0.1.5"))
        client = await attach(world, "client", (NET, "10.0.1.9"))
        await overlay.balance(NET.id, [service(["10.0.1.5"])])
        with linux.in_namespace(web, linux.CLONE_NEWNET):
            listener = socket.create_server(("0.0.0.0", 80))
        with linux.in_namespace(client, linux.CLONE_NEWNET):
            mine = socket.socket()
        with listener, mine:
            mine.connect((VIP, 80))
            theirs, _ = listener.accept()
            with theirs:
                await overlay.balance(NET.id, [service(["10.0.1.7"])])
                mine.sendall(b"still here")
                theirs.settimeout(10)
                assert theirs.recv(100) == b"still here"

    scenario(tmp_path, body)


def test_the_mesh_answers_everywhere(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        overlay = world.networks.overlay
        await overlay.realize(INGRESS)
        await overlay.realize(NET)
        tasks = {
            address: await attach(world, f"web.{address[-1]}", (INGRESS, address), (NET, f"10.0.1.{address[-1]}"))
            for address in ("10.0.0.5", "10.0.0.6")
        }
        await world.network("other")
        _, far = await world.run("far", network="other")
        web = MeshPort("tcp", 8080, 80, ["10.0.0.5", "10.0.0.6"])
        await overlay.publish([web, MeshPort("udp", 53, 53, ["10.0.0.5"])])
        servers = [(path, address, 80) for address, path in tasks.items()]
        with echoes(*servers), echoes((tasks["10.0.0.5"], "dns", 53), kind=UDP):
            for address in ("127.0.0.1", HOST, "10.0.0.1", "::1", HOST6):
                answers = {ask(address, 8080).partition(" ")[0] for _ in range(2)}
                assert answers == {"10.0.0.5", "10.0.0.6"}, address
                assert ask(address, 53, kind=UDP).startswith("dns")
            answers = {ask(HOST, 8080, path=outside) for _ in range(2)}
            assert answers == {"10.0.0.5 10.0.0.1", "10.0.0.6 10.0.0.1"}
            assert ask(HOST6, 8080, path=outside)
            assert ask(HOST, 53, path=outside, kind=UDP).startswith("dns")
            for path in (far, *tasks.values()):
                assert ask(HOST, 8080, path=path), path
            assert refused("10.0.0.5", 80, path=outside)
            assert refused("10.0.0.5", 80, path=far)
            await overlay.publish([MeshPort("tcp", 8080, 80, ["10.0.0.6"])])
            assert {ask(HOST, 8080, path=outside) for _ in range(3)} == {"10.0.0.6 10.0.0.1"}
            await overlay.publish([MeshPort("tcp", 8080, 80, [])])
            for address in ("127.0.0.1", HOST, "::1"):
                assert refused(address, 8080)
            assert refused(HOST, 8080, path=outside)
            await overlay.publish([])
            assert refused(HOST, 8080, path=outside)
        socket.create_server(("0.0.0.0", 8080)).close()

    scenario(tmp_path, body)


def test_a_port_in_use_is_named_and_the_others_are_published(tmp_path: Path) -> None:
    async def body(world: World, _: str) -> None:
        overlay = world.networks.overlay
        await overlay.realize(INGRESS)
        path = await attach(world, "web.5", (INGRESS, "10.0.0.5"))
        await world.run("plain", PortBindings=bindings("8080:80"))
        ports = [MeshPort("tcp", port, 80, ["10.0.0.5"]) for port in (8080, 8081, 8082)]
        with socket.create_server(("0.0.0.0", 8081)), echoes((path, "web", 80)):
            with pytest.raises(WharfError) as caught:
                await overlay.publish(ports)
            assert caught.value.kind is Kind.INTERNAL
            assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in caught.value.message
            assert "0.0.0.0:8081" in caught.value.message
            assert ask(HOST, 8082).startswith("web")
        # the next change tries them again, and a container can't have a port of the mesh
        with pytest.raises(WharfError, match="8080"):
            await overlay.publish(ports)
        with echoes((path, "web", 80)):
            assert ask(HOST, 8081).startswith("web")
        with pytest.raises(WharfError, match="port is already allocated"):
            await world.run("late", PortBindings=bindings("8082:80"))

    scenario(tmp_path, body)


def test_a_killed_daemon_interrupts_nothing_and_leaving_removes_all(tmp_path: Path) -> None:
    with lan(tmp_path) as outside:
        before = link_names()

        async def run() -> None:
            world = World(tmp_path, configured(tmp_path))
            await world.open()
            overlay = world.networks.overlay
            for each in (INGRESS, NET):
                await overlay.realize(each)
            web = await attach(world, "web.5", (INGRESS, "10.0.0.5"), (NET, "10.0.1.5"))
            plain = await attach(world, "plain", (NET, "10.0.1.9"))
            await overlay.balance(NET.id, [service(["10.0.1.5"])])
            await overlay.publish([MeshPort("tcp", 8080, 80, ["10.0.0.5"])])
            with echoes((web, "web", 80)):
                await world.kill()
                assert ask(HOST, 8080, path=outside).startswith("web")
                await world.open()
                assert sorted(world.networks.overlay.realized()) == sorted((INGRESS.id, NET.id))
                assert ask(HOST, 8080, path=outside).startswith("web")
                assert ask("::1", 8080).startswith("web")
                assert resolve(plain, "web") == (0, [VIP])
                assert ask(VIP, 80, path=plain).startswith("web")
                with pytest.raises(WharfError, match="port is already allocated"):
                    await world.run("late", PortBindings=bindings("8080:80"))
            overlay = world.networks.overlay
            with pytest.raises(WharfError) as caught:
                await overlay.discard(NET.id)
            assert caught.value.kind is Kind.CONFLICT
            for container in list(world.registry):
                if container.name.startswith("web"):
                    await world.remove(container)
            await overlay.close_swarm()
            await overlay.close_swarm()
            assert list(overlay.realized()) == []
            assert "table ip wharf-services" not in inside_nft(plain)
            assert {network.name for network in world.networks.context} == {"none", "host", "bridge"}
            assert await world.networks.context.store.load_overlays() == {}
            assert refused(HOST, 8080, path=outside)
            for container in list(world.registry):
                await world.stop(container)
            await world.close()

        asyncio.run(run())
        assert until(lambda: link_names() == before), link_names()


def inside_nft(path: str) -> str:
    with linux.in_namespace(path, linux.CLONE_NEWNET):
        return nft("list ruleset")
