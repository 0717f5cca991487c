"""Our supervisor and its shims are killed during every step: no exit is lost, nothing remains."""

import asyncio
import glob
import os
import shutil
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from engine.api.client import Engine
from engine.api.types import Exit, TaskStatus
from engine.common.errors import Kind, WharfError
from engine.common.system import mounts
from engine.shim.tests import harness
from engine.supervisor.tests import processes
from engine.supervisor.tests.containers import Box
from engine.supervisor.tests.gate import Stage

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[processes.Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHARF_TIMEOUTS", "task.recover=0.1")
        with processes.server("wharf") as running:
            yield running


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "rootfs"
    harness.make_rootfs(path)
    return path


@pytest.fixture
def stage(server: processes.Server, rootfs: Path, tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "rootfs").symlink_to(rootfs)
    if server.process.poll() is not None:
        server.restart()  # a test that failed midway left no supervisor
    one = Stage(server, tmp_path)
    yield one
    one.gate.close()
    shutil.rmtree(one.bundles, ignore_errors=True)


Kill = Callable[[Stage], None]


def supervisor(stage: Stage) -> None:
    stage.kill_supervisor()


def shim(stage: Stage) -> None:
    stage.kill_shim()


def both(stage: Stage) -> None:
    stage.kill_supervisor()
    stage.kill_shim()


killed = pytest.mark.parametrize("kill", [supervisor, shim, both])


async def falls(stage: Stage, engine: Engine, kill: Kill, call: Coroutine[None, None, object]) -> None:
    """Kills something while a call is blocked at the gate, and restarts the supervisor; the client gets the result of
    its call."""
    calling = asyncio.create_task(call)
    await stage.gate.reached()
    kill(stage)
    if kill is not shim:
        await stage.restart(engine)
    stage.gate.open()
    try:
        await calling
    except WharfError as error:
        # An exec is lost when both the supervisor and its shim die.
        if kill is not both or error.kind is not Kind.UNAVAILABLE:
            raise


async def status_of(engine: Engine, one: Box) -> tuple[TaskStatus, int]:
    state = await engine.tasks.get(one.id)
    return state.status, state.exit_status


@killed
def test_killed_while_it_is_created(stage: Stage, kill: Kill) -> None:
    async def body(engine: Engine, one: Box) -> None:
        stage.gate.shut("create")
        await falls(stage, engine, kill, one.create())
        # The shim completed it alone, or it was cleaned up and created again.
        assert await status_of(engine, one) == (TaskStatus.CREATED, 0)
        await engine.tasks.delete(one.id)
        stage.check_nothing_is_left(one)
        await one.run()

    stage.run(body, "sleep", "1000")


@killed
def test_killed_while_it_is_started(stage: Stage, kill: Kill) -> None:
    async def body(engine: Engine, one: Box) -> None:
        await one.create()
        stage.gate.shut("start")
        await falls(stage, engine, kill, engine.tasks.start(one.id))
        if kill is supervisor:
            assert await status_of(engine, one) == (TaskStatus.RUNNING, 0)
        else:
            assert (await engine.tasks.wait(one.id)).status == 137
            assert await status_of(engine, one) == (TaskStatus.STOPPED, 137)

    stage.run(body, "sleep", "1000")


@killed
def test_killed_while_an_exec_is_started(stage: Stage, kill: Kill) -> None:
    async def body(engine: Engine, one: Box) -> None:
        await one.run()
        await engine.tasks.exec(one.id, "e1", spec=one.process("sh", "-c", "exit 4"))
        stage.gate.shut("exec")
        await falls(stage, engine, kill, engine.tasks.start(one.id, "e1"))
        if kill is supervisor:
            assert (await engine.tasks.wait(one.id, "e1")).status == 4
            assert await status_of(engine, one) == (TaskStatus.RUNNING, 0)
            assert (await engine.tasks.delete_exec(one.id, "e1")).status == 4
        else:
            assert (await engine.tasks.wait(one.id)).status == 137

    stage.run(body, "sleep", "1000")


@killed
def test_killed_while_it_runs(stage: Stage, kill: Kill) -> None:
    """It exits while no supervisor runs, if its shim lives."""

    async def body(engine: Engine, one: Box) -> None:
        fifo = stage.directory / "go"
        os.mkfifo(fifo)
        go = os.open(fifo, os.O_RDWR)
        try:
            await one.create(stdin=str(fifo))
            await engine.tasks.start(one.id)
            pid = (await engine.tasks.get(one.id)).pid
            kill(stage)
            if kill is supervisor:
                os.write(go, b"now\n")
                harness.until(lambda: harness.gone(pid), "it has ended")
            if kill is not shim:
                await stage.restart(engine)
            end = await engine.tasks.wait(one.id)
            assert end.status == (6 if kill is supervisor else 137)
            assert harness.gone(pid)
            assert await status_of(engine, one) == (TaskStatus.STOPPED, end.status)
            assert await engine.tasks.delete(one.id) == Exit(pid, end.status, end.exited_at_ns)
        finally:
            os.close(go)

    stage.run(body, "sh", "-c", "read line; exit 6")


@killed
def test_killed_while_it_is_deleted(stage: Stage, kill: Kill) -> None:
    """The status is known by then, and stays known."""

    async def body(engine: Engine, one: Box) -> None:
        await one.create()
        stage.gate.shut("delete")
        await engine.tasks.start(one.id)
        assert (await engine.tasks.wait(one.id)).status == 3
        calling = asyncio.create_task(engine.tasks.delete(one.id))
        await stage.gate.reached()
        kill(stage)
        if kill is not shim:
            await stage.restart(engine)
        stage.gate.open()
        try:
            end = await calling
        except WharfError as error:
            if kill is shim or error.kind is not Kind.UNAVAILABLE:
                raise
            assert await status_of(engine, one) == (TaskStatus.STOPPED, 3)
            end = await engine.tasks.delete(one.id)
        assert end.status == 3

    stage.run(body, "sh", "-c", "exit 3")


def test_one_exit_event_if_the_shim_dies(stage: Stage) -> None:
    async def body(engine: Engine, one: Box) -> None:
        async with engine.events.subscribe(f'namespace=="{engine.namespace}",topic~="^/tasks/"') as events:
            await one.run()
            await engine.tasks.exec(one.id, "e1", spec=one.process("sleep", "1000"))
            await engine.tasks.start(one.id, "e1")
            stage.kill_shim()
            assert (await engine.tasks.wait(one.id)).status == 137
            await engine.tasks.delete(one.id)
            seen = []
            async for event in events:
                seen.append((event.topic.rpartition("/")[2], getattr(event.event, "id", "")))
                if event.topic == "/tasks/delete":
                    break
            assert seen[-3:] == [("exit", "e1"), ("exit", one.id), ("delete", "")]
            assert [topic for topic, _ in seen].count("exit") == 2

    stage.run(body, "sleep", "1000")


async def leave_create(stage: Stage, one: Box) -> None:
    """Requests a create and cancels it while the runtime is blocked; the gate stays shut."""
    stage.gate.shut("create")
    calling = asyncio.create_task(one.create())
    await stage.gate.reached()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


def test_a_cancelled_create_is_undone(stage: Stage) -> None:
    async def body(engine: Engine, one: Box) -> None:
        await leave_create(stage, one)
        stage.gate.open()
        # The next create waits until the first is removed.
        await one.run()
        assert await status_of(engine, one) == (TaskStatus.RUNNING, 0)

    stage.run(body, "sleep", "1000")


def test_a_cancelled_create_can_be_deleted_at_once(stage: Stage) -> None:
    """The undo and the delete don't remove the bundle while the runtime still cleans up."""

    async def body(engine: Engine, one: Box) -> None:
        await leave_create(stage, one)
        deleting = asyncio.create_task(engine.tasks.delete(one.id))
        stage.gate.open()
        await asyncio.wait([deleting])
        assert await engine.tasks.list() == []
        cgroups = glob.glob(f"/sys/fs/cgroup/*/wharf-test/{one.id}")  # quick
        assert cgroups == []

    stage.run(body, "sleep", "1000")


def test_a_zygote_that_died_is_replaced(stage: Stage) -> None:
    async def body(engine: Engine, one: Box) -> None:
        os.kill(stage.zygote(), signal.SIGKILL)
        await one.run()
        assert await status_of(engine, one) == (TaskStatus.RUNNING, 0)

    stage.run(body, "sleep", "1000")


def test_containers_without_a_bundle_are_killed_at_start(stage: Stage) -> None:
    async def body(engine: Engine, one: Box) -> None:
        pid = await one.run()
        shim_pid = stage.shim()
        stage.kill_supervisor()
        mounts.unmount_under(str(stage.bundles))
        shutil.rmtree(stage.bundles)
        await stage.restart(engine)
        assert await engine.tasks.list() == []
        harness.until(lambda: harness.gone(pid) and harness.gone(shim_pid), "both are ended")

    stage.run(body, "sleep", "1000")
