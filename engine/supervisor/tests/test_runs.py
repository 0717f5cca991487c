"""Execs that a shim runs at one word of the daemon, on the container's stdio: only our own shims do that."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from engine.api.client import Engine
from engine.api.stdio import Attach, Ending, Execution, Stdio, StdioUri
from engine.api.types import Mount, TaskStatus
from engine.common.errors import Kind, WharfError
from engine.shim.tests import harness
from engine.supervisor.tests import processes
from engine.supervisor.tests.containers import Box, box

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class Place:
    """A running container of a supervisor of its own."""

    def __init__(self, server: processes.Server, engine: Engine, one: Box, stdio: Path) -> None:
        self.server, self.engine, self.box = server, engine, one
        self.stdio = Stdio(str(stdio))

    async def run(self, id: str, *args: str, client: socket.socket | None = None) -> Execution:
        return await self.stdio.run(
            id,
            json.dumps(self.box.process(*args)).encode(),
            options={"stdin": "0", "stdin-once": "1"},
            terminal=False,
            oom_score_adj=None,
            client=(Attach(id), client) if client is not None else None,
        )

    async def status(self, id: str) -> TaskStatus | None:
        """As the supervisor knows it; None: it doesn't."""
        try:
            return (await self.engine.tasks.get(self.box.id, id)).status
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return None

    async def becomes(self, id: str, status: TaskStatus | None) -> None:
        """A shim tells the supervisor and us, and who hears of it first is open."""
        while await self.status(id) is not status:  # noqa: ASYNC110 - another program's doing
            await asyncio.sleep(0.01)

    def shim(self) -> int:
        bundle = self.server.place / "state/tasks" / self.engine.namespace / self.box.id
        return int(json.loads((bundle / "state.json").read_text())["shim_pid"])


Body = Callable[[Place], Coroutine[None, None, None]]
Stage = Callable[[Body], None]


@pytest.fixture(scope="module")
def server() -> Iterator[processes.Server]:
    with processes.server("wharf") as running:
        yield running


@pytest.fixture
def stage(server: processes.Server, tmp_path: Path) -> Stage:
    harness.make_rootfs(tmp_path / "rootfs")

    async def main(body: Body) -> None:
        engine = Engine(server.address, namespace=f"t{uuid4().hex[:12]}")
        try:
            async with asyncio.timeout(harness.PATIENCE):
                one = await box(engine, tmp_path, ["sleep", "1000"])
                try:
                    path = tmp_path / "stdio.sock"
                    rootfs = [Mount("bind", str(one.rootfs), options=("rbind", "ro"))]
                    await engine.tasks.create(one.id, rootfs=rootfs, stdout=str(StdioUri(str(path), {})))
                    await engine.tasks.start(one.id)
                    await body(Place(server, engine, one, path))
                finally:
                    await one.end()
        finally:
            await engine.close()

    return lambda body: asyncio.run(main(body))


def clients() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    return ours, theirs


async def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := await asyncio.get_running_loop().sock_recv(sock, 4096):
        data += piece
    return data


def test_a_run(stage: Stage) -> None:
    """Its output, its end, and what others see of it: as of any exec, but for the delete."""

    async def body(place: Place) -> None:
        wanted = f'namespace=="{place.engine.namespace}",topic~="^/tasks/"'
        async with place.engine.events.subscribe(wanted) as events:
            ours, theirs = clients()
            with ours, theirs:
                run = await place.run("e1", "sh", "-c", "echo here; exit 3", client=theirs)
                theirs.close()
                status, _ = await run.exit() or (0, 0)
                assert (status, await run.ended(), await read_all(ours)) == (3, Ending.EOF, b"here\n")
            assert not run.lost
            seen = []
            async for event in events:
                seen.append((event.topic.rpartition("/")[2], getattr(event.event, "pid", run.pid)))
                if event.topic == "/tasks/exit":
                    break
            assert seen == [(topic, run.pid) for topic in ("exec-added", "exec-started", "exit")]
        assert await place.status("e1") is None
        # The id is free.
        again = await place.run("e1", "true")
        assert (await again.exit() or (1, 0))[0] == 0

    stage(body)


def test_a_run_is_controlled_as_every_exec(stage: Stage) -> None:
    async def body(place: Place) -> None:
        run = await place.run("e1", "sleep", "1000")
        await place.engine.tasks.kill(place.box.id, signal.SIGTERM, exec_id="e1")
        assert (await run.exit() or (0, 0))[0] == 128 + signal.SIGTERM
        await place.becomes("e1", None)
        with pytest.raises(WharfError) as caught:
            await place.engine.tasks.kill(place.box.id, signal.SIGTERM, exec_id="e1")
        assert caught.value.kind is Kind.NOT_FOUND

    stage(body)


def test_a_run_that_can_not_be_started_leaves_its_client_alone(stage: Stage) -> None:
    async def body(place: Place) -> None:
        ours, theirs = clients()
        with ours, theirs:
            with pytest.raises(WharfError, match="executable file not found") as caught:
                await place.run("e1", "no-such-program", client=theirs)
            assert caught.value.kind is Kind.INTERNAL
            theirs.sendall(b"sorry")
            theirs.close()
            assert await read_all(ours) == b"sorry"
        run = await place.run("e1", "sleep", "1000")
        with pytest.raises(WharfError) as caught:
            await place.run("e1", "true")
        assert caught.value.kind is Kind.ALREADY_EXISTS
        await place.becomes("e1", TaskStatus.RUNNING)
        await place.box.end()
        assert (await run.exit() or (0, 0))[0] == 137
        with pytest.raises(WharfError) as caught:
            await place.run("e2", "true")
        assert caught.value.kind in (Kind.FAILED_PRECONDITION, Kind.UNAVAILABLE)

    stage(body)


def test_a_run_whose_daemon_left_goes_on_and_is_forgotten(stage: Stage) -> None:
    async def body(place: Place) -> None:
        run = await place.run("e1", "sleep", "1000")
        following = asyncio.create_task(run.exit())
        await asyncio.sleep(0)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await place.becomes("e1", TaskStatus.RUNNING)
        await place.engine.tasks.kill(place.box.id, signal.SIGKILL, exec_id="e1")
        await place.becomes("e1", None)

    stage(body)


def test_a_run_goes_on_without_a_supervisor(stage: Stage) -> None:
    async def body(place: Place) -> None:
        long = await place.run("e1", "sleep", "1000")
        place.server.kill()
        short = await place.run("e2", "sh", "-c", "exit 4")
        assert (await short.exit() or (0, 0))[0] == 4
        await asyncio.to_thread(place.server.restart)
        await place.engine.connect(deadline=harness.PATIENCE)
        assert await place.status("e1") is TaskStatus.RUNNING
        assert await place.status("e2") is None
        await place.engine.tasks.kill(place.box.id, signal.SIGKILL, exec_id="e1")
        assert (await long.exit() or (0, 0))[0] == 137

    stage(body)


def test_a_run_hears_of_its_shims_death(stage: Stage) -> None:
    async def body(place: Place) -> None:
        ours, theirs = clients()
        with ours, theirs:
            run = await place.run("e1", "sleep", "1000", client=theirs)
            theirs.close()
            following = asyncio.create_task(run.exit())
            os.kill(place.shim(), signal.SIGKILL)
            assert await read_all(ours) == b""
            # Whoever saw that asks at once.
            assert run.lost
            assert await following is None
            assert await run.ended() is Ending.GONE
        assert (await place.engine.tasks.wait(place.box.id)).status == 137

    stage(body)
