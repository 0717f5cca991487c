"""Connections of a task that is to stop: those of a server of this process."""

import asyncio
import os
import socket
import time
from dataclasses import replace

import pytest

from server.networks.overlay.model import Peer, ServiceAddresses, SwarmNetwork
from server.swarm.agent.dispatcher import Assignments, pause
from server.swarm.agent.drain import busy, drain
from server.swarm.agent.tests.fakes import make_task
from server.swarm.model.objects import Attachment

LOCAL = "127.0.0.1"


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")])
def test_a_server_is_busy_until_its_connections_end(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family, dualstack_ipv6=family == socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert not busy(os.getpid(), {"127.0.0.2"})
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert busy(os.getpid(), {"127.0.0.1"})
            assert not busy(os.getpid(), {"127.0.0.2", "::1"})
            accepted, _ = server.accept()
            client.shutdown(socket.SHUT_WR)
            # The request is complete, the answer isn't sent.
            assert busy(os.getpid(), {"127.0.0.1"})
            accepted.close()
            assert client.recv(1) == b""


def test_a_task_drains_until_its_connections_end_or_its_service_does() -> None:
    task = replace(make_task("task1"), attachments=(Attachment(network_id="net1", addresses=(f"{LOCAL}/8",)),))
    service = ServiceAddresses(task.service_id, ("web",), "", ())
    kept = Assignments(tasks={}, networks={}, services={"net1": (service,)}, mesh=())
    removed = replace(kept, services={"net1": ()})

    async def drained(assignments: list[Assignments], *, limit: float, end: socket.socket | None = None) -> float:
        """The seconds that it takes. After a moment, one of the two changes."""
        begun = time.monotonic()
        work = asyncio.create_task(drain(task, os.getpid, lambda: assignments[-1], limit))
        await asyncio.sleep(0.2)
        if end is not None:
            end.close()
        else:
            assignments.append(removed)
        await work
        return time.monotonic() - begun

    with socket.create_server((LOCAL, 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            assert asyncio.run(drained([removed], limit=60)) < 30
            assert 0.2 <= asyncio.run(drained([kept], limit=60)) < 30
            assert asyncio.run(drained([kept] * 2, limit=0)) < 30
            client.close()
            assert 0.2 <= asyncio.run(drained([kept], limit=60, end=accepted)) < 30


def test_a_task_waits_until_the_last_node_of_a_big_swarm_has_its_rules() -> None:
    """The managers collect changes for a time that depends on the number of nodes."""
    task = replace(make_task("task1"), attachments=(Attachment(network_id="net1", addresses=(f"{LOCAL}/8",)),))
    network = SwarmNetwork(id="net1", name="net", subnets=(), vni=1, local="192.0.2.1")
    assignments = Assignments(
        tasks={},
        networks={"net1": network},
        services={"net1": (ServiceAddresses(task.service_id, ("web",), "", ()),)},
        mesh=(),
        peers={"net1": (Peer("10.0.1.4", "192.0.2.2"),)},
        nodes=700,
    )
    begun = time.monotonic()
    asyncio.run(drain(task, os.getpid, lambda: assignments, 60))
    assert pause(700) < time.monotonic() - begun
