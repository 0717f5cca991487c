"""The task service of both servers: these tests also pass on a stock containerd."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from engine.api.client import Engine
from engine.api.pb import cgroups_v1_pb2, cgroups_v2_pb2, event_messages_pb2
from engine.api.services.events import Subscription
from engine.api.types import Event, TaskStatus
from engine.common.errors import Kind, WharfError
from engine.shim.tests import harness
from engine.supervisor.tests import processes
from engine.supervisor.tests.calls import Body, Run, fails
from engine.supervisor.tests.containers import Box, box

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks")
    harness.make_rootfs(path / "rootfs")
    return path


@pytest.fixture
def run(server: processes.Server) -> Run:
    """Runs a coroutine with a client in its own namespace."""

    def work(body: Body) -> None:
        async def main() -> None:
            engine = Engine(server.address, namespace=f"t{uuid4().hex[:12]}")
            try:
                async with asyncio.timeout(harness.PATIENCE):
                    await body(engine)
            finally:
                await engine.close()

        asyncio.run(main())

    return work


@asynccontextmanager
async def made(
    engine: Engine, directory: Path, *args: str, terminal: bool = False, memory: int = 0
) -> AsyncIterator[Box]:
    one = await box(engine, directory, args, terminal=terminal, memory=memory)
    try:
        yield one
    finally:
        await one.end()


async def until(events: Subscription, topic: str) -> list[Event]:
    """The events up to the first with this topic."""
    seen: list[Event] = []
    async for event in events:
        seen.append(event)
        if event.topic == topic:
            return seen
    raise AssertionError(f"the events ended before {topic}")


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def of_tasks(engine: Engine) -> str:
    return f'namespace=="{engine.namespace}",topic~="^/tasks/"'


def test_events_of_a_task_are_in_order(run: Run, directory: Path) -> None:
    async def body(engine: Engine) -> None:
        async with (
            made(engine, directory, "sh", "-c", "echo out; exit 3") as one,
            engine.events.subscribe(of_tasks(engine)) as events,
        ):
            await fails(Kind.NOT_FOUND, engine.tasks.get(one.id))
            pid = await one.create()
            state = await engine.tasks.get(one.id)
            assert (state.status, state.pid, state.id, state.container_id) == (TaskStatus.CREATED, pid, one.id, one.id)
            assert state.stdout == f"file://{one.output}"
            waiting = asyncio.create_task(engine.tasks.wait(one.id))
            assert await engine.tasks.start(one.id) == pid
            end = await waiting
            assert end.status == 3
            state = await engine.tasks.get(one.id)
            assert (state.status, state.exit_status) == (TaskStatus.STOPPED, 3)
            assert state.exited_at_ns == end.exited_at_ns > 0
            assert [task.id for task in await engine.tasks.list()] == [one.id]
            deleted = await engine.tasks.delete(one.id)
            assert (deleted.pid, deleted.status, deleted.exited_at_ns) == (pid, 3, end.exited_at_ns)
            await fails(Kind.NOT_FOUND, engine.tasks.delete(one.id))
            assert await engine.tasks.list() == []
            seen = await until(events, "/tasks/delete")
            assert [event.topic for event in seen] == [
                f"/tasks/{verb}" for verb in ("create", "start", "exit", "delete")
            ]
            create, start, exited, delete = [event.event for event in seen]
            assert isinstance(create, event_messages_pb2.TaskCreate)
            assert (create.container_id, create.pid, create.rootfs[0].source) == (one.id, pid, str(one.rootfs))
            assert create.io.stdout == f"file://{one.output}"
            assert start == event_messages_pb2.TaskStart(container_id=one.id, pid=pid)
            assert isinstance(exited, event_messages_pb2.TaskExit)
            assert (exited.container_id, exited.id, exited.pid, exited.exit_status) == (one.id, one.id, pid, 3)
            assert isinstance(delete, event_messages_pb2.TaskDelete)
            assert (delete.container_id, delete.id, delete.pid, delete.exit_status) == (one.id, "", pid, 3)
            assert one.output.read_text() == "out\n"

    run(body)


def test_a_task_is_created_once_per_container(run: Run, directory: Path) -> None:
    async def body(engine: Engine) -> None:
        await fails(Kind.NOT_FOUND, engine.tasks.create("nothing"))
        async with made(engine, directory, "sleep", "1000") as one:
            await one.run()
            await fails(Kind.ALREADY_EXISTS, one.create())
            for work in (engine.tasks.delete(one.id), engine.tasks.start(one.id)):
                with pytest.raises(WharfError):
                    await work
            assert (await engine.tasks.get(one.id)).status is TaskStatus.RUNNING
            await engine.tasks.kill(one.id, 9)
            assert (await engine.tasks.wait(one.id)).status == 137
            await fails(Kind.NOT_FOUND, engine.tasks.kill(one.id, 9))
            await engine.tasks.delete(one.id)
            # Again, with the same record.
            await one.run()

    run(body)


def test_a_failed_create_reports_the_reason_and_leaves_nothing(run: Run, directory: Path) -> None:
    async def body(engine: Engine) -> None:
        async with made(engine, directory, "no-such-program") as one:
            with pytest.raises(WharfError, match=r"failed to create shim task: OCI runtime create failed: .*no-such"):
                await one.create()
            await fails(Kind.NOT_FOUND, engine.tasks.get(one.id))
            with pytest.raises(WharfError, match="no-such"):
                await one.create()

    run(body)


def test_a_task_that_was_never_started_can_be_deleted(run: Run, directory: Path) -> None:
    async def body(engine: Engine) -> None:
        async with made(engine, directory, "sleep", "1000") as one:
            pid = await one.create()
            # A stock containerd requires a kill first, as its clients do.
            await engine.tasks.kill(one.id, 9)
            assert (await engine.tasks.wait(one.id)).status == 137
            assert (await engine.tasks.delete(one.id)).pid == pid
            assert harness.gone(pid)

    run(body)


def test_the_lifecycle_of_execs(run: Run, directory: Path) -> None:
    async def body(engine: Engine) -> None:
        async with made(engine, directory, "sleep", "1000") as one, engine.events.subscribe(of_tasks(engine)) as events:
            await one.run()
            file = directory / f"{one.id}.exec"
            output = f"file://{file}"
            await engine.tasks.exec(
                one.id, "e1", spec=one.process("sh", "-c", "echo hello; exit 5"), stdout=output, stderr=output
            )
            assert (await engine.tasks.get(one.id, "e1")).status is TaskStatus.CREATED
            await fails(Kind.ALREADY_EXISTS, engine.tasks.exec(one.id, "e1", spec=one.process("true")))
            waiting = asyncio.create_task(engine.tasks.wait(one.id, "e1"))
            pid = await engine.tasks.start(one.id, "e1")
            assert (await waiting).status == 5
            state = await engine.tasks.get(one.id, "e1")
            assert (state.id, state.pid) == ("e1", pid)
            assert (state.status, state.exit_status) == (TaskStatus.STOPPED, 5)
            assert (await engine.tasks.delete_exec(one.id, "e1")).status == 5
            await fails(Kind.NOT_FOUND, engine.tasks.get(one.id, "e1"))
            assert file.read_text() == "hello\n"
            seen = await until(events, "/tasks/exit")
            assert [event.topic.rpartition("/")[2] for event in seen] == [
                "create", "start", "exec-added", "exec-started", "exit",
            ]  # fmt: skip
            assert seen[2].event == event_messages_pb2.TaskExecAdded(container_id=one.id, exec_id="e1")
            assert seen[3].event == event_messages_pb2.TaskExecStarted(container_id=one.id, exec_id="e1", pid=pid)
            ended = seen[4].event
            assert isinstance(ended, event_messages_pb2.TaskExit)
            assert (ended.container_id, ended.id, ended.pid, ended.exit_status) == (one.id, "e1", pid, 5)
            await engine.tasks.exec(one.id, "e2", spec=one.process("no-such-program"))
            with pytest.raises(WharfError, match=r"OCI runtime exec failed: .*no-such"):
                await engine.tasks.start(one.id, "e2")
            await engine.tasks.delete_exec(one.id, "e2")
            assert (await engine.tasks.get(one.id)).status is TaskStatus.RUNNING

    run(body)


def test_an_exec_is_killed_alone_and_ends_with_its_container(run: Run, directory: Path) -> None:
    async def body(engine: Engine) -> None:
        async with made(engine, directory, "sleep", "1000") as one:
            await one.run()
            started = {}
            for name in ("e1", "e2"):
                await engine.tasks.exec(one.id, name, spec=one.process("sleep", "1000"))
                started[name] = await engine.tasks.start(one.id, name)
            assert await engine.tasks.execs(one.id) == started
            await engine.tasks.kill(one.id, 15, exec_id="e1")
            assert (await engine.tasks.wait(one.id, "e1")).status == 143
            waiting = asyncio.create_task(engine.tasks.wait(one.id, "e2"))
            await engine.tasks.kill(one.id, 9)
            assert (await engine.tasks.wait(one.id)).status == 137
            assert (await waiting).status == 137

    run(body)


def test_pause_and_resume(run: Run, directory: Path) -> None:
    async def body(engine: Engine) -> None:
        async with made(engine, directory, "sleep", "1000") as one, engine.events.subscribe(of_tasks(engine)) as events:
            await one.run()
            await engine.tasks.pause(one.id)
            assert (await engine.tasks.get(one.id)).status is TaskStatus.PAUSED
            await engine.tasks.resume(one.id)
            assert (await engine.tasks.get(one.id)).status is TaskStatus.RUNNING
            seen = await until(events, "/tasks/resumed")
            assert [event.topic for event in seen[-2:]] == ["/tasks/paused", "/tasks/resumed"]
            assert seen[-1].event == event_messages_pb2.TaskResumed(container_id=one.id)

    run(body)


def test_pids_metrics_and_limits(run: Run, directory: Path) -> None:
    async def body(engine: Engine) -> None:
        async with made(engine, directory, "sh", "-c", "sleep 1000 & wait", memory=64 << 20) as one:
            pid = await one.run()
            while {command_of(each) for each in await engine.tasks.pids(one.id)} != {"sh", "sleep"}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            assert pid in await engine.tasks.pids(one.id)
            for limit in (64 << 20, 96 << 20):
                if limit != 64 << 20:
                    await engine.tasks.update(one.id, {"memory": {"limit": limit, "swap": limit}})
                (sample,) = await engine.tasks.metrics([one.id])
                assert sample.id == one.id
                assert sample.data is not None
                if sample.data.type_url.endswith("v1.Metrics"):
                    v1 = sample.data.unpack(cgroups_v1_pb2.Metrics)
                    assert (v1.pids.current, v1.memory.usage.limit) == (2, limit)
                else:
                    v2 = sample.data.unpack(cgroups_v2_pb2.Metrics)
                    assert (v2.pids.current, v2.memory.usage_limit) == (2, limit)
            assert await engine.tasks.metrics(["nothing"]) == []

    run(body)


def test_input_ends_when_it_is_closed(run: Run, directory: Path) -> None:
    async def body(engine: Engine) -> None:
        async with made(engine, directory, "cat") as one:
            paths = [directory / f"{one.id}.{name}" for name in ("in", "copy")]
            for path in paths:
                os.mkfifo(path)
            # Open for both directions: neither side blocks in open(2).
            ours = [os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in paths]
            try:
                await one.create(stdin=str(paths[0]), stdout=str(paths[1]))
                await engine.tasks.start(one.id)
                os.write(ours[0], b"through\n")
                got = b""
                while got != b"through\n":
                    try:
                        got += os.read(ours[1], 100)
                    except BlockingIOError:
                        await asyncio.sleep(0.02)
                os.close(ours.pop(0))
                await engine.tasks.close_io(one.id)
                assert (await engine.tasks.wait(one.id)).status == 0
            finally:
                for fd in ours:
                    os.close(fd)

    run(body)


def test_a_terminal_has_a_size(run: Run, directory: Path) -> None:
    async def body(engine: Engine) -> None:
        async with made(
            engine, directory, "sh", "-c", "while [ \"$(stty size)\" != '33 77' ]; do sleep 0.02; done", terminal=True
        ) as one:
            path = directory / f"{one.id}.tty"
            os.mkfifo(path)
            ours = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            try:
                await one.create(stdout=str(path), terminal=True)
                await engine.tasks.start(one.id)
                await engine.tasks.resize_pty(one.id, width=77, height=33)
                await engine.tasks.wait(one.id)
            finally:
                os.close(ours)

    run(body)


def test_out_of_memory_is_reported(server: processes.Server, run: Run, directory: Path) -> None:
    if server.kind != "wharf":
        pytest.skip("a stock containerd misses it now and then")

    async def body(engine: Engine) -> None:
        async with (
            made(engine, directory, "tail", "/dev/zero", memory=16 << 20) as one,
            engine.events.subscribe(of_tasks(engine)) as events,
        ):
            # The kernel kills the group's only process, an endless tail.
            await one.create()
            await engine.tasks.start(one.id)
            assert (await engine.tasks.wait(one.id)).status == 137
            seen = await until(events, "/tasks/oom")
            assert seen[-1].event == event_messages_pb2.TaskOOM(container_id=one.id)

    run(body)
