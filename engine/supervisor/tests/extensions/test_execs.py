"""Execs: run by one request to the shim, and by Exec, Start, the event of the end, and Delete."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from engine.api.client import Engine
from engine.api.extensions import Execution, run_exec
from engine.api.stdio import Attach, SessionEnd, StdioUri
from engine.api.types import Mount, TaskStatus
from engine.common.errors import Kind, WharfError
from engine.shim.tests import harness
from engine.supervisor.tests import processes
from engine.supervisor.tests.containers import Box, box
from engine.supervisor.tests.extensions.ways import Way

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class Place:
    """A running container."""

    def __init__(self, way: Way, engine: Engine, one: Box, stdio: Path) -> None:
        self.way, self.engine, self.box = way, engine, one
        self.stdio = str(stdio)

    async def run(self, id: str, *args: str) -> Callable[[], Coroutine[None, None, tuple[int, bytes]]]:
        """Starts an exec and returns when it runs. The result waits for its exit status and its output."""
        if self.way.extended:
            ours, theirs = clients()
            try:
                with theirs:
                    run = await self.run_extended(id, *args, client=theirs)
            except BaseException:
                ours.close()
                raise
            return lambda: self._end_extended(run, ours)
        output = self.box.output.with_suffix(f".{id}")
        tasks, uri = self.engine.tasks, f"file://{output}"
        await tasks.exec(self.box.id, id, spec=self.box.process(*args), stdout=uri, stderr=uri)
        try:
            await tasks.start(self.box.id, id)
        except WharfError:
            await tasks.delete_exec(self.box.id, id)
            raise
        return lambda: self._end_standard(id, output)

    async def _end_extended(self, run: Execution, ours: socket.socket) -> tuple[int, bytes]:
        with ours:
            status, _ = await run.exit() or (-1, 0)
            assert not run.shim_lost
            return status, await read_all(ours)

    async def _end_standard(self, id: str, output: Path) -> tuple[int, bytes]:
        status = (await self.engine.tasks.wait(self.box.id, id)).status
        with contextlib.suppress(WharfError):  # a container that has ended may have taken it along
            await self.engine.tasks.delete_exec(self.box.id, id)
        data = await asyncio.to_thread(output.read_bytes)
        await asyncio.to_thread(output.unlink)
        return status, data

    async def run_extended(self, id: str, *args: str, client: socket.socket | None = None) -> Execution:
        return await run_exec(
            self.stdio,
            id,
            json.dumps(self.box.process(*args)).encode(),
            options={"stdin": "0", "stdin-once": "1"},
            terminal=False,
            oom_score_adj=None,
            client=(Attach(id), client) if client is not None else None,
        )

    async def status(self, id: str) -> TaskStatus | None:
        """The status that the supervisor reports; None: it doesn't know the process."""
        try:
            return (await self.engine.tasks.get(self.box.id, id)).status
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return None

    async def becomes(self, id: str, status: TaskStatus | None) -> None:
        """A shim notifies the supervisor and us in any order."""
        while await self.status(id) is not status:  # noqa: ASYNC110 - another program changes it
            await asyncio.sleep(0.01)

    def shim(self) -> int:
        bundle = self.way.server.place / "state/tasks" / self.engine.namespace / self.box.id
        return int(json.loads((bundle / "state.json").read_text())["shim_pid"])


Body = Callable[[Place], Coroutine[None, None, None]]


def stage(way: Way, directory: Path, body: Body) -> None:
    harness.make_rootfs(directory / "rootfs")

    async def main() -> None:
        async with way.connected() as engine:
            one = await box(engine, directory, ["sleep", "1000"])
            try:
                path = directory / "stdio.sock"
                stock = way.server.kind == "containerd"
                rootfs = [Mount("bind", str(one.rootfs), options=("rbind", "ro"))]
                await engine.tasks.create(one.id, rootfs=rootfs, stdout="" if stock else str(StdioUri(str(path), {})))
                await engine.tasks.start(one.id)
                await body(Place(way, engine, one, path))
            finally:
                await one.end()

    asyncio.run(main())


def clients() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    return ours, theirs


async def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := await asyncio.get_running_loop().sock_recv(sock, 4096):
        data += piece
    return data


# Both ways.


def test_an_exec(way: Way, tmp_path: Path) -> None:
    """Its output, its exit status, and the events that others see."""

    async def body(place: Place) -> None:
        wanted = f'namespace=="{place.engine.namespace}",topic~="^/tasks/"'
        async with place.engine.events.subscribe(wanted) as events:
            end = await place.run("e1", "sh", "-c", "echo here; exit 3")
            assert await end() == (3, b"here\n")
            seen = []
            async for event in events:
                seen.append(event.topic.rpartition("/")[2])
                if event.topic == "/tasks/exit":
                    break
            assert seen == ["exec-added", "exec-started", "exit"]
        assert await place.status("e1") is None
        # The id is free.
        assert await (await place.run("e1", "true"))() == (0, b"")

    stage(way, tmp_path, body)


