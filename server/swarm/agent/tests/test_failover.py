"""A node follows its own manager, and the others while that one is silent."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from api_models.swarm.node import NodeDescription
from engine.common import timeouts
from engine.common.errors import Kind, WharfError, not_found
from server.swarm.agent import failover
from server.swarm.agent.dispatcher import Dispatcher, Payload
from server.swarm.agent.failover import Failover
from server.swarm.agent.tests.fakes import FakeDispatcher, make_task


class _Manager(FakeDispatcher):
    """``silent``: it gives no answer at all."""

    def __init__(self) -> None:
        super().__init__()
        self.silent = False
        self.sessions = True
        self.beats = self.attached = 0

    async def heartbeat(self) -> float:
        await self._answer()
        self.beats += 1
        if not self.sessions:
            raise not_found("the node's session is over")
        return 0.2

    async def secret(self, id: str) -> Payload:
        await self._answer()
        return await super().secret(id)

    async def attach_network(self, *arguments: object) -> tuple[str, str]:
        await self._answer()
        self.attached += 1
        return "task", "network"

    async def synchronize(self) -> None:
        await self._answer()

    async def _answer(self) -> None:
        if self.silent:
            await asyncio.Event().wait()
        self._check()


@dataclass
class _Site:
    own: _Manager = field(default_factory=_Manager)
    other: _Manager = field(default_factory=_Manager)
    alone: bool = False

    def others(self) -> Dispatcher | None:
        return None if self.alone else self.other


def _run(scenario: Callable[[_Site, Failover], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "_AGAIN", 0.01)
    monkeypatch.setattr(failover, "_BEAT", 0.2)
    monkeypatch.setattr(timeouts, "seconds", lambda name: 0.2)

    async def run() -> None:
        site = _Site()
        dispatcher = Failover(site.own, site.others, site.own.synchronize)
        async with asyncio.timeout(10):
            part = asyncio.create_task(dispatcher.run())
            await scenario(site, dispatcher)
        part.cancel()
        await asyncio.gather(part, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize("silent", [True, False])
def test_heartbeats_find_another_manager_and_return(silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: _Site, dispatcher: Failover) -> None:
        assert await dispatcher.heartbeat() == 0.2
        assert (site.own.beats, site.other.beats) == (1, 0)
        site.own.silent, site.own.down = silent, not silent
        for _ in range(3):
            await dispatcher.heartbeat()
        assert (site.own.beats, site.other.beats) == (1, 3)
        site.own.silent = site.own.down = False
        await asyncio.sleep(0.3)
        await dispatcher.heartbeat()
        assert (site.own.beats, site.other.beats) == (2, 3)

    _run(scenario, monkeypatch)


def test_a_session_that_another_manager_refuses_begins_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: _Site, dispatcher: Failover) -> None:
        site.own.silent, site.other.sessions = True, False
        with pytest.raises(WharfError) as over:
            await dispatcher.heartbeat()
        assert over.value.kind is Kind.NOT_FOUND
        await dispatcher.describe(NodeDescription(hostname="one"))
        assert site.own.description is None
        assert site.other.description == NodeDescription(hostname="one")

    _run(scenario, monkeypatch)


def test_assignments_continue_at_the_other_managers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: _Site, dispatcher: Failover) -> None:
        site.own.put(make_task("old"))
        stream = dispatcher.assignments()
        assert set((await anext(stream)).tasks) == {"old"}
        site.own.silent = True
        following = asyncio.ensure_future(anext(stream))
        site.other.put(make_task("old"), make_task("new"))
        await dispatcher.heartbeat()
        assert set((await following).tasks) == {"old", "new"}
        site.other.put(make_task("newer"))
        assert set((await anext(stream)).tasks) == {"old", "new", "newer"}
        site.own.put(make_task("newest"))
        site.own.silent = False
        assert set((await anext(stream)).tasks) == {"old", "newest"}

    _run(scenario, monkeypatch)


def test_a_call_without_an_answer_is_repeated_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: _Site, dispatcher: Failover) -> None:
        site.own.silent = True
        site.other.secrets["s1"] = Payload(b"data", template=False)
        assert (await dispatcher.secret("s1")).data == b"data"
        # The own manager has an old state: it isn't asked any more.
        site.own.secrets["s2"] = Payload(b"old", template=False)
        with pytest.raises(WharfError) as missing:
            await dispatcher.secret("s2")
        assert missing.value.kind is Kind.NOT_FOUND

    _run(scenario, monkeypatch)


def test_an_answer_of_the_own_manager_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: _Site, dispatcher: Failover) -> None:
        site.other.secrets["s1"] = Payload(b"data", template=False)
        with pytest.raises(WharfError) as missing:
            await dispatcher.secret("s1")
        assert missing.value.kind is Kind.NOT_FOUND

    _run(scenario, monkeypatch)


def test_a_container_is_not_attached_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: _Site, dispatcher: Failover) -> None:
        site.own.silent = True
        with pytest.raises(WharfError) as failed:
            await dispatcher.attach_network("c", "net", (), ())
        assert failed.value.kind is Kind.UNAVAILABLE
        assert not site.other.attached
        await dispatcher.heartbeat()
        assert await dispatcher.attach_network("c", "net", (), ()) == ("task", "network")

    _run(scenario, monkeypatch)


@pytest.mark.parametrize("alone", [True, False])
def test_no_manager_answers(alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: _Site, dispatcher: Failover) -> None:
        site.alone, site.own.down, site.other.down = alone, True, True
        for call in (dispatcher.heartbeat, lambda: dispatcher.secret("s1")):
            with pytest.raises(WharfError) as failed:
                await call()
            assert failed.value.kind is Kind.UNAVAILABLE
        # It still follows its own manager.
        site.own.down = False
        await dispatcher.heartbeat()
        assert site.own.beats == 1

    _run(scenario, monkeypatch)


def test_the_only_manager_is_not_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: _Site, dispatcher: Failover) -> None:
        site.alone, site.own.silent = True, True
        beat = asyncio.create_task(dispatcher.heartbeat())
        await asyncio.sleep(0.5)
        assert not beat.done()
        beat.cancel()

    _run(scenario, monkeypatch)
