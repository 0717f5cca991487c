"""Containers of users on networks of the swarm."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from api_models.network import EndpointIPAMConfig
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.networks.overlay.model import SwarmNetwork
from server.swarm.agent.attachments import Attachments
from server.swarm.agent.tests.fakes import FakeDispatcher
from server.swarm.model.taskstate import TaskState

FRONT = SwarmNetwork(id="net1", name="front", subnets=(("10.0.1.0/24", "10.0.1.1"),), vni=4097, attachable=True)


class _Managers(FakeDispatcher):
    """``assigns``: the state that new tasks get; ``err``: why the managers refuse."""

    assigns = TaskState.ASSIGNED
    err = ""

    async def attach_network(
        self, container_id: str, key: str, addresses: Sequence[str], names: Sequence[str]
    ) -> tuple[str, str]:
        id, network = await super().attach_network(container_id, key, addresses, names)
        task = self.tasks[id]
        status = replace(task.status, state=int(self.assigns), err=self.err)
        self.put(replace(task, status=status))
        return id, network


class _Node:
    def __init__(self) -> None:
        self.managers = _Managers()
        self.managers.networks[FRONT.id] = FRONT
        self.attached: set[tuple[str, str]] = set()
        self.attachments = Attachments(self.managers, lambda *key: key in self.attached)

    async def follow(self) -> None:
        async for current in self.managers.assignments():
            await self.attachments.apply(current)


def _play(scenario: Callable[[_Node], Awaitable[None]]) -> None:
    async def run() -> None:
        node = _Node()
        task = asyncio.create_task(node.follow())
        try:
            async with asyncio.timeout(20):
                await scenario(node)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


async def _settle() -> None:
    await asyncio.sleep(0.02)


def test_a_container_gets_an_address_until_it_leaves() -> None:
    async def scenario(node: _Node) -> None:
        network, addresses = await node.attachments.attach("c1", "front", (), ())
        assert (network, addresses) == ("net1", EndpointIPAMConfig(ipv4_address="10.0.1.9"))
        (task,) = node.managers.tasks.values()
        assert task.state is TaskState.RUNNING
        # It is on its way: a change of the assignments does not remove it.
        await _settle()
        assert len(node.managers.tasks) == 1
        node.attached.add(("c1", "net1"))
        await node.attachments.detach("c2", "net1")
        assert len(node.managers.tasks) == 1
        await node.attachments.detach("c1", "net1")
        assert not node.managers.tasks

    _play(scenario)


def test_the_task_of_a_container_that_has_left_is_removed() -> None:
    async def scenario(node: _Node) -> None:
        await node.attachments.attach("c1", "front", ("10.0.1.7",), ())
        node.attached.add(("c1", "net1"))
        node.managers.put(next(iter(node.managers.tasks.values())))
        await _settle()
        # It has left while no manager could be reached.
        node.attached.clear()
        node.managers.put(next(iter(node.managers.tasks.values())))
        await _settle()
        assert not node.managers.tasks

    _play(scenario)


@pytest.mark.parametrize(
    ("key", "state", "err", "sentence"),
    [
        ("nope", TaskState.ASSIGNED, "", "Could not attach to network nope: rpc error"),
        ("front", TaskState.REJECTED, "Address already in use", "attaching to network failed: Address already in use"),
    ],
)
def test_refusals(key: str, state: TaskState, err: str, sentence: str) -> None:
    async def scenario(node: _Node) -> None:
        node.managers.assigns, node.managers.err = state, err
        with pytest.raises(WharfError) as error:
            await node.attachments.attach("c1", key, (), ())
        assert error.value.kind is Kind.INTERNAL
        assert error.value.message.startswith(sentence)
        assert not node.managers.tasks

    _play(scenario)


def test_managers_that_assign_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timeouts._SECONDS, "swarm.attach", 0.1)

    async def scenario(node: _Node) -> None:
        node.managers.assigns = TaskState.NEW
        with pytest.raises(WharfError, match="context deadline exceeded"):
            await node.attachments.attach("c1", "front", (), ())
        assert not node.managers.tasks

    _play(scenario)
