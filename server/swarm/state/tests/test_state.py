"""The state over a store."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from api_models.swarm.service import ServiceSpec
from engine.common.errors import Kind, WharfError
from server.swarm.model.objects import Service, Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Conflict, Delete, Event, Operation, Put, State
from server.swarm.state.tests.opened import opened
from server.swarm.store.sqlite import SqliteStore


def _run(path: Path, scenario: Callable[[SqliteStore, State], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(path) as (store, state), asyncio.timeout(20):
            await scenario(store, state)

    asyncio.run(run())


def _service(id: str, name: str) -> Service:
    return Service(id=id, spec=ServiceSpec(name=name))


def test_a_commit_is_in_the_tables_when_it_returns(tmp_path: Path) -> None:
    async def scenario(_: SqliteStore, state: State) -> None:
        changes = state.subscribe()
        await state.commit([Put(_service("s1", "web")), Put(Task(id="t1", service_id="s1", slot=1))])
        stored = state.tables.services.get("web")
        assert stored.version > 0
        assert state.tables.services.get("s") is stored
        task = state.tables.tasks.of_service("s1")[0]
        running = replace(task, node_id="n1", status=TaskStatus(state=int(TaskState.RUNNING)))
        await state.commit([Put(running)])
        assert [each.state for each in state.tables.tasks.of_node("n1")] == [TaskState.RUNNING]
        assert state.tables.tasks.of_node("") == []
        await state.commit([Delete(stored)])
        assert state.tables.services.find("s1") is None
        events = await changes.next()
        assert [(event.old is None, event.new is None) for event in events] == [
            (True, False),
            (True, False),
            (False, False),
            (False, True),
        ]

    _run(tmp_path, scenario)


def test_names_are_unique_until_the_object_is_deleted(tmp_path: Path) -> None:
    async def scenario(_: SqliteStore, state: State) -> None:
        await state.commit([Put(_service("s1", "web"))])
        with pytest.raises(Conflict):
            await state.commit([Put(_service("s2", "web"))])
        await state.commit([Delete(state.tables.services.get("web"))])
        await state.commit([Put(_service("s2", "web"))])
        assert state.tables.services.get("web").id == "s2"

    _run(tmp_path, scenario)


def test_an_outdated_object_is_a_conflict_and_a_transaction_repeats(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore, state: State) -> None:
        await state.commit([Put(_service("s1", "web"))])
        other = State(store)
        await other.open()
        mine, calls = state.tables.services.get("web"), 0
        await other.commit([Put(replace(mine, spec_version=7))])
        with pytest.raises(Conflict):
            await state.commit([Put(replace(mine, spec_version=8))])

        def build() -> Sequence[Operation]:
            nonlocal calls
            calls += 1
            service = mine if calls == 1 else state.tables.services.get("web")
            return [Put(replace(service, spec_version=service.spec_version + 1))]

        await state.transact(build)
        assert calls == 2
        await other.synchronize()
        assert other.tables.services.get("web").spec_version == 8
        await other.close()

    _run(tmp_path, scenario)


def test_a_state_reads_what_is_stored(tmp_path: Path) -> None:
    async def write(_: SqliteStore, state: State) -> None:
        await state.commit([Put(_service("s1", "web")), Put(_service("s2", "db"))])

    async def read(_: SqliteStore, state: State) -> None:
        assert {service.name for service in state.tables.services} == {"web", "db"}
        with pytest.raises(WharfError, match=r"service s is ambiguous \(2 matches found\)") as ambiguous:
            state.tables.services.get("s")
        assert ambiguous.value.kind is Kind.INVALID_ARGUMENT
        with pytest.raises(WharfError, match="service x not found"):
            state.tables.services.get("x")

    _run(tmp_path, write)
    _run(tmp_path, read)


def test_compacted_changes_are_read_anew(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore, state: State) -> None:
        await state.commit([Put(_service("s1", "web")), Put(_service("s2", "db"))])
        behind = State(store)
        await behind.open()
        await behind.close()  # it stops following
        await state.commit([Delete(state.tables.services.get("db")), Put(_service("s3", "cache"))])
        store._begin = state.tables.services.get("cache").version
        store._history.clear()
        changes = behind.subscribe()
        behind._task = asyncio.create_task(behind._follow())
        events: list[Event] = await changes.next()
        assert sorted(event.item.id for event in events) == ["s2", "s3"]
        assert {service.name for service in behind.tables.services} == {"web", "cache"}
        await behind.close()

    _run(tmp_path, scenario)
