"""Two managers that want to be the leader, over one store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from api_models.swarm.service import ServiceSpec
from engine.common.errors import Kind, WharfError
from server.swarm.model.objects import Leader, Service
from server.swarm.state.leadership import Leadership
from server.swarm.state.state import Delete, Put, State
from server.swarm.state.tests.opened import opened
from server.swarm.store.etcd import EtcdStore
from server.swarm.store.interface import Store
from server.swarm.store.sqlite import SqliteStore
from server.swarm.store.tests import etcd_member

_LEASE = 2


class Manager:
    """``led``: the views of the state that it had as the leader; ``ended``: how often its work was cancelled."""

    def __init__(self, state: State, node_id: str, *, lease: int = _LEASE) -> None:
        self.state = state
        self.led: list[State] = []
        self.ended = 0
        self._changed = asyncio.Condition()
        self.leadership = Leadership(state, node_id, self._lead, lease=lease)
        self.task = asyncio.create_task(self.leadership.run())

    async def _lead(self, state: State) -> None:
        await self._note(state)
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1
            await self._note(None)

    async def _note(self, state: State | None) -> None:
        async with self._changed:
            self.led += [] if state is None else [state]
            self._changed.notify_all()

    async def until(self, reached: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(reached)

    async def leads(self, times: int = 1) -> State:
        await self.until(lambda: len(self.led) == times)
        return self.led[-1]

    async def close(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


class BrokenStore(SqliteStore):
    """Its renewals hang while it is ``broken``; other calls work."""

    broken = False

    async def keep_alive(self, lease: int) -> None:
        if self.broken:
            await asyncio.Event().wait()
        await super().keep_alive(lease)


@asynccontextmanager
async def _second(store: Store) -> AsyncIterator[State]:
    state = State(store)
    await state.open()
    try:
        yield state
    finally:
        await state.close()


def _run(path: Path, scenario: Callable[[State, State], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(path) as (store, state), _second(store) as other, asyncio.timeout(20):
            await scenario(state, other)

    asyncio.run(run())


def _service(id: str) -> Service:
    return Service(id=id, spec=ServiceSpec(name=id))


def test_one_leads_and_the_other_follows_at_once(tmp_path: Path) -> None:
    async def scenario(state: State, other: State) -> None:
        one = Manager(state, "n1", lease=600)
        view = await one.leads()
        two = Manager(other, "n2", lease=600)
        await other.synchronize()
        await view.commit([Put(_service("s1"))])
        assert view.tables.services.get("s1").version == view.revision == state.revision
        assert other.tables.leader is not None
        assert other.tables.leader.node_id == "n1"
        assert two.led == []
        await one.close()
        assert one.ended == 1
        await two.leads()
        for build in ([Put(_service("s2"))], [Delete(state.tables.services.get("s1"))]):
            with pytest.raises(WharfError, match="not the leader") as late:
                await view.transact(lambda build=build: build)  # type: ignore[misc]
            assert late.value.kind is Kind.UNAVAILABLE
        await view.transact(lambda: [])
        assert [service.id for service in state.tables.services] == ["s1"]
        await two.close()
        await state.synchronize()
        assert state.tables.leader is None

    _run(tmp_path, scenario)


def test_a_leader_whose_object_is_deleted_ends_and_leads_again(tmp_path: Path) -> None:
    async def scenario(state: State, other: State) -> None:
        one = Manager(state, "n1", lease=600)
        view = await one.leads()
        leader = other.tables.leader
        assert leader is not None
        await other.commit([Delete(leader)])
        again = await one.leads(2)
        assert one.ended == 1
        with pytest.raises(WharfError, match="not the leader"):
            await view.commit([Put(_service("s1"))])
        await again.commit([Put(_service("s1"))])
        await one.close()

    _run(tmp_path, scenario)


def test_a_leader_resigns(tmp_path: Path) -> None:
    async def scenario(state: State, other: State) -> None:
        one = Manager(state, "n1", lease=1)
        await one.leads()
        await one.leadership.resign()
        # Nobody else is there.
        await one.leads(2)
        two = Manager(other, "n2")
        await one.leadership.resign()
        await two.leads()
        assert len(one.led) == 2
        await two.leadership.resign()
        await one.leads(3)
        await one.close()
        await two.close()

    _run(tmp_path, scenario)


def test_a_node_that_was_killed_as_the_leader_leads_at_once(tmp_path: Path) -> None:
    async def scenario(state: State, other: State) -> None:
        lease = await state.store.grant(600)
        await state.commit([Put(Leader(id="leader", node_id="n1"), lease)])
        two = Manager(other, "n2")
        one = Manager(state, "n1")
        done = [asyncio.create_task(manager.leads()) for manager in (one, two)]
        await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
        await one.close()
        await two.close()
        for task in done:
            task.cancel()

    _run(tmp_path, scenario)


def test_the_work_ends_before_the_lease_and_the_lease_is_renewed(tmp_path: Path) -> None:
    async def run() -> None:
        store = BrokenStore(tmp_path / "swarm.db")
        await store.open()
        async with _second(store) as state, _second(store) as other, asyncio.timeout(20):
            one, two = Manager(state, "n1"), Manager(other, "n2")
            leader, follower = (one, two) if await _first(one, two) is one else (two, one)
            await asyncio.sleep(_LEASE * 1.5)
            assert (len(leader.led), leader.ended, follower.led) == (1, 0, [])
            store.broken = True
            ends = asyncio.get_running_loop().time() + _LEASE
            await leader.until(lambda: leader.ended == 1)
            assert asyncio.get_running_loop().time() < ends
            store.broken = False
            await one.close()
            await two.close()
        await store.close()

    asyncio.run(run())


async def _first(one: Manager, two: Manager) -> Manager:
    tasks = {asyncio.create_task(manager.leads()): manager for manager in (one, two)}
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    return tasks[done.pop()]


@pytest.mark.skipif(not etcd_member.installed(), reason="needs etcd")
def test_on_etcd_a_leader_that_is_cut_off_is_followed(tmp_path: Path) -> None:
    async def run(address: str) -> None:
        mine, its = EtcdStore([address]), EtcdStore([address])
        async with _second(its) as other, asyncio.timeout(20):
            async with _second(mine) as state:
                one = Manager(state, "n1")
                await one.leads()
                two = Manager(other, "n2")
                await asyncio.sleep(0)
                assert two.led == []
                await mine.close()
                await one.until(lambda: one.ended == 1)
                assert two.led == []
                one.task.cancel()
                await asyncio.gather(one.task, return_exceptions=True)
            await two.leads()
            await two.close()
        await its.close()

    with etcd_member.member(tmp_path / "etcd") as address:
        asyncio.run(run(address))