def test_execs_beside_each_other(way: Way, tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        async def one(number: int) -> None:
            end = await place.run(f"e{number}", "sh", "-c", f"echo {number}; exit {number}")
            assert await end() == (number, f"{number}\n".encode())

        await asyncio.gather(*(one(number) for number in range(8)))

    stage(way, tmp_path, body)


def test_an_exec_is_signalled(way: Way, tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        end = await place.run("e1", "sleep", "1000")
        await place.engine.tasks.kill(place.box.id, signal.SIGTERM, exec_id="e1")
        assert (await end())[0] == 128 + signal.SIGTERM
        await place.becomes("e1", None)
        with pytest.raises(WharfError) as caught:
            await place.engine.tasks.kill(place.box.id, signal.SIGTERM, exec_id="e1")
        assert caught.value.kind is Kind.NOT_FOUND

    stage(way, tmp_path, body)


def test_an_exec_that_can_not_be_started(way: Way, tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        with pytest.raises(WharfError, match="executable file not found"):
            await place.run("e1", "no-such-program")
        end = await place.run("e1", "sleep", "1000")
        with pytest.raises(WharfError) as caught:
            await place.run("e1", "true")
        assert caught.value.kind is Kind.ALREADY_EXISTS
        await place.becomes("e1", TaskStatus.RUNNING)
        ending = asyncio.create_task(end())
        await place.engine.tasks.kill(place.box.id, signal.SIGKILL)
        assert (await ending)[0] == 137
        await place.engine.tasks.wait(place.box.id)
        with pytest.raises(WharfError) as caught:
            await place.run("e2", "true")
        assert caught.value.kind in (Kind.FAILED_PRECONDITION, Kind.UNAVAILABLE, Kind.INTERNAL)

    stage(way, tmp_path, body)


# The extension alone.


def test_a_client_of_an_exec_that_can_not_be_started(own: processes.Server, tmp_path: Path) -> None:
    """Its socket is left alone."""

    async def body(place: Place) -> None:
        ours, theirs = clients()
        with ours, theirs:
            with pytest.raises(WharfError) as caught:
                await place.run_extended("e1", "no-such-program", client=theirs)
            assert caught.value.kind is Kind.INTERNAL
            theirs.sendall(b"sorry")
            theirs.close()
            assert await read_all(ours) == b"sorry"

    stage(Way(own, extended=True), tmp_path, body)


def test_an_exec_whose_daemon_left_goes_on_and_is_forgotten(own: processes.Server, tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        run = await place.run_extended("e1", "sleep", "1000")
        following = asyncio.create_task(run.exit())
        await asyncio.sleep(0)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await place.becomes("e1", TaskStatus.RUNNING)
        await place.engine.tasks.kill(place.box.id, signal.SIGKILL, exec_id="e1")
        await place.becomes("e1", None)

    stage(Way(own, extended=True), tmp_path, body)


def test_an_exec_goes_on_without_a_supervisor(own: processes.Server, tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        long = await place.run_extended("e1", "sleep", "1000")
        place.way.server.kill()
        short = await place.run_extended("e2", "sh", "-c", "exit 4")
        assert (await short.exit() or (0, 0))[0] == 4
        await asyncio.to_thread(place.way.server.restart)
        await place.engine.connect(deadline=harness.PATIENCE)
        assert await place.status("e1") is TaskStatus.RUNNING
        assert await place.status("e2") is None
        await place.engine.tasks.kill(place.box.id, signal.SIGKILL, exec_id="e1")
        assert (await long.exit() or (0, 0))[0] == 137

    stage(Way(own, extended=True), tmp_path, body)


def test_an_exec_is_lost_with_its_shim(own: processes.Server, tmp_path: Path) -> None:
    async def body(place: Place) -> None:
        ours, theirs = clients()
        with ours, theirs:
            run = await place.run_extended("e1", "sleep", "1000", client=theirs)
            theirs.close()
            following = asyncio.create_task(run.exit())
            os.kill(place.shim(), signal.SIGKILL)
            assert await read_all(ours) == b""
            # A client that saw its socket closed asks at once.
            assert run.shim_lost
            assert await following is None
            assert await run.ended() is SessionEnd.GONE
        assert (await place.engine.tasks.wait(place.box.id)).status == 137

    stage(Way(own, extended=True), tmp_path, body)
