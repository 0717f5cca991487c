"""The networks of the swarm on this node."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from engine.common.errors import WharfError, internal
from server.networks.overlay.model import Backend, Keyring, MeshPort, ServiceAddresses, SwarmNetwork
from server.swarm.agent.dispatcher import Assignments
from server.swarm.agent.networks import NetworkSync
from server.swarm.agent.tests.fakes import FakeDispatcher, FakeOverlay

NET = SwarmNetwork("n1", "web", (("10.0.1.0/24", "10.0.1.1"),), 4097)
SERVICE = ServiceAddresses("s1", ("web",), "10.0.1.2", (Backend("web.1.t1", "10.0.1.3"),))
MESH = MeshPort("tcp", 80, 8080, ("10.0.0.3",))
NOTHING = Assignments({}, {}, {}, ())


def test_what_is_assigned_is_made_and_what_is_not_is_removed() -> None:
    async def scenario() -> None:
        overlay = FakeOverlay(networks={"old": NET, "busy": NET}, used={"busy"})
        sync = NetworkSync(overlay, FakeDispatcher().network_keys)
        await sync.discard_unused()
        assert set(overlay.realized()) == {"old", "busy"}
        await sync.apply(Assignments({}, {"n1": NET}, {"n1": (SERVICE,)}, (MESH,)))
        assert (overlay.networks["n1"], overlay.balanced["n1"], overlay.published) == (NET, (SERVICE,), (MESH,))
        await sync.discard_unused()
        assert set(overlay.realized()) == {"n1", "busy"}
        await sync.apply(NOTHING)
        overlay.used.clear()
        await sync.discard_unused()
        assert (list(overlay.realized()), overlay.published) == ([], ())

    asyncio.run(scenario())


@dataclass(slots=True)
class _Refusing(FakeOverlay):
    error: WharfError | None = field(default_factory=lambda: internal("port 80 is in use"))

    async def publish(self, ports: object) -> None:
        if self.error is not None:
            raise self.error


def test_an_error_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        overlay = _Refusing()
        sync = NetworkSync(overlay, FakeDispatcher().network_keys)
        for _ in range(3):
            await sync.apply(NOTHING)
        assert caplog.text.count("port 80 is in use") == 1
        overlay.error = None
        await sync.apply(NOTHING)
        overlay.error = internal("port 80 is in use")
        await sync.apply(Assignments({}, {}, {}, (MESH,)))
        assert caplog.text.count("port 80 is in use") == 2

    asyncio.run(scenario())


def test_keys_are_asked_for_once_each(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        overlay, dispatcher = FakeOverlay(), FakeDispatcher()
        dispatcher.keys = Keyring(b"a secret", b"a secret", b"a secret")
        sync = NetworkSync(overlay, dispatcher.network_keys)
        wanted = Assignments({}, {"n1": NET}, {}, ())
        await sync.apply(wanted)
        assert overlay.keys == []
        for number in (7, 7, 8, 8):
            await sync.apply(replace(wanted, keys=number))
        assert overlay.keys == [dispatcher.keys] * 2
        dispatcher.down = True
        with pytest.raises(WharfError):
            await sync.apply(replace(wanted, keys=9))
        dispatcher.down = False
        await sync.apply(replace(wanted, keys=9))
        assert len(overlay.keys) == 3
        assert "secret" not in caplog.text

    asyncio.run(scenario())


@dataclass(slots=True)
class _Counting(FakeOverlay):
    calls: list[str] = field(default_factory=list)

    async def balance(self, network_id: str, services: Sequence[ServiceAddresses]) -> None:
        self.calls.append(network_id)

    async def publish(self, ports: Sequence[MeshPort]) -> None:
        self.calls.append("mesh")


def test_only_changes_are_applied() -> None:
    async def scenario() -> None:
        overlay = _Counting()
        sync = NetworkSync(overlay, FakeDispatcher().network_keys)
        both = {"n1": NET}
        for services in ((), (), (SERVICE,)):
            await sync.apply(Assignments({}, both, {"n1": services}, (MESH,)))
        assert overlay.calls == ["n1", "mesh", "n1"]

    asyncio.run(scenario())
