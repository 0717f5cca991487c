"""The networks of the swarm on this node."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from engine.common.errors import WharfError, internal
from server.networks.overlay.model import Backend, MeshPort, OverlayNetwork, ServiceAddresses
from server.swarm.agent.dispatcher import Assignments
from server.swarm.agent.networks import NetworkSync
from server.swarm.agent.tests.fakes import FakeOverlay, Swarm, make_task, run
from server.swarm.model.objects import Attachment
from server.swarm.model.taskstate import TaskState
from server.tests.daemon import Daemon

NET = OverlayNetwork("n1", "web", (("10.0.1.0/24", "10.0.1.1"),), 4097)
SERVICE = ServiceAddresses("s1", ("web",), "10.0.1.2", (Backend("web.1.t1", "10.0.1.3"),))
MESH = MeshPort("tcp", 80, 8080, ("10.0.0.3",))
NOTHING = Assignments({}, {}, {}, ())


def test_what_is_assigned_is_made_and_what_is_not_is_removed() -> None:
    async def scenario() -> None:
        overlay = FakeOverlay(networks={"old": NET, "busy": NET}, used={"busy"})
        sync = NetworkSync(overlay)
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
        sync = NetworkSync(overlay)
        for _ in range(3):
            await sync.apply(NOTHING)
        assert caplog.text.count("port 80 is in use") == 1
        overlay.error = None
        await sync.apply(NOTHING)
        overlay.error = internal("port 80 is in use")
        await sync.apply(NOTHING)
        assert caplog.text.count("port 80 is in use") == 2

    asyncio.run(scenario())


def test_a_task_is_rejected_without_its_network(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        task = replace(make_task("t1"), attachments=(Attachment(network_id="n9"),))
        swarm.dispatcher.put(task)
        found = await swarm.dispatcher.reaches("t1", TaskState.REJECTED)
        assert found.status.err == "network n9 not found"

    run(daemon, scenario)


def test_a_task_on_its_networks(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.networks = {"n1": NET}
        attachment = Attachment(network_id="n1", addresses=("10.0.1.3/24",), aliases=("web",))
        swarm.dispatcher.put(replace(make_task("t1"), attachments=(attachment,)))
        await swarm.dispatcher.reaches("t1", TaskState.RUNNING)
        settings = swarm.container("t1").networking["n1"]
        assert settings.ipam_config is not None
        assert (settings.ipam_config.ipv4_address, settings.aliases) == ("10.0.1.3", ("web",))
        assert set(swarm.overlay.realized()) == {"n1"}
        swarm.overlay.used.add("n1")
        swarm.dispatcher.networks = {}
        swarm.dispatcher.desire("t1", TaskState.REMOVE)
        await swarm.dispatcher.until(lambda: not swarm.dispatcher.tasks)
        await swarm.until(lambda: not swarm.names())

    run(daemon, scenario)


def test_predefined_networks_need_none_of_the_swarm(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(replace(make_task("t1"), attachments=(Attachment(network_id="host"),)))
        await swarm.dispatcher.reaches("t1", TaskState.RUNNING)
        container = swarm.container("t1")
        assert (container.host_config.network_mode, list(container.networking)) == ("host", ["host"])
        assert list(swarm.overlay.realized()) == []

    run(daemon, scenario)
