"""Nodes whose sessions end, and begin again."""

from dataclasses import replace
from pathlib import Path

from api_models.swarm.node import NodeStatus
from server.swarm.controllers.nodes.liveness import Liveness
from server.swarm.controllers.tests.world import World, play
from server.swarm.model.objects import Node, Session
from server.swarm.state.state import Delete, Put


def _status(world: World, name: str) -> NodeStatus:
    return world.state.tables.nodes.get(name).status


def test_a_node_is_down_when_its_session_ends(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.settle()
        assert world.state_of("n1") == "ready"
        await agent.vanish()
        await world.settle()
        assert _status(world, "n1") == NodeStatus(state="down", message="heartbeat failure")
        await agent.come_back()
        await world.settle()
        assert _status(world, "n1") == NodeStatus(state="ready")

    play(tmp_path, scenario, sessions=True)


def test_a_new_leader_gives_nodes_time_to_begin_a_session(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agents = [await world.node(name) for name in ("n1", "n2")]
        await world.settle()
        await world.stop()
        for agent in agents:
            await agent.vanish()
        await world.restart()
        await world.settle()
        message = 'Node moved to "unknown" state due to leadership change in cluster'
        assert [_status(world, name) for name in ("n1", "n2")] == [NodeStatus(state="unknown", message=message)] * 2
        await world.advance(29)
        await agents[0].come_back()
        await world.advance(2)
        assert world.state_of("n1") == "ready"
        assert _status(world, "n2") == NodeStatus(state="down", message='heartbeat failure for node in "unknown" state')
        await agents[0].vanish()
        await world.settle()
        assert _status(world, "n1").message == "heartbeat failure"

    play(tmp_path, scenario, sessions=True)


def test_a_node_that_never_begins_a_session_is_down_after_the_same_time(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.state.commit([Put(Node(id="n1", status=NodeStatus(state="unknown")))])
        await world.advance(29)
        assert world.state_of("n1") == "unknown"
        await world.advance(2)
        assert world.state_of("n1") == "down"

    play(tmp_path, scenario, sessions=True)


def test_a_session_that_began_while_its_node_was_counted_as_down_makes_it_ready(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agent = await world.node("n1")
        await world.settle()
        await world.set_node("n1", state="down")
        await world.settle()
        assert world.state_of("n1") == "ready"
        await world.remove_node("n1")
        await agent.vanish()
        await world.settle()
        assert world.liveness is not None
        assert world.liveness.next_timer is None

    play(tmp_path, scenario, sessions=True)


def test_many_nodes_that_vanish_at_once_are_a_few_commits(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        names = [f"n{number:03}" for number in range(500)]
        for begin in range(0, 500, 50):
            some = names[begin : begin + 50]
            await world.state.commit([Put(Node(id=name, status=NodeStatus(state="ready"))) for name in some])
            await world.state.commit([Put(Session(id=name)) for name in some])
        world.liveness = Liveness(world.state, clock=world.clock)
        world.start()
        await world.settle()
        assert {world.state_of(name) for name in names} == {"ready"}
        for _ in range(5):
            await world.state.commit([Delete(session) for session in list(world.state.tables.sessions)[:100]])
        before = world.state.revision
        await world.settle()
        assert {world.state_of(name) for name in names} == {"down"}
        assert world.state.revision - before <= 6

    play(tmp_path, scenario)


def test_the_status_of_managers(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        agents = [await world.node(name, manager=True) for name in ("m1", "m2")]
        await world.node("w1")
        await world.lead("m1")
        await world.settle()

        def shown() -> list[tuple[bool, str]]:
            managers = [world.state.tables.nodes.get(name).manager for name in ("m1", "m2")]
            return [(each.leader, each.reachability) for each in managers if each is not None]

        assert shown() == [(True, "reachable"), (False, "reachable")]
        assert world.state.tables.nodes.get("w1").manager is None
        await agents[0].vanish()
        await world.lead("m2")
        await world.settle()
        assert shown() == [(False, "unreachable"), (True, "reachable")]
        await agents[0].come_back()
        await world.settle()
        assert shown() == [(False, "reachable"), (True, "reachable")]

    play(tmp_path, scenario, sessions=True)


def test_a_manager_whose_node_follows_another_one_is_unreachable(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for name in ("m1", "m2"):
            await world.node(name, manager=True)
        await world.lead("m1")
        await world.settle()

        async def follow(manager: str) -> tuple[str, str]:
            session = world.state.tables.sessions.get("m2")
            await world.state.commit([Put(replace(session, manager=manager))])
            await world.settle()
            node = world.state.tables.nodes.get("m2")
            assert node.manager is not None
            return node.status.state, node.manager.reachability

        assert await follow("m2") == ("ready", "reachable")
        assert await follow("m1") == ("ready", "unreachable")
        assert await follow("m2") == ("ready", "reachable")

    play(tmp_path, scenario, sessions=True)
