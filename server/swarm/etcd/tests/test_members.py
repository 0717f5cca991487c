"""The members of a cluster, with real members. etcd adds and removes only if the others have been connected for 5 s, so
one long scenario is quicker than several."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.swarm.etcd.child import Status
from server.swarm.etcd.members import Members
from server.swarm.etcd.tests.cluster import Cluster, joined, repeated, running
from server.swarm.store.etcd import EtcdStore
from server.swarm.store.interface import Condition, Write
from server.swarm.store.tests import etcd_member

_SECONDS = 60


@pytest.mark.skipif(not etcd_member.installed(), reason="needs etcd")
def test_members_join_die_and_leave(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(_SECONDS):
            await _scenario(Cluster(tmp_path))

    asyncio.run(main())


async def _scenario(cluster: Cluster) -> None:
    options = cluster.options("one")
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(running(cluster.child(options)))
        members = Members(one.endpoint)
        stack.push_async_callback(members.close)
        (only,) = await members.list()
        assert (only.name, only.peer_urls, only.learner) == ("one", [options.peer_url], False)
        with pytest.raises(WharfError, match="this would result in a loss of quorum") as refused:
            await members.remove(only.id)
        assert refused.value.kind is Kind.FAILED_PRECONDITION

        # A learner that never starts is replaced when its node tries again.
        second = cluster.options("two")
        lost = await members.add_learner("two", second.peer_url)
        with pytest.raises(WharfError, match="not caught up") as early:
            await members.promote(lost.id)
        assert early.value.kind is Kind.UNAVAILABLE
        with pytest.raises(WharfError, match="another manager is joining"):
            await members.add_learner("three", "https://127.0.0.1:1")
        added = await members.add_learner("two", second.peer_url)
        assert added.id != lost.id
        assert sorted(added.initial_cluster.split(",")) == [f"one={options.peer_url}", f"two={second.peer_url}"]
        second = replace(second, existing=True, initial_cluster=added.initial_cluster)
        two = await stack.enter_async_context(running(cluster.child(second)))
        await repeated(lambda: members.promote(added.id))
        await members.promote(added.id)
        with pytest.raises(WharfError, match="has the address") as taken:
            await members.add_learner("two", second.peer_url)
        assert taken.value.kind is Kind.CONFLICT

        three = await stack.enter_async_context(joined(cluster, members, "three"))
        ids = {member.name: member.id for member in await members.list() if not member.learner}
        assert sorted(ids) == ["one", "three", "two"]
        store = EtcdStore([one.endpoint])
        stack.push_async_callback(store.close)
        await store.commit([], [Write("a", b"1")])

        # Two of three go on; the third one comes back by itself, and is removed while it is away again.
        assert two.pid is not None
        os.kill(two.pid, signal.SIGKILL)
        await store.commit([], [Write("a", b"2")])
        await asyncio.sleep(0.1)
        await two.serving()
        assert three.pid is not None
        os.kill(three.pid, signal.SIGSTOP)
        os.kill(three.pid, signal.SIGKILL)
        await members.remove(ids["three"])
        await members.remove(ids["three"])
        await three.removed()
        with pytest.raises(WharfError, match="was removed from the cluster"):
            await three.serving()
        assert three.pid is None
        assert two.status is Status.SERVING
        await store.commit([], [Write("a", b"3")])
        status = await members.status()
        assert status.id == ids["one"]
        assert status.leader in (ids["one"], ids["two"])

    # All members but one are lost for good.
    async with running(cluster.child(replace(options, force_new=True))) as one:
        members, store = Members(one.endpoint), EtcdStore([one.endpoint])
        assert [member.name for member in await members.list()] == ["one"]
        entries, _ = await store.range("a")
        assert [entry.value for entry in entries] == [b"3"]
        await members.close()
        await store.close()


@pytest.mark.skipif(not etcd_member.installed(), reason="needs etcd")
def test_a_commit_is_not_lost_with_the_leader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine needs longer to elect another leader.
    monkeypatch.setitem(timeouts._SECONDS, "swarm.commit-again", 30.0)

    async def main() -> None:
        cluster = Cluster(tmp_path)
        async with asyncio.timeout(_SECONDS), running(cluster.child(cluster.options("one"))) as one:
            members = Members(one.endpoint)
            async with joined(cluster, members, "two") as two, joined(cluster, members, "three") as three:
                ids = {member.id: member.name for member in await members.list()}
                leader = {"one": one, "two": two, "three": three}[ids[(await members.status()).leader]]
                await members.close()
                store = EtcdStore([(two if leader is one else one).endpoint])
                revision = await store.commit([], [Write("a", b"1")])
                assert leader.pid is not None
                # The member forwards it to a leader that does not answer.
                os.kill(leader.pid, signal.SIGSTOP)
                try:
                    await store.commit([Condition("a", revision)], [Write("a", b"2")])
                    assert [entry.value for entry in (await store.range("a"))[0]] == [b"2"]
                finally:
                    os.kill(leader.pid, signal.SIGCONT)
                    await store.close()

    asyncio.run(main())
