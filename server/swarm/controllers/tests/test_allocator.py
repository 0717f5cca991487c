"""Virtual addresses, addresses of tasks, and published ports."""

from dataclasses import replace
from pathlib import Path

from api_models.network import IPAM, ConfigReference, IPAMPool
from api_models.swarm.network import EndpointSpec, NetworkAttachmentConfig, PortConfig, VirtualIP
from api_models.swarm.task import NetworkAttachmentSpec, TaskSpec
from server.swarm.controllers.tests.world import World, play, task_spec
from server.swarm.model.objects import Network, Task
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Delete, Put


async def _network(world: World, name: str, subnet: str, gateway: str, *, ingress: bool = False) -> str:
    network = Network(
        id=f"id-{name}", name=name, ipam=IPAM(config=(IPAMPool(subnet=subnet, gateway=gateway),)), ingress=ingress
    )
    await world.state.commit([Put(network)])
    return network.id


def _attached(*networks: str) -> tuple[NetworkAttachmentConfig, ...]:
    return tuple(NetworkAttachmentConfig(target=network, aliases=("db",)) for network in networks)


def _addresses(world: World, name: str) -> list[tuple[str, ...]]:
    return [
        tuple(address for attachment in task.attachments for address in attachment.addresses)
        for task in world.running(name)
    ]


