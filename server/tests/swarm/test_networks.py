"""Tasks on networks."""

from dataclasses import replace

from server.networks.overlay.model import SwarmNetwork
from server.swarm.agent.tests.fakes import make_task
from server.swarm.model.objects import Attachment
from server.swarm.model.taskstate import TaskState
from server.tests.daemon import Daemon
from server.tests.swarm.harness import Swarm, run

NET = SwarmNetwork("n1", "web", (("10.0.1.0/24", "10.0.1.1"),), 4097)


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
