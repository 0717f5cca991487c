"""The logs of tasks."""

import asyncio
import json

from server.containers.logs.format import Query
from server.swarm.agent.tests.fakes import NODE, make_task
from server.swarm.model.taskstate import TaskState
from server.tests.daemon import Daemon
from server.tests.swarm.harness import Swarm, run


def _write(swarm: Swarm, id: str, *lines: str) -> None:
    with open(swarm.container(id).log_path, "a") as file:
        for line in lines:
            record = {"log": f"{line}\n", "stream": "stdout", "time": "2026-01-02T03:04:05.5Z", "attrs": {"a": "1"}}
            file.write(json.dumps(record) + "\n")


async def _read(swarm: Swarm, id: str, query: Query) -> bytes:
    return b"".join([chunk async for chunk in swarm.agent.logs(make_task(id), query)])


def test_details_name_node_service_and_task(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        swarm.dispatcher.put(make_task("t1"))
        await swarm.dispatcher.reaches("t1", TaskState.RUNNING)
        _write(swarm, "t1", "first", "second")
        details = (
            f"a=1,com.docker.swarm.node.id={NODE},com.docker.swarm.service.id=service1,com.docker.swarm.task.id=t1"
        )
        query = Query(details=True, timestamps=True, framed=False, tail=1)
        assert await _read(swarm, "t1", query) == f"2026-01-02T03:04:05.500000000Z {details} second\n".encode()
        framed = await _read(swarm, "t1", Query(tail=1))
        assert framed == b"\x01\0\0\0\0\0\0\x07second\n"
        found = json.loads(await _read(swarm, "t1", Query(details=True, tail=1, json=b"")))
        assert found["Attrs"][-1] == {"Key": "com.docker.swarm.task.id", "Value": "t1"}

    run(daemon, scenario)


def test_a_follower_waits_for_the_start_and_ends_with_the_container(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        following = asyncio.create_task(_read(swarm, "t1", Query(follow=True, framed=False)))
        swarm.dispatcher.put(make_task("t1", TaskState.READY))
        await swarm.dispatcher.reaches("t1", TaskState.READY)
        assert await _read(swarm, "t1", Query()) == b""
        assert not following.done()
        swarm.dispatcher.desire("t1", TaskState.RUNNING)
        await swarm.dispatcher.reaches("t1", TaskState.RUNNING)
        _write(swarm, "t1", "line")
        swarm.exit("t1", 0)
        assert await following == b"line\n"

    run(daemon, scenario)


def test_a_task_that_is_not_here_has_no_records(daemon: Daemon) -> None:
    async def scenario(swarm: Swarm) -> None:
        assert await _read(swarm, "other", Query()) == b""

    run(daemon, scenario)
