"""Operations on nodes in a swarm of several."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from api_models.swarm.node import ManagerStatus, NodeDescription, NodeSpec, NodeStatus
from engine.common.errors import Kind, WharfError
from server.swarm.model.objects import Cluster, Node, NodeImages, Session, Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.operations.nodes import Nodes
from server.swarm.state.state import Put, State
from server.swarm.state.tests.opened import opened

NO_QUORUM = "can't remove member from the raft: this would result in a loss of quorum"


def _node(id: str, *, manager: bool = False, reachable: bool = True, state: str = "ready") -> Node:
    status = ManagerStatus(reachability="reachable" if reachable else "unreachable", addr=f"{id}:2377")
    return Node(
        id=id,
        spec=NodeSpec(role="manager" if manager else "worker", availability="active"),
        description=NodeDescription(hostname=f"host-{id}"),
        status=NodeStatus(state=state),
        manager=status if manager else None,
    )


def _play(path: Path, nodes: Sequence[Node], scenario: Callable[[State, Nodes], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(path) as (_, state), asyncio.timeout(20):
            await state.commit([Put(Cluster(id="swarm")), *map(Put, nodes)])
            await scenario(state, Nodes(state, "m1"))

    asyncio.run(run())


async def _demote(operations: Nodes, id: str) -> str:
    """The sentence of a refusal; "": there is none."""
    node = operations.get(id)
    try:
        await operations.update(id, node.version, replace(node.spec, role="worker"))
    except WharfError as error:
        return error.message.partition("desc = ")[2]
    return ""


@pytest.mark.parametrize(
    ("reachable", "refusal"),
    [
        ([True], "attempting to demote the last manager of the swarm"),
        ([True, True], ""),
        ([True, True, True], ""),
        ([True, True, False], NO_QUORUM),
        ([True, False], NO_QUORUM),
        ([True, True, True, False, False], NO_QUORUM),
        ([True, True, True, True, False], ""),
    ],
)
def test_demotion_keeps_a_quorum(tmp_path: Path, reachable: list[bool], refusal: str) -> None:
    managers = [_node(f"m{number}", manager=True, reachable=each) for number, each in enumerate(reachable, 1)]

    async def scenario(state: State, operations: Nodes) -> None:
        assert await _demote(operations, "m1") == refusal
        assert state.tables.nodes.get("m1").spec.role == ("manager" if refusal else "worker")

    _play(tmp_path, [*managers, _node("w1")], scenario)


def test_an_unreachable_manager_can_be_demoted_and_one_that_has_not_joined_yet(tmp_path: Path) -> None:
    nodes = [_node("m1", manager=True), _node("m2", manager=True), _node("m3", manager=True, reachable=False)]
    promoted = replace(_node("w1"), spec=NodeSpec(role="manager", availability="active"))

    async def scenario(state: State, operations: Nodes) -> None:
        assert await _demote(operations, "w1") == ""
        assert state.tables.nodes.get("w1").spec.role == "worker"
        assert await _demote(operations, "m3") == ""

    _play(tmp_path, [*nodes, promoted], scenario)


def test_removal(tmp_path: Path) -> None:
    nodes = [_node("m1", manager=True), _node("w1"), _node("w2", state="down"), _node("w3")]

    async def scenario(state: State, operations: Nodes) -> None:
        running = [Task(id=f"t{n}", node_id="w3", status=TaskStatus(state=int(TaskState.RUNNING))) for n in range(150)]
        for begin in range(0, 150, 50):
            await state.commit([Put(task) for task in running[begin : begin + 50]])
        await state.commit([Put(Session(id="w3")), Put(NodeImages(id="w3")), Put(NodeImages(id="w1"))])
        for key, sentence in (
            ("m1", "node m1 is a cluster manager and is a member of the raft cluster. It must be demoted to worker"),
            ("w1", "node w1 is not down and can't be removed"),
        ):
            with pytest.raises(WharfError) as error:
                await operations.remove(key, force=key == "m1")
            assert error.value.kind is Kind.INVALID_ARGUMENT
            assert sentence in error.value.message
        await operations.remove("w2", force=False)
        await operations.remove("host-w3", force=True)
        assert sorted(node.id for node in state.tables.nodes) == ["m1", "w1"]
        assert {task.state for task in state.tables.tasks} == {TaskState.ORPHANED}
        assert len(state.tables.sessions) == 0
        assert [each.id for each in state.tables.images] == ["w1"]

    _play(tmp_path, nodes, scenario)
