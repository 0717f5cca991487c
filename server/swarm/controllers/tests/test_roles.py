"""Managers that become workers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from api_models.swarm.node import ManagerStatus, NodeSpec
from engine.common.errors import Kind, WharfError
from server.swarm.controllers.nodes.roles import Roles
from server.swarm.controllers.tests.world import ManualClock
from server.swarm.model.objects import Cluster, Node
from server.swarm.state.state import Delete, Put, State
from server.swarm.state.tests.opened import opened


@dataclass(frozen=True, slots=True)
class _Member:
    id: int
    name: str
    peer_urls: Sequence[str] = ()


class _Members:
    def __init__(self) -> None:
        self.present = ["m1", "m2", "m3"]
        #: Of a learner that has not started: it has no name.
        self.learner = _Member(9, "", ("https://192.0.2.9:2380",))
        self.removed: list[int] = []
        self.broken = False

    async def list(self) -> Sequence[_Member]:
        return [self.learner, *(_Member(int(name[1:]), name) for name in self.present)]

    async def remove(self, id: int, /) -> None:
        if self.broken:
            raise WharfError(Kind.UNAVAILABLE, "no quorum")
        self.removed.append(id)
        if f"m{id}" in self.present:
            self.present.remove(f"m{id}")


class _Scene:
    def __init__(self, state: State) -> None:
        self.state = state
        self.members = _Members()
        self.clock = ManualClock()
        self.resigned = 0

    async def resign(self) -> None:
        self.resigned += 1

    async def settle(self) -> None:
        await asyncio.sleep(0.05)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def wait(self, seconds: int) -> None:
        await self.clock.set(self.clock.now() + seconds * 10**9)
        await self.settle()

    async def change(self, id: str, *, role: str = "", reachability: str = "") -> None:
        def build() -> list[Put]:
            node = self.state.tables.nodes.get(id)
            manager = node.manager
            if manager is not None and reachability:
                manager = replace(manager, reachability=reachability)
            return [Put(replace(node, spec=replace(node.spec, role=role or node.spec.role), manager=manager))]

        await self.state.transact(build)
        await self.settle()

    def managers(self) -> list[str]:
        return [node.id for node in self.state.tables.nodes if node.manager is not None]


def _play(path: Path, scenario: Callable[[_Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(path) as (_, state), asyncio.timeout(20):
            status = ManagerStatus(reachability="reachable")
            nodes = [Node(id=id, spec=NodeSpec(role="manager"), manager=status) for id in ("m1", "m2", "m3")]
            await state.commit([Put(Cluster(id="swarm")), *map(Put, nodes)])
            scene = _Scene(state)
            roles = Roles(state, scene.members, "m1", scene.resign, clock=scene.clock)
            task = asyncio.create_task(roles.run())
            try:
                await scene.settle()
                await scenario(scene)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_a_demoted_manager_leaves_the_store_first(tmp_path: Path) -> None:
    async def scenario(scene: _Scene) -> None:
        scene.members.broken = True
        await scene.change("m2", role="worker")
        assert scene.managers() == ["m1", "m2", "m3"]
        scene.members.broken = False
        await scene.wait(5)
        await scene.until(lambda: scene.members.present == ["m1", "m3"])
        await scene.until(lambda: scene.managers() == ["m1", "m3"])

    _play(tmp_path, scenario)


def test_a_demotion_waits_for_the_quorum(tmp_path: Path) -> None:
    async def scenario(scene: _Scene) -> None:
        await scene.change("m3", reachability="unreachable")
        await scene.change("m2", role="worker")
        await scene.wait(5)
        assert scene.members.present == ["m1", "m2", "m3"]
        await scene.change("m3", reachability="reachable")
        await scene.until(lambda: scene.members.present == ["m1", "m3"])

    _play(tmp_path, scenario)


def test_a_demoted_leader_resigns(tmp_path: Path) -> None:
    async def scenario(scene: _Scene) -> None:
        await scene.change("m1", role="worker")
        await scene.until(lambda: scene.resigned == 1)
        assert scene.members.present == ["m1", "m2", "m3"]

    _play(tmp_path, scenario)


def test_the_member_of_a_removed_node_is_removed(tmp_path: Path) -> None:
    async def scenario(scene: _Scene) -> None:
        await scene.state.transact(lambda: [Delete(scene.state.tables.nodes.get("m3"))])
        await scene.settle()
        await scene.until(lambda: scene.members.present == ["m1", "m2"])

    _play(tmp_path, scenario)


def test_the_member_of_a_manager_that_left_is_removed(tmp_path: Path) -> None:
    async def scenario(scene: _Scene) -> None:
        def left() -> list[Put]:
            node = scene.state.tables.nodes.get("m3")
            return [Put(replace(node, spec=replace(node.spec, role="worker"), manager=None))]

        scene.members.broken = True
        await scene.state.transact(left)
        await scene.settle()
        scene.members.broken = False
        await scene.wait(5)
        await scene.until(lambda: scene.members.present == ["m1", "m2"])

    _play(tmp_path, scenario)


def test_a_manager_that_is_demoted_before_its_member_starts(tmp_path: Path) -> None:
    """Its learner would keep all other nodes from joining."""

    async def scenario(scene: _Scene) -> None:
        status = ManagerStatus(reachability="unreachable", addr="192.0.2.9:2377")
        await scene.state.commit([Put(Node(id="m9", spec=NodeSpec(role="manager"), manager=status))])
        await scene.settle()
        assert scene.members.removed == []
        await scene.change("m9", role="worker")
        await scene.until(lambda: scene.members.removed == [9])
        await scene.until(lambda: "m9" not in scene.managers())

    _play(tmp_path, scenario)


def test_a_member_whose_node_was_never_stored(tmp_path: Path) -> None:
    """The manager that added it was killed before it stored the address of the node."""

    async def scenario(scene: _Scene) -> None:
        await scene.wait(25)
        assert scene.members.removed == []
        # Another attempt of the node makes another member, which has its own time.
        scene.members.learner = _Member(10, "", scene.members.learner.peer_urls)
        await scene.wait(10)
        await scene.wait(25)
        assert scene.members.removed == []
        await scene.wait(10)
        await scene.until(lambda: scene.members.removed == [10])

    _play(tmp_path, scenario)


def test_a_member_whose_node_is_stored_in_time(tmp_path: Path) -> None:
    async def scenario(scene: _Scene) -> None:
        status = ManagerStatus(reachability="unreachable", addr="192.0.2.9:2377")
        await scene.state.commit([Put(Node(id="m9", spec=NodeSpec(role="manager"), manager=status))])
        await scene.wait(60)
        await scene.wait(60)
        assert scene.members.removed == []

    _play(tmp_path, scenario)
