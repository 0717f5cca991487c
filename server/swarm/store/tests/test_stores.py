"""The contract of ``interface.Store``, over SQLite, and over etcd where it is installed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.swarm.store.etcd import EtcdStore
from server.swarm.store.interface import (
    MAX_CONDITIONS,
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
from server.swarm.store.pb import etcd_pb2 as pb
from server.swarm.store.sqlite import HISTORY, SqliteStore
from server.swarm.store.tests import etcd_member

Scenario = Callable[[Store], Awaitable[None]]
#: Opens the store of a test, runs a scenario on it and closes it. A later call opens the same store.
Run = Callable[[Scenario], None]

_SECONDS = 30


@pytest.fixture(params=["sqlite", "etcd"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Run]:
    if request.param == "sqlite":
        yield lambda scenario: asyncio.run(_on_sqlite(tmp_path / "swarm.db", scenario))
        return
    if not etcd_member.installed():
        pytest.skip("needs etcd")
    with etcd_member.member(tmp_path / "etcd") as address:
        yield lambda scenario: asyncio.run(_on_etcd(address, scenario))


async def _on_sqlite(path: Path, scenario: Scenario) -> None:
    store = SqliteStore(path)
    await store.open()
    async with asyncio.timeout(_SECONDS):
        try:
            await scenario(store)
        finally:
            await store.close()


async def _on_etcd(address: str, scenario: Scenario) -> None:
    store = EtcdStore([address])
    async with asyncio.timeout(_SECONDS):
        try:
            await scenario(store)
        finally:
            await store.close()


async def _next(commits: AsyncIterator[Commit]) -> Commit:
    """The next commit with changes."""
    while True:
        commit = await anext(commits)
        if commit.changes:
            return commit


def test_a_commit_is_read_and_watched_with_its_revision(run: Run) -> None:
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

    run(scenario)


def test_a_failed_condition_leaves_everything(run: Run) -> None:
    async def scenario(store: Store) -> None:
        first = await store.commit([], [Write("a/1", b"one")])
        for condition in (Condition("a/1", 0), Condition("a/1", first - 1), Condition("a/2", first)):
            with pytest.raises(ConditionFailed):
                await store.commit([condition], [Write("a/1", b"lost"), Write("a/3", b"lost")])
        entries, revision = await store.range("a/")
        assert [entry.value for entry in entries] == [b"one"]
        assert revision == first

    run(scenario)


def test_one_of_several_racing_commits_wins(run: Run) -> None:
    async def scenario(store: Store) -> None:
        outcomes = await asyncio.gather(
            *(store.commit([Condition("a/1", 0)], [Write("a/1", bytes([n]))]) for n in range(10)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, ConditionFailed) for outcome in outcomes) == 9

    run(scenario)


def test_a_watch_begins_in_the_past_and_shows_how_far_it_is(run: Run) -> None:
    async def scenario(store: Store) -> None:
        first = await store.commit([], [Write("a/1", b"1")])
        second = await store.commit([], [Write("a/2", b"2")])
        watch = store.watch("a/", first)
        assert await _next(watch) == Commit(second, [Change("a/2", b"2")])

        async def reach(revision: int) -> None:
            async for commit in watch:
                if commit.revision >= revision:
                    return

        await reach((await asyncio.gather(store.commit([], [Write("b/1", b"elsewhere")]), asyncio.sleep(0)))[0])
        # Nothing changes below the prefix: only the revision advances.
        reading = asyncio.create_task(reach(await store.commit([], [Write("b/2", b"elsewhere")])))
        await store.range("a/")
        await reading

    run(scenario)


def test_many_entries(run: Run) -> None:
    async def scenario(store: Store) -> None:
        for first in range(0, 1200, 100):
            await store.commit([], [Write(f"a/{n:04}", str(n).encode()) for n in range(first, first + 100)])
        entries, _ = await store.range("a/")
        assert [entry.value for entry in entries] == [str(n).encode() for n in range(1200)]

    run(scenario)


def test_bounds(run: Run) -> None:
    async def scenario(store: Store) -> None:
        conditions = [Condition(f"a/{n}", 0) for n in range(MAX_CONDITIONS)]
        await store.commit(conditions, [Write(f"a/{n}", b"x") for n in range(MAX_OPERATIONS)])
        with pytest.raises(ValueError, match="transaction"):
            await store.commit([*conditions, Condition("b/1", 0)], [])
        await store.commit([], [Write("a/large", b"x" * MAX_VALUE)])
        for writes in (
            [Write(f"b/{n}", b"x") for n in range(MAX_OPERATIONS + 1)],
            [Write("b/1", b"x" * (MAX_VALUE + 1))],
            [Write("b/1", b"x"), Write("b/1", None)],
        ):
            with pytest.raises(ValueError, match=r"transaction|value"):
                await store.commit([], writes)
        assert list((await store.range("b/"))[0]) == []

    run(scenario)


def test_leases_end(run: Run) -> None:
    async def scenario(store: Store) -> None:
        # etcd's shortest lease is about two seconds.
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

    run(scenario)


def test_a_store_is_closed_in_the_moment_of_a_renewal(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.keep_alive(await store.grant(60))

    run(scenario)


def test_a_lease_that_is_kept_alive_goes_on(run: Run) -> None:
    async def scenario(store: Store) -> None:
        lease = await store.grant(2)
        await store.commit([], [Write("a/1", b"1", lease)])
        for _ in range(12):
            await asyncio.sleep(0.25)
            await store.keep_alive(lease)
        assert len((await store.range("a/"))[0]) == 1

    run(scenario)


def test_entries_outlive_the_connection(run: Run) -> None:
    written: list[int] = []

    async def write(store: Store) -> None:
        written.append(await store.commit([], [Write("a/1", b"1")]))

    async def read(store: Store) -> None:
        entries, revision = await store.range("a/")
        assert [entry.value for entry in entries] == [b"1"]
        assert revision == written[0]
        assert await store.commit([], [Write("a/2", b"2")]) > revision

    run(write)
    run(read)


def test_close_ends_the_watches(run: Run) -> None:
    async def scenario(store: Store) -> None:
        async def read() -> list[Commit]:
            return [commit async for commit in store.watch("a/", revision) if commit.changes]

        _, revision = await store.range("a/")
        reading = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        await store.close()
        assert await reading == []

    run(scenario)


def test_etcd_has_the_commits_since_its_compaction_only(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        first = await store.commit([], [Write("a/1", b"0")])
        second = await store.commit([], [Write("a/1", b"1")])
        async with grpc.aio.insecure_channel(address) as channel:
            compact = channel.unary_unary(
                "/etcdserverpb.KV/Compact",
                request_serializer=pb.CompactionRequest.SerializeToString,
                response_deserializer=pb.CompactionResponse.FromString,
            )
            await compact(pb.CompactionRequest(revision=second, physical=True))
        with pytest.raises(Compacted):
            await anext(store.watch("a/", first - 1))

    if not etcd_member.installed():
        pytest.skip("needs etcd")
    with etcd_member.member(tmp_path / "etcd") as address:
        asyncio.run(_on_etcd(address, scenario))


@pytest.mark.skipif(not etcd_member.installed(), reason="needs etcd")
@pytest.mark.parametrize("value", [b"new", None], ids=["put", "delete"])
def test_a_commit_whose_answer_is_lost_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: bytes | None
) -> None:
    async def lost(store: EtcdStore, conditions: Sequence[Condition], *, before: bool) -> int:
        """A commit whose first attempt gets no answer: it was done, or lost on its way."""
        done: list[Any] = []
        call = store._call

        async def first(method: str, request: Any, reply: Any, *, seconds: float | None = None) -> Any:
            if method == "KV/Txn" and not done:
                done.append(await call(method, request, reply) if before else None)
                raise WharfError(Kind.UNAVAILABLE, "The swarm does not have a leader")
            return await call(method, request, reply)

        with monkeypatch.context() as patch:
            patch.setattr(store, "_call", first)
            patch.setitem(timeouts._SECONDS, "swarm.commit", 0.0)
            return await store.commit(conditions, writes)

    writes = [Write("/a", value)]

    async def scenario(store: Store) -> None:
        assert isinstance(store, EtcdStore)
        for before in (True, False):
            present = await store.commit([], [Write("/a", b"old")])
            revision = await lost(store, [Condition("/a", present)], before=before)
            assert revision == present + 1
            entries, last = await store.range("/")
            assert ([entry.value for entry in entries], last) == ([] if value is None else [value], revision)
        other = await store.commit([], [Write("/a", b"other")])
        with pytest.raises(ConditionFailed):
            await lost(store, [Condition("/a", other - 1)], before=True)
        # A mark has the same value after every commit that writes it: it proves nothing.
        await store.commit([], [Write("/mark", b"")])
        writes.insert(0, Write("/mark", b""))
        with pytest.raises(ConditionFailed):
            await lost(store, [Condition("/a", other - 1)], before=False)

    with etcd_member.member(tmp_path / "etcd") as address:
        asyncio.run(_on_etcd(address, scenario))


def test_an_etcd_that_ends_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(store: Store) -> None:
        _, revision = await store.range("a/")
        watch = store.watch("a/", revision)
        reading = asyncio.create_task(_next(watch))
        await asyncio.sleep(0.1)
        stop()
        monkeypatch.setitem(timeouts._SECONDS, "swarm.store", 1.0)
        with pytest.raises(WharfError) as ended:
            await reading
        assert ended.value.kind is Kind.UNAVAILABLE
        with pytest.raises(WharfError, match="The swarm does not have a leader") as silent:
            await store.commit([], [Write("a/1", b"0")])
        assert silent.value.kind is Kind.UNAVAILABLE

    if not etcd_member.installed():
        pytest.skip("needs etcd")
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(etcd_member.member(tmp_path / "etcd"))
        stop = stack.pop_all().close
        try:
            asyncio.run(_on_etcd(address, scenario))
        finally:
            stop()


def test_sqlite_has_the_last_commits_only(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        first = await store.commit([], [Write("a/1", b"0")])
        for n in range(HISTORY + 1):
            await store.commit([], [Write("a/1", str(n).encode())])
        with pytest.raises(Compacted):
            await anext(store.watch("a/", first))

    asyncio.run(_on_sqlite(tmp_path / "swarm.db", scenario))
