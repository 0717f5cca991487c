"""The lock under which managers start their members of etcd again."""

import asyncio
from pathlib import Path

from server.swarm.etcd import lock
from server.swarm.etcd.lock import restart_lock
from server.swarm.store.sqlite import SqliteStore


def test_one_manager_at_a_time(tmp_path: Path) -> None:
    inside: list[str] = []
    order: list[str] = []

    async def restart(store: SqliteStore, name: str) -> None:
        async with restart_lock(store):
            inside.append(name)
            assert inside == [name]
            order.append(name)
            await asyncio.sleep(0.02)
            inside.remove(name)

    async def main() -> None:
        store = SqliteStore(tmp_path / "swarm.db")
        await store.open()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(restart(store, name))
        assert sorted(order) == ["a", "b", "c"]
        assert (await store.range(lock.KEY))[0] == []
        await store.close()

    asyncio.run(main())
