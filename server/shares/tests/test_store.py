"""The database of accounts."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.shares.store import Counters, Store, Usage


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


def row(day: str, owner: str, container: str = "c1", **used: float) -> Usage:
    return Usage(day, owner, container, container, **used)  # type: ignore[arg-type]


def test_sums_of_a_day(store: Store) -> None:
    async def body() -> None:
        first = row("2026-01-01", "alice", cpu_seconds=1.5, disk_bytes=10, sent_bytes=3)
        await store.add([first], {"c1": Counters(1, 2, 3, 4, 5, 6)})
        await store.add([row("2026-01-01", "alice", cpu_seconds=2, disk_bytes=4, sent_bytes=4)], {})
        await store.add([row("2026-01-02", "alice", cpu_seconds=1)], {"c1": Counters(1, 9)})
        assert (await store.usage())[:-1] == [row("2026-01-01", "alice", cpu_seconds=3.5, disk_bytes=10, sent_bytes=7)]
        assert await store.runs() == {"c1": Counters(1, 9)}
        await store.expire("2026-01-02")
        assert [each.day for each in await store.usage()] == ["2026-01-02"]

    asyncio.run(body())


def test_the_rows_of_an_owner_and_its_jobs(store: Store) -> None:
    async def body() -> None:
        owners = ("a_b", "a_b:0f3c", "axb:0f3c", "", "a_bc")
        await store.add([row("2026-01-01", owner, f"c{number}") for number, owner in enumerate(owners)], {})
        assert [each.owner for each in await store.usage(owner="a_b")] == ["a_b", "a_b:0f3c"]
        assert [each.owner for each in await store.usage(owner="")] == [""]
        assert len(await store.usage()) == 5

    asyncio.run(body())


def test_a_removed_container_leaves_its_sums(store: Store) -> None:
    async def body() -> None:
        await store.add([row("2026-01-01", "alice")], {"c1": Counters(1, 2)})
        await store.put_busy({"c1": (1, 5), "c2": (3, 4)})
        await store.forget("c1")
        assert (await store.runs(), await store.busy()) == ({}, {"c2": (3, 4)})
        assert len(await store.usage()) == 1

    asyncio.run(body())
