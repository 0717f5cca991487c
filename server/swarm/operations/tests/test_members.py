"""Nodes that become members of etcd."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from api_models.swarm.node import NodeSpec
from engine.common.errors import Kind, WharfError
from server.swarm.keys import Keys
from server.swarm.model.objects import Cluster, Node
from server.swarm.operations.members import EtcdMembers
from server.swarm.remote.records import MemberRequest
from server.swarm.state.state import Put, State
from server.swarm.state.tests.opened import opened

URL = "https://192.0.2.2:2380"
REQUEST = MemberRequest(peer_url=URL, addr="192.0.2.2:2377")


class FakeCluster:
    """``demotes``: the node is demoted while etcd adds its member."""

    def __init__(self, state: State, *, demotes: bool) -> None:
        self._state = state
        self._demotes = demotes
        self.learners: list[str] = []
        self.removed: list[str] = []

    async def add_learner(self, name: str, peer_url: str) -> Sequence[str]:
        self.learners.append(peer_url)
        if self._demotes:
            node = self._state.tables.nodes.get(name)
            await self._state.commit([Put(replace(node, spec=replace(node.spec, role="worker")))])
        return [f"{name}={peer_url}"]

    async def withdraw(self, peer_url: str) -> None:
        self.learners.remove(peer_url)

    async def promote(self, name: str) -> None:
        raise AssertionError

    async def remove(self, name: str) -> None:
        self.removed.append(name)


@pytest.mark.parametrize("demotes", [False, True])
def test_a_node_that_is_demoted_meanwhile_leaves_no_learner(tmp_path: Path, *, demotes: bool) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (_, state), asyncio.timeout(20):
            await state.commit([Put(Cluster(id="swarm")), Put(Node(id="n2", spec=NodeSpec(role="manager")))])
            cluster = FakeCluster(state, demotes=demotes)
            joining = EtcdMembers(state, Keys.create(tmp_path), cluster).join("n2", REQUEST, "192.0.2.2")
            if demotes:
                with pytest.raises(WharfError, match="n2 is no manager") as refused:
                    await joining
                assert refused.value.kind is Kind.PERMISSION_DENIED
                assert cluster.learners == []
            else:
                assert (await joining).members == (f"n2={URL}",)
                assert cluster.learners == [URL]

    asyncio.run(main())


def test_a_node_whose_join_has_failed_is_no_member_any_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (_, state), asyncio.timeout(20):
            await state.commit([Put(Cluster(id="swarm")), Put(Node(id="n2", spec=NodeSpec(role="manager")))])
            cluster = FakeCluster(state, demotes=False)
            members = EtcdMembers(state, Keys.create(tmp_path), cluster)
            await members.join("n2", REQUEST, "192.0.2.2")
            await members.leave("n2", REQUEST)
            node = state.tables.nodes.get("n2")
            assert (node.spec.role, node.manager, node.status.state) == ("worker", None, "down")
            assert (cluster.learners, cluster.removed) == ([], ["n2"])

    asyncio.run(main())
