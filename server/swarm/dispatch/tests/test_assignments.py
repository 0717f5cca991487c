"""What nodes know of each other: addresses on all nodes, and that changes are computed as from the start."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from api_models.network import IPAM, IPAMPool
from api_models.swarm.network import Endpoint, NetworkAttachmentConfig, PortConfig, VirtualIP
from api_models.swarm.node import NodeStatus
from api_models.swarm.service import ServiceSpec
from api_models.swarm.task import TaskSpec
from server.networks.overlay.model import Backend, Peer, ServiceAddresses
from server.swarm.agent.dispatcher import Assignments
from server.swarm.dispatch.assignments import Computation
from server.swarm.dispatch.overview import Overview
from server.swarm.model.objects import (
    NETWORK_KEYS,
    Attachment,
    Cluster,
    Network,
    NetworkKeys,
    Node,
    Object,
    Service,
    Task,
    TaskStatus,
)
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Delete, Put, State
from server.swarm.state.tests.opened import opened


def _node(number: int, *, data_path_addr: str = "") -> Node:
    address = f"10.0.0.{100 + number}/24"
    status = NodeStatus(addr=f"192.0.2.{number}")
    return Node(id=f"n{number}", status=status, ingress_address=address, data_path_addr=data_path_addr)


def _network(number: int, *, ingress: bool = False) -> Network:
    pool = IPAMPool(subnet=f"10.0.{number}.0/24", gateway=f"10.0.{number}.1")
    return Network(
        id=f"net{number}", name=f"name{number}", ipam=IPAM(config=(pool,)), vni=4096 + number, ingress=ingress
    )


def _task(number: int, node: int, network: int = 1, state: TaskState = TaskState.RUNNING, service: str = "s0") -> Task:
    return Task(
        id=f"t{number}",
        service_id=service,
        service_name="web",
        slot=number,
        node_id=f"n{node}",
        status=TaskStatus(state=int(state)),
        desired_state=int(TaskState.RUNNING),
        attachments=(Attachment(network_id=f"net{network}", addresses=(f"10.0.{network}.{number + 10}/24",)),),
    )


def _service(number: int, network: int = 1) -> Service:
    return Service(
        id=f"s{number}",
        spec=ServiceSpec(
            name=f"web{number}", task_template=TaskSpec(networks=(NetworkAttachmentConfig(target=f"net{network}"),))
        ),
        endpoint=Endpoint(
            virtual_ips=(VirtualIP(network_id=f"net{network}", addr=f"10.0.{network}.{number + 2}/24"),),
            ports=(PortConfig(protocol="tcp", target_port=80, published_port=8080 + number),),
        ),
    )


def _run(path: Path, scenario: Callable[[State], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(path) as (_, state), asyncio.timeout(30):
            await state.commit([Put(Cluster(id="swarm", data_path_port=4790)), Put(_node(1)), Put(_network(1))])
            await state.commit([Put(_network(0, ingress=True))])
            await scenario(state)

    asyncio.run(run())


def test_peers_are_the_addresses_on_all_nodes(tmp_path: Path) -> None:
    async def scenario(state: State) -> None:
        await state.commit([Put(_task(1, 1)), Put(_task(9, 9))])
        alone = Computation(state.tables).of("n1")
        assert not alone.peers
        assert all((each.local, each.node_address) == ("", "") for each in alone.networks.values())
        ended = _task(3, 2, state=TaskState.FAILED)
        second = _node(2, data_path_addr="198.51.100.2")
        await state.commit([Put(second), Put(_task(2, 2)), Put(ended), Put(_task(4, 2, 7)), Put(_task(5, 2, 0))])
        one = Computation(state.tables).of("n1")
        assert {id: (each.local, each.port, each.node_address) for id, each in one.networks.items()} == {
            "net0": ("192.0.2.1", 4790, "10.0.0.101/24"),
            "net1": ("192.0.2.1", 4790, ""),
        }
        own = Peer("10.0.1.11", "192.0.2.1")
        assert set(one.peers["net1"]) == {own, Peer("10.0.1.12", "198.51.100.2")}
        others = {Peer("10.0.0.15", "198.51.100.2"), Peer("10.0.0.102", "198.51.100.2")}
        assert set(one.peers["net0"]) == {Peer("10.0.0.101", "192.0.2.1")} | others
        two = Computation(state.tables).of("n2")
        assert two.networks["net1"].local == "198.51.100.2"
        assert set(two.peers["net1"]) == set(one.peers["net1"])

    _run(tmp_path, scenario)


def test_encrypted_networks_have_a_port_and_keys(tmp_path: Path) -> None:
    async def scenario(state: State) -> None:
        secret = replace(_network(2), options={"encrypted": ""})
        keys = NetworkKeys(id=NETWORK_KEYS, sealed="x")
        await state.commit([Put(secret), Put(keys), Put(_node(2)), Put(_task(1, 1)), Put(_task(2, 2, 2))])
        one, two = (Computation(state.tables).of(node) for node in ("n1", "n2"))
        stored = state.tables.network_keys
        assert stored is not None
        assert (one.keys, two.keys) == (0, stored.version)
        assert {id: (each.port, each.encrypted) for id, each in two.networks.items()} == {
            "net0": (4790, False),
            "net2": (4791, True),
        }
        # A rotation reaches the nodes that follow.
        overview = Overview(state)
        following = overview.assignments("n2")
        assert (await anext(following)).keys == stored.version
        await state.commit([Put(replace(stored, sealed="y"))])
        assert (await anext(following)).keys == state.revision
        await state.commit([Delete(state.tables.nodes.get("n1"))])
        assert (await anext(following)).keys == 0

    _run(tmp_path, scenario)


def test_containers_of_users_are_found_by_their_names(tmp_path: Path) -> None:
    async def scenario(state: State) -> None:
        networks = (NetworkAttachmentConfig(target="net1", aliases=("box", "db")),)
        box = replace(_task(1, 2, service=""), spec=TaskSpec(networks=networks), created_ns=1)
        late = replace(_task(2, 2, state=TaskState.ASSIGNED, service=""), spec=TaskSpec(networks=networks))
        await state.commit([Put(_node(2)), Put(box), Put(late), Put(_task(3, 1, service="s1"))])
        assert Computation(state.tables).of("n1").services["net1"] == (
            ServiceAddresses("t1", ("box", "db"), "", (Backend("box", "10.0.1.11"),)),
        )

    _run(tmp_path, scenario)


def test_only_nodes_that_a_change_concerns_compute(tmp_path: Path) -> None:
    async def scenario(state: State) -> None:
        await state.commit([Put(_node(2)), Put(_node(3)), Put(_network(2)), Put(_service(0))])
        await state.commit([Put(_task(1, 1)), Put(_task(2, 2)), Put(_task(3, 3, 2))])
        overview = Overview(state)
        computed: list[str] = []
        latest: dict[str, Assignments] = {}

        async def follow(node: str) -> None:
            async for current in overview.assignments(node):
                computed.append(node)
                latest[node] = current

        async def after(item: Object) -> list[str]:
            computed.clear()
            await state.commit([Put(item)])
            await asyncio.sleep(0.05)
            return sorted(computed)

        followers = [asyncio.create_task(follow(node)) for node in ("n1", "n2", "n3")]
        await asyncio.sleep(0.05)
        assert sorted(computed) == ["n1", "n2", "n3"]
        tasks = state.tables.tasks
        assert await after(replace(tasks.get("t3"), updated_ns=5)) == ["n3"]
        assert await after(_task(4, 2)) == ["n1", "n2"]
        assert Peer("10.0.1.14", "192.0.2.2") in latest["n1"].peers["net1"]
        assert latest["n1"].nodes == 3
        assert await after(replace(tasks.get("t4"), desired_state=int(TaskState.SHUTDOWN))) == ["n1", "n2"]
        assert "10.0.1.14" not in {each.address for each in latest["n1"].services["net1"][0].backends}
        assert await after(replace(state.tables.nodes.get("n2"), updated_ns=5)) == []
        assert await after(replace(state.tables.nodes.get("n2"), data_path_addr="203.0.113.2")) == ["n1", "n2", "n3"]
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)

    _run(tmp_path, scenario)


def test_nodes_share_what_has_not_changed(tmp_path: Path) -> None:
    async def scenario(state: State) -> None:
        await state.commit([Put(_node(2)), Put(_network(2)), Put(_service(0)), Put(_service(1, 2))])
        await state.commit([Put(_task(1, 1)), Put(_task(2, 2)), Put(_task(3, 2, 2)), Put(_task(4, 1, 2))])
        subscription = state.subscribe()
        computation = Computation(state.tables)
        before = computation.of("n1"), computation.of("n2")
        stopped = replace(state.tables.tasks.get("t2"), desired_state=int(TaskState.SHUTDOWN))
        await state.commit([Put(stopped)])
        assert computation.note(subscription.take()) == {"n2"}
        urgent = computation.of("n2")
        assert urgent.tasks["t2"].desired is TaskState.SHUTDOWN
        assert urgent.services["net1"] is before[1].services["net1"]
        assert computation.refresh().networks == {"net1"}
        after = computation.of("n1"), computation.of("n2")
        for one in (before, after):
            assert one[0].mesh is one[1].mesh
            for network in ("net1", "net2"):
                assert one[0].services[network] is one[1].services[network]
                assert one[0].peers[network] is one[1].peers[network]
        assert before[0].services["net1"] != after[0].services["net1"]
        assert before[0].peers["net1"] is after[0].peers["net1"]
        assert before[0].services["net2"] is after[0].services["net2"]

    _run(tmp_path, scenario)


def _unordered(found: Assignments) -> object:
    peers = {id: frozenset(each) for id, each in found.peers.items()}
    return found.tasks, found.networks, found.services, found.mesh, peers


def test_changes_are_computed_as_from_the_start(tmp_path: Path) -> None:
    async def scenario(state: State) -> None:
        chance = random.Random(7)
        await state.commit([Put(_network(2)), *(Put(_node(number)) for number in (2, 3))])
        subscription = state.subscribe()
        computation = Computation(state.tables)
        for _ in range(150):
            choice = chance.randrange(10)
            number = chance.randrange(8)
            item: Object
            if choice < 7:
                wanted = chance.choice([TaskState.PENDING, TaskState.RUNNING, TaskState.RUNNING, TaskState.FAILED])
                service = f"s{chance.randrange(2)}"
                item = _task(number, chance.randrange(1, 4), chance.randrange(3), wanted, service)
            elif choice < 9:
                item = _service(number % 2, chance.randrange(3))
            else:
                item = _node(chance.randrange(2, 4), data_path_addr=chance.choice(["", "198.51.100.7"]))
            former = state.tables.of(type(item)).find(item.id)
            if former is None:
                await state.commit([Put(item)])
            elif chance.random() < 0.3:
                await state.commit([Delete(former)])
            else:
                await state.commit([Put(replace(item, version=former.version))])
            computation.note(await subscription.next())
            computation.refresh()
            for node in ("n1", "n2", "n3"):
                assert _unordered(computation.of(node)) == _unordered(Computation(state.tables).of(node))

    _run(tmp_path, scenario)
