"""Logs of tasks of other nodes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Never

import pytest

from engine.common.errors import WharfError, not_found
from server.containers.logs.format import Query
from server.swarm.model.objects import Task
from server.swarm.remote.client import Connections, asking
from server.swarm.remote.logs import TaskLogs
from server.swarmapi.images import ImagePort
from server.swarmapi.listener import SwarmListener
from server.swarmapi.nodes import NodePort, node_app
from server.swarmapi.tests.site import MANAGER, SWARM, Site, identity_of, run

_CHUNKS = [b"one\n", b"\0" * 300_000, b"three"]


async def _no_image(name: str) -> Never:
    raise not_found(f"No such image: {name}")


async def _readable(service_id: str, node_id: str) -> list[str]:
    return []


async def _local(task: Task, query: Query) -> AsyncIterator[bytes]:
    yield b"local"


def test_a_manager_reads_the_log_of_a_workers_task(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[Task, Query]] = []
    ended = asyncio.Event()

    async def log(task: Task, query: Query) -> AsyncIterator[bytes]:
        seen.append((task, query))
        try:
            for chunk in _CHUNKS:
                yield chunk
                await asyncio.sleep(0.1)  # longer than the period
            if query.follow:
                await asyncio.Event().wait()
        finally:
            ended.set()

    async def scenario(site: Site) -> None:
        joined = await site.join()
        worker = identity_of(joined)
        known = site.managers(worker)
        await known.standing()
        node = NodePort(SWARM, joined.node_id, known.is_manager, log, ImagePort(_no_image, _readable), 0.05)
        listener = SwarmListener(partial(node_app, node), worker)
        address = await listener.open("127.0.0.1:0")
        port = int(address.rpartition(":")[2])
        logs = TaskLogs(site.identity, MANAGER, _local, {joined.node_id: "127.0.0.1"}.get, port)  # type: ignore[arg-type]
        mine = Task(id="t1", node_id=MANAGER)
        assert [chunk async for chunk in logs(mine, Query())] == [b"local"]
        other = Task(id="t2", node_id=joined.node_id, service_id="s1")
        query = Query(tail=7, attributes={"a": "b c"}, json=b"")
        assert [chunk async for chunk in logs(other, query)] == _CHUNKS
        task, asked = seen.pop()
        assert (task.id, task.node_id, task.service_id, asked) == ("t2", joined.node_id, "s1", query)
        # Following ends on the other side when this one closes it.
        ended.clear()
        following = logs(other, Query(follow=True))
        assert await anext(following) == b"one\n"
        await following.aclose()  # type: ignore[attr-defined]
        await ended.wait()
        # A worker may not read it, nor a node with a manager's certificate that is no manager any more.
        for role, sentence in (("worker", r"not part of OUs: \[swarm-manager\]"), ("manager", "no longer a manager")):
            connections = Connections(identity_of(await site.join(role)))
            async with connections.client() as client:
                with pytest.raises(WharfError, match=sentence):
                    async with asking(client, "GET", f"https://{address}/v1/tasks/t2/log?query={{}}", joined.node_id):
                        pass
            await connections.close()
        # The server must be that node.
        wrong = TaskLogs(site.identity, MANAGER, _local, lambda id: "127.0.0.1", port)
        assert [chunk async for chunk in wrong(Task(id="t3", node_id="node3"), Query())] == []
        await listener.close()
        caplog.clear()
        for _ in range(3):
            assert [chunk async for chunk in logs(other, query)] == []
        assert [chunk async for chunk in logs(Task(id="t4", node_id="unknown"), query)] == []
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len([each for each in warnings if joined.node_id in each.getMessage()]) == 1
        await logs.close()
        await wrong.close()

    run(tmp_path, scenario)
