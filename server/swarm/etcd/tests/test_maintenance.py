"""The alarm NOSPACE, with a tiny quota."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from server.swarm.etcd.maintenance import Maintenance
from server.swarm.etcd.members import Members, MemberStatus
from server.swarm.etcd.tests.cluster import Cluster, running
from server.swarm.store.etcd import EtcdStore
from server.swarm.store.interface import Write
from server.swarm.store.tests import etcd_member

_QUOTA = 4 << 20


@pytest.mark.skipif(not etcd_member.installed(), reason="needs etcd")
def test_a_full_store_accepts_changes_again_when_something_is_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        cluster = Cluster(tmp_path)
        async with running(cluster.child(replace(cluster.options("one"), quota=_QUOTA))) as child:
            store = EtcdStore([child.endpoint])
            await store.commit([], [Write("small", b"1")])
            written = 0
            with pytest.raises(WharfError, match="the swarm's store is full") as full:  # noqa: PT012
                while True:
                    await store.commit([], [Write(f"large/{written}", os.urandom(200_000))])
                    written += 1
            assert full.value.kind is Kind.RESOURCE_EXHAUSTED
            with pytest.raises(WharfError, match="is full"):
                await store.grant(5)

            members = Members(child.endpoint)
            maintenance = Maintenance(members, _QUOTA, look=0.05)
            await maintenance.look()
            assert "alarm NOSPACE: the database" in caplog.text
            with pytest.raises(WharfError, match="is full"):
                await store.commit([], [Write("small", b"2")])

            await store.commit([], [Write(f"large/{n}", None) for n in range(written)])
            running_part = asyncio.create_task(maintenance.run())
            async with asyncio.timeout(20):
                while "alarm NOSPACE is over" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await store.commit([], [Write("small", b"3")])
            running_part.cancel()
            await asyncio.gather(running_part, return_exceptions=True)
            await members.close()
            await store.close()

    asyncio.run(scenario())


def test_one_member_at_a_time_and_the_leader_last() -> None:
    async def scenario() -> None:
        members = Members("127.0.0.1:1")
        maintenance = Maintenance(members, _QUOTA)

        def waits(id: int, alarmed: list[int]) -> bool:
            return maintenance._must_wait(alarmed, MemberStatus(id, 1, False, 9, _QUOTA, _QUOTA))

        assert [waits(id, [1, 2, 3]) for id in (1, 2, 3)] == [True, False, True]
        assert [waits(id, [1, 3]) for id in (1, 3)] == [True, False]
        assert not waits(1, [1])
        assert waits(1, [1, 3])
        maintenance._waiting -= 61
        assert not waits(1, [1, 3])
        await members.close()

    asyncio.run(scenario())