def test_a_service_has_a_virtual_address_and_its_tasks_have_addresses(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        front = await _network(world, "front", "10.0.1.0/24", "10.0.1.1")
        back = await _network(world, "back", "10.0.2.0/24", "10.0.2.1")
        await world.service("web", 2, task_spec(networks=_attached(front, back)))
        await world.settle()
        endpoint = world.find("web").endpoint
        assert [(each.network_id, each.addr) for each in endpoint.virtual_ips or ()] == [
            (front, "10.0.1.2/24"),
            (back, "10.0.2.2/24"),
        ]
        assert _addresses(world, "web") == [("10.0.1.3/24", "10.0.2.3/24"), ("10.0.1.4/24", "10.0.2.4/24")]
        assert world.running("web")[0].endpoint.virtual_ips == endpoint.virtual_ips
        current = world.agents["n1"].current
        assert {each.id: each.subnets for each in current.networks.values()} == {
            front: (("10.0.1.0/24", "10.0.1.1"),),
            back: (("10.0.2.0/24", "10.0.2.1"),),
        }
        (service,) = current.services[front]
        assert (service.names, service.virtual_ip) == (("web", "db"), "10.0.1.2")
        assert sorted(each.address for each in service.backends) == ["10.0.1.3", "10.0.1.4"]
        # A task that is stopped is no backend, and its address is free when it has ended.
        world.agents["n1"].stubborn = True
        await world.update("web", replicas=1)
        await world.settle()
        (service,) = world.agents["n1"].current.services[front]
        assert [each.name for each in service.backends] == [world.running("web")[0].name]

    play(tmp_path, scenario)


def test_round_robin_has_no_virtual_address(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        front = await _network(world, "front", "10.0.1.0/24", "10.0.1.1")
        await world.service("web", 1, task_spec(networks=_attached(front)), endpoint_spec=EndpointSpec(mode="dnsrr"))
        await world.settle()
        assert world.find("web").endpoint.virtual_ips is None
        (service,) = world.agents["n1"].current.services[front]
        assert service.virtual_ip == ""
        assert len(service.backends) == 1

    play(tmp_path, scenario)


def test_the_node_assigns_the_addresses_of_a_node_local_network(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for name in ("n1", "n2"):
            await world.node(name)
        near = Network(id="id-near", name="near", driver="macvlan", config_from=ConfigReference(network="cfg"))
        await world.state.commit([Put(near)])
        await world.service("web", 2, task_spec(networks=_attached(near.id)))
        await world.settle()
        assert world.find("web").endpoint.virtual_ips == (VirtualIP(network_id=near.id),)
        assert _addresses(world, "web") == [(), ()]
        for agent in world.agents.values():
            (network,) = agent.current.networks.values()
            assert (network.driver, network.config_from, network.local) == ("macvlan", "cfg", "")
            assert (agent.current.services[near.id], agent.current.peers.get(near.id, ())) == ((), ())

    play(tmp_path, scenario)


def test_a_full_network_lets_tasks_wait(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        small = await _network(world, "small", "10.0.1.0/29", "10.0.1.1")
        await world.service("web", 6, task_spec(networks=_attached(small)))
        await world.settle()
        assert len(world.running("web")) == 4
        assert {task.status.err for task in world.tasks("web") if task.state is TaskState.NEW} == {
            "no available addresses on network small"
        }
        await world.update("web", replicas=4)
        await world.update("web", replicas=5)
        await world.settle()
        assert len(world.running("web")) == 4
        await world.update("web", task_template=task_spec())
        await world.advance(60)
        assert len(world.running("web")) == 5
        assert _addresses(world, "web") == [()] * 5

    play(tmp_path, scenario)


def test_addresses_come_from_the_range_and_not_again_at_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        pool = IPAMPool(
            subnet="10.0.1.0/24", ip_range="10.0.1.64/29", gateway="10.0.1.64", auxiliary_addresses={"a": "10.0.1.66"}
        )
        network = Network(id="ranged", name="ranged", ipam=IPAM(config=(IPAMPool(subnet="fd00::/64"), pool)))
        await world.state.commit([Put(network)])
        await world.service(
            "web", 1, task_spec(networks=_attached(network.id)), endpoint_spec=EndpointSpec(mode="dnsrr")
        )
        seen = []
        for number in range(7):
            await world.advance(60)
            seen += [address for addresses in _addresses(world, "web") for address in addresses]
            await world.update("web", task_template=task_spec(force_update=number + 1, networks=_attached(network.id)))
        assert seen == [f"10.0.1.{number}/24" for number in (65, 67, 68, 69, 70, 71, 65)]

    play(tmp_path, scenario)


def test_a_service_waits_for_its_network(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        await world.service("web", 1, task_spec(networks=_attached("id-late")))
        await world.settle()
        assert [task.status.err for task in world.tasks("web")] == ["network id-late not found"]
        await _network(world, "late", "10.0.1.0/24", "10.0.1.1")
        await world.settle()
        assert len(world.running("web")) == 1

    play(tmp_path, scenario)


def test_a_container_outside_of_services_is_attached(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        front = await _network(world, "front", "10.0.1.0/24", "10.0.1.1")
        spec = TaskSpec(
            network_attachment_spec=NetworkAttachmentSpec(container_id="c1"),
            networks=_attached(front),
            runtime="attachment",
        )
        task = Task(id="t1", node_id="n1", spec=spec, desired_state=int(TaskState.RUNNING))
        await world.state.commit([Put(task)])
        await world.settle()
        stored = world.state.tables.tasks.get("t1")
        assert (stored.state, stored.attachments[0].addresses) == (TaskState.RUNNING, ("10.0.1.2/24",))
        assert front in world.agents["n1"].current.networks
        await world.state.commit([Put(replace(stored, desired_state=int(TaskState.REMOVE)))])
        await world.settle()
        assert len(world.state.tables.tasks) == 0

    play(tmp_path, scenario)


def _port(published: int = 0, target: int = 80) -> PortConfig:
    return PortConfig(protocol="tcp", target_port=target, published_port=published, publish_mode="ingress")


def test_ports_are_unique_in_the_swarm_and_kept(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        ingress = await _network(world, "ingress", "10.0.0.0/24", "10.0.0.1", ingress=True)
        await world.service("a", 1, endpoint_spec=EndpointSpec(ports=(_port(), _port(30001, 81))))
        await world.service("b", 2, endpoint_spec=EndpointSpec(ports=(_port(), _port(8080, 82))))
        await world.settle()
        assert [port.published_port for port in world.find("a").endpoint.ports or ()] == [30000, 30001]
        assert [port.published_port for port in world.find("b").endpoint.ports or ()] == [30002, 8080]
        assert [attachment.network_id for attachment in world.running("a")[0].attachments] == [ingress]
        await world.service("c", 1, endpoint_spec=EndpointSpec(ports=(_port(8080),)))
        await world.settle()
        b = world.find("b")
        assert [task.status.err for task in world.tasks("c")] == [
            f"port '8080' is already in use by service 'b' ({b.id}) as an ingress port"
        ]
        mesh = {port.published: (port.target, len(port.backends)) for port in world.agents["n1"].current.mesh}
        assert mesh == {30000: (80, 1), 30001: (81, 1), 30002: (80, 2), 8080: (82, 2)}
        await world.update("b", endpoint_spec=EndpointSpec(ports=(_port(),)))
        await world.advance(60)
        assert [port.published_port for port in world.find("b").endpoint.ports or ()] == [30002]
        assert len(world.running("c")) == 1

    play(tmp_path, scenario)


def _nodes(world: World) -> dict[str, str]:
    return {node.id: node.ingress_address for node in world.state.tables.nodes}


def test_several_nodes_have_addresses_on_the_ingress_network(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node("n1")
        ingress = await _network(world, "ingress", "10.0.0.0/28", "10.0.0.1", ingress=True)
        await world.settle()
        assert _nodes(world) == {"n1": ""}
        await world.node("n2")
        await world.settle()
        first = _nodes(world)
        assert all(address.endswith("/28") for address in first.values())
        assert len({"10.0.0.1/28", *first.values()}) == 3
        # They are in use: nobody else gets them.
        await world.service("web", 10, task_spec(), endpoint_spec=_published())
        await world.settle()
        addresses = {address for (address,) in _addresses(world, "web")}
        assert len(addresses) == 10
        assert addresses.isdisjoint(_nodes(world).values())
        # The network is full: the next node waits for the end of tasks.
        await world.node("n3")
        await world.settle()
        assert _nodes(world)["n3"] == ""
        await world.update("web", replicas=2)
        await world.advance(5)
        assert _nodes(world)["n3"]
        # An address is free when its node is removed, and those of the others stay.
        await world.remove_node("n2")
        await world.settle()
        assert _nodes(world)["n1"] == first["n1"]
        # They follow the network.
        await world.remove("web")
        await world.settle()
        await world.state.transact(lambda: [Delete(world.state.tables.networks.get(ingress))])
        await world.settle()
        assert set(_nodes(world).values()) == {""}
        await _network(world, "other", "10.0.9.0/24", "10.0.9.1", ingress=True)
        await world.settle()
        assert len(set(_nodes(world).values())) == 2
        assert all(address.startswith("10.0.9.") for address in _nodes(world).values())

    play(tmp_path, scenario)


def _published() -> EndpointSpec:
    return EndpointSpec(ports=(PortConfig(protocol="tcp", target_port=80, published_port=8080),))
