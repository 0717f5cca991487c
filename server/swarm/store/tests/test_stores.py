"""The contract of ``interface.Store``, over every store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from server.swarm.store.interface import (
    MAX_OPERATIONS,
    MAX_VALUE,
    Change,
    Commit,
    Compacted,
    Condition,
    ConditionFailed,
    LeaseEnded,
    Store,
    Write,
)
from server.swarm.store.sqlite import HISTORY, SqliteStore


def _run(path: Path, scenario: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = SqliteStore(path / "swarm.db")
        await store.open()
        try:
            async with asyncio.timeout(20):
                await scenario(store)
        finally:
            await store.close()

    asyncio.run(run())


async def _next(commits: AsyncIterator[Commit]) -> Commit:
    """The next commit with changes."""
    while True:
        commit = await anext(commits)
        if commit.changes:
            return commit


def test_a_commit_is_read_and_watched_with_its_revision(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        _, begin = await store.range("a/")
        watch = store.watch("a/", begin)
        first = await store.commit([Condition("a/1", 0)], [Write("a/1", b"one"), Write("b/1", b"other")])
        second = await store.commit([Condition("a/1", first)], [Write("a/1", b"two")])
        assert begin < first < second
        entries, revision = await store.range("a/")
        assert [(entry.key, entry.value, entry.revision) for entry in entries] == [("a/1", b"two", second)]
        assert revision == second
        assert await _next(watch) == Commit(first, [Change("a/1", b"one")])
        assert await _next(watch) == Commit(second, [Change("a/1", b"two")])
        third = await store.commit([], [Write("a/1", None), Write("a/missing", None)])
        assert await _next(watch) == Commit(third, [Change("a/1", None)])

    _run(tmp_path, scenario)


def test_a_failed_condition_leaves_everything(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        first = await store.commit([], [Write("a/1", b"one")])
        for condition in (Condition("a/1", 0), Condition("a/1", first - 1), Condition("a/2", first)):
            with pytest.raises(ConditionFailed):
                await store.commit([condition], [Write("a/1", b"lost"), Write("a/3", b"lost")])
        entries, revision = await store.range("a/")
        assert [entry.value for entry in entries] == [b"one"]
        assert revision == first

    _run(tmp_path, scenario)


def test_one_of_two_racing_commits_wins(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        outcomes = await asyncio.gather(
            *(store.commit([Condition("a/1", 0)], [Write("a/1", bytes([n]))]) for n in range(10)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, ConditionFailed) for outcome in outcomes) == 9

    _run(tmp_path, scenario)


def test_a_watch_begins_in_the_past_and_shows_how_far_it_is(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        first = await store.commit([], [Write("a/1", b"1")])
        second = await store.commit([], [Write("a/2", b"2")])
        watch = store.watch("a/", first)
        assert await _next(watch) == Commit(second, [Change("a/2", b"2")])
        await store.commit([], [Write("b/1", b"elsewhere")])
        _, revision = await store.range("a/")
        async for commit in watch:
            if commit.revision >= revision:
                break

    _run(tmp_path, scenario)


def test_a_watch_is_refused_what_is_compacted(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        first = await store.commit([], [Write("a/1", b"0")])
        for n in range(HISTORY + 1):
            await store.commit([], [Write("a/1", str(n).encode())])
        with pytest.raises(Compacted):
            await anext(store.watch("a/", first))

    _run(tmp_path, scenario)


def test_bounds(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        await store.commit([], [Write(f"a/{n}", b"x") for n in range(MAX_OPERATIONS)])
        for writes in (
            [Write(f"b/{n}", b"x") for n in range(MAX_OPERATIONS + 1)],
            [Write("b/1", b"x" * (MAX_VALUE + 1))],
            [Write("b/1", b"x"), Write("b/1", None)],
        ):
            with pytest.raises(ValueError, match=r"transaction|value"):
                await store.commit([], writes)
        assert (await store.range("b/"))[0] == []

    _run(tmp_path, scenario)


def test_leases_end(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        lease, other = await store.grant(1), await store.grant(60)
        await store.commit([], [Write("a/1", b"1", lease), Write("a/2", b"2", other), Write("a/3", b"3")])
        _, revision = await store.range("a/")
        watch = store.watch("a/", revision)
        assert (await _next(watch)).changes == [Change("a/1", None)]
        with pytest.raises(LeaseEnded):
            await store.keep_alive(lease)
        await store.keep_alive(other)
        await store.revoke(other)
        assert (await _next(watch)).changes == [Change("a/2", None)]
        await store.revoke(other)
        assert [entry.key for entry in (await store.range("a/"))[0]] == ["a/3"]
        with pytest.raises(LeaseEnded):
            await store.commit([], [Write("a/4", b"4", other)])

    _run(tmp_path, scenario)


def test_a_lease_that_is_kept_alive_goes_on(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        lease = await store.grant(1)
        await store.commit([], [Write("a/1", b"1", lease)])
        for _ in range(8):
            await asyncio.sleep(0.2)
            await store.keep_alive(lease)
        assert len((await store.range("a/"))[0]) == 1

    _run(tmp_path, scenario)


def test_entries_outlive_the_process(tmp_path: Path) -> None:
    written: list[int] = []

    async def write(store: Store) -> None:
        written.append(await store.commit([], [Write("a/1", b"1")]))

    async def read(store: Store) -> None:
        entries, revision = await store.range("a/")
        assert [entry.value for entry in entries] == [b"1"]
        assert revision == written[0]
        assert await store.commit([], [Write("a/2", b"2")]) > revision

    _run(tmp_path, write)
    _run(tmp_path, read)


def test_close_ends_the_watches(tmp_path: Path) -> None:
    async def run() -> list[Commit]:
        store = SqliteStore(tmp_path / "swarm.db")
        await store.open()
        watch = store.watch("a/", 1)
        await store.close()
        return [commit async for commit in watch]

    assert asyncio.run(run()) == []
