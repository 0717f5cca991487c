"""Random events: the swarm comes to the wanted state, and no slot keeps two running tasks."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from api_models.network import IPAM, IPAMPool
from api_models.swarm.network import EndpointSpec, NetworkAttachmentConfig, PortConfig
from api_models.swarm.service import GlobalService, ServiceMode, UpdateConfig
from api_models.swarm.task import TaskSpec
from server.swarm.controllers.clock import SECOND
from server.swarm.controllers.constraints import node_matches
from server.swarm.controllers.orchestrator.tasks import alive, unusable
from server.swarm.controllers.tests.world import World, play, task_spec
from server.swarm.model.objects import Network, Task
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Put

EVENTS = 200
SEEDS = (1,)
NODES = ("n1", "n2", "n3", "n4")


class _Chaos:
    """Random events in a swarm with three services."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.replicas = {"web": 3, "api": 5}
        self.image = {"web": "0", "api": "0", "all": "0"}
        self.cut: set[str] = set()
        self.log: list[str] = []

    async def begin(self) -> None:
        for name in NODES:
            await self.world.node(name)
        for name, ingress in (("front", False), ("ingress", True)):
            ipam = IPAM(config=(IPAMPool(subnet=f"10.0.{int(ingress)}.0/26"),))
            await self.world.state.commit([Put(Network(id=name, name=name, ipam=ipam, ingress=ingress))])
        port = PortConfig(protocol="tcp", target_port=80, publish_mode="ingress")
        await self.world.service(
            "web",
            3,
            self.task("0"),
            update_config=UpdateConfig(parallelism=1, order="start-first"),
            endpoint_spec=EndpointSpec(ports=(port,)),
        )
        await self.world.service(
            "api",
            5,
            self.task("0"),
            update_config=UpdateConfig(parallelism=2, delay=SECOND, failure_action="rollback"),
        )
        await self.world.service("all", ServiceMode(global_=GlobalService()), self.task("0"))

    def task(self, image: str) -> TaskSpec:
        return task_spec(image, networks=(NetworkAttachmentConfig(target="front"),))

    def addresses(self) -> list[tuple[str, str]]:
        """All addresses that are in use, with their networks."""
        tables = self.world.state.tables
        virtual = [(each.network_id, each.addr) for item in tables.services for each in item.endpoint.virtual_ips or ()]
        attachments = [each for task in tables.tasks if not task.state.ended for each in task.attachments]
        return virtual + [(each.network_id, address) for each in attachments for address in each.addresses]

    async def event(self) -> None:
        events = (self.node_down, self.node_up, self.availability, self.scale, self.update, self.fail, self.leader)
        event = self.random.choice((self.kill, self.kill, self.kill, self.wait, self.wait, *events))
        await event()
        self.log.append(event.__name__)
        if self.random.random() < 0.7:
            await self.world.settle()

    async def kill(self) -> None:
        agent = self.world.agents[self.random.choice(NODES)]
        tasks = [task for id in sorted(agent.running) if (task := self.world.state.tables.tasks.find(id)) is not None]
        if tasks:
            await agent.end(self.random.choice(tasks), self.random.choice((TaskState.FAILED, TaskState.COMPLETE)))

    async def node_down(self) -> None:
        name = self.random.choice(NODES)
        if len(self.cut) < 2:
            self.cut.add(name)
            await self.world.agents[name].vanish()

    async def node_up(self) -> None:
        if self.cut:
            name = self.random.choice(sorted(self.cut))
            self.cut.remove(name)
            await self.world.agents[name].come_back()

    async def availability(self) -> None:
        await self.world.set_node(
            self.random.choice(NODES), availability=self.random.choice(("active", "active", "pause", "drain"))
        )

    async def scale(self) -> None:
        name = self.random.choice(("web", "api"))
        self.replicas[name] = self.random.randrange(8)
        await self.world.update(name, replicas=self.replicas[name])

    async def update(self) -> None:
        name = self.random.choice(("web", "api", "all"))
        self.image[name] = str(self.random.randrange(10**6))
        await self.world.update(name, task_template=self.task(self.image[name]))

    async def fail(self) -> None:
        """The tasks of a service fail on one node for a while."""
        agent = self.world.agents[self.random.choice(NODES)]
        if agent.fate:
            agent.fate.clear()
        else:
            agent.fate[self.random.choice(("web", "api", "all"))] = TaskState.FAILED

    async def leader(self) -> None:
        await self.world.restart()

    async def wait(self) -> None:
        await self.world.advance(self.random.choice((1, 5, 10)))

    async def calm(self) -> None:
        """All faults end, and each service gets a last spec."""
        for agent in self.world.agents.values():
            agent.fate.clear()
        while self.cut:
            await self.node_up()
        for name in NODES:
            await self.world.set_node(name, availability="active")
        for name in self.image:
            self.image[name] = "last"
            # A rollback has perhaps restored an old number of replicas.
            await self.world.update(name, task_template=self.task("last"), replicas=self.replicas.get(name))
        await self.world.advance(300)


def _wanted(tasks: Sequence[Task]) -> list[Task]:
    return [task for task in tasks if alive(task)]


@pytest.mark.parametrize("seed", SEEDS)
def test_two_hundred_events_converge(tmp_path: Path, seed: int) -> None:
    async def scenario(world: World) -> None:
        chaos = _Chaos(world, seed)
        await chaos.begin()
        for _ in range(EVENTS):
            await chaos.event()
            addresses = chaos.addresses()
            assert len(addresses) == len(set(addresses)), chaos.log
        await chaos.calm()
        backends = {each.service_id: len(each.backends) for each in world.agents["n1"].current.services["front"]}
        assert backends == {world.find(name).id: len(world.running(name)) for name in chaos.image}
        (published,) = world.agents["n1"].current.mesh
        assert (published.published, len(published.backends)) == (30000, len(world.running("web")))
        for name, replicas in chaos.replicas.items():
            tasks = _wanted(world.tasks(name))
            assert sorted(task.slot for task in tasks) == sorted({task.slot for task in tasks}), (name, chaos.log)
            assert len(tasks) == replicas, (name, chaos.log)
        assert sorted(task.node_id for task in _wanted(world.tasks("all"))) == sorted(NODES)
        for name in chaos.image:
            for task in _wanted(world.tasks(name)):
                assert task.state is TaskState.RUNNING
                assert task.spec.container_spec is not None
                assert task.spec.container_spec.image == "last"
            status = world.find(name).update_status
            assert (status.state if status is not None else "") == ("completed" if _wanted(world.tasks(name)) else "")
        # What runs is what is wanted: no container is left on any node.
        running = {id for agent in world.agents.values() for id in agent.running}
        assert running == {task.id for name in chaos.image for task in _wanted(world.tasks(name))}
        limits = Counter((task.service_id, task.instance) for task in world.state.tables.tasks)
        assert max(limits.values()) <= 5
        assert all(not unusable(node) and node_matches(None, node) for node in world.state.tables.nodes)

    play(tmp_path, scenario, sessions=True, seconds=120)
