"""Calls of the client: absent and lost servers, deadlines, large messages, cancelled calls."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Struct

from engine.api.pb import content_pb2, version_pb2
from engine.api.pb.version_pb2 import VersionResponse
from engine.api.rpc import Connection
from engine.api.tests.serving import serving
from engine.common import timeouts
from engine.common.errors import Kind, WharfError

VERSION = "/containerd.services.version.v1.Version/Version"
READ = "/containerd.services.content.v1.Content/Read"
WRITE = "/containerd.services.content.v1.Content/Write"
SERVICES = (
    version_pb2.DESCRIPTOR.services_by_name["Version"],
    content_pb2.DESCRIPTOR.services_by_name["Content"],
)
DEADLINE = 60.0
LARGE = 9 << 20  # more than the windows of a call


class Servicer:
    def __init__(self) -> None:
        self.calls = 0
        #: The version waits for it.
        self.released = asyncio.Event()
        self.released.set()
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    async def version(self, request: Empty, call: dict[str, str]) -> VersionResponse:
        self.calls += 1
        self.began.set()
        try:
            await self.released.wait()
            return VersionResponse(version=call["containerd-namespace"])
        finally:
            self.ended.set()

    async def read(
        self, request: content_pb2.ReadContentRequest, call: object
    ) -> AsyncIterator[content_pb2.ReadContentResponse]:
        try:
            for offset in range(3):
                yield content_pb2.ReadContentResponse(offset=offset, data=bytes(LARGE))
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def write(
        self, requests: AsyncIterator[content_pb2.WriteContentRequest], call: object
    ) -> AsyncIterator[content_pb2.WriteContentResponse]:
        async for request in requests:
            if request.action == content_pb2.COMMIT:
                raise WharfError(Kind.ALREADY_EXISTS, "it exists")
            yield content_pb2.WriteContentResponse(offset=len(request.data))
        self.ended.set()


def scenario(path: Path, work: Callable[[Connection, Servicer, Path], Awaitable[None]]) -> None:
    """Runs a client; the server is ``serving(socket, SERVICES, servicer)``."""

    async def run() -> None:
        connection = Connection(str(path / "socket"), "space")
        try:
            async with asyncio.timeout(DEADLINE):
                await work(connection, Servicer(), path / "socket")
        finally:
            await connection.close()

    asyncio.run(run())


async def version(connection: Connection, *, again: bool = False) -> str:
    return (await connection.call(VERSION, Empty(), VersionResponse, again=again)).version


def test_a_call_waits_for_an_absent_server(tmp_path: Path) -> None:
    async def work(connection: Connection, servicer: Servicer, socket: Path) -> None:
        calling = asyncio.create_task(version(connection))
        with pytest.raises(WharfError) as failed:  # a stream does not wait
            async for _ in connection.stream(READ, content_pb2.ReadContentRequest(), content_pb2.ReadContentResponse):
                pass
        assert failed.value.kind is Kind.UNAVAILABLE
        async with serving(socket, SERVICES, servicer):
            assert await calling == "space"

    scenario(tmp_path, work)


def test_the_deadline_ends_a_call_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(connection: Connection, servicer: Servicer, socket: Path) -> None:
        servicer.released.clear()
        async with serving(socket, SERVICES, servicer):
            monkeypatch.setitem(timeouts._SECONDS, "engine.call", 0.2)
            with pytest.raises(WharfError) as failed:
                await version(connection)
            assert failed.value.kind is Kind.DEADLINE_EXCEEDED
            assert "engine.call" in failed.value.message
            await servicer.ended.wait()
            monkeypatch.undo()
            servicer.released.set()
            assert await version(connection) == "space"  # the connection is intact

    scenario(tmp_path, work)


@pytest.mark.parametrize("again", [False, True])
def test_a_server_that_dies_during_a_call(tmp_path: Path, *, again: bool) -> None:
    async def work(connection: Connection, servicer: Servicer, socket: Path) -> None:
        servicer.released.clear()
        async with serving(socket, SERVICES, servicer):
            calling = asyncio.create_task(version(connection, again=again))
            await servicer.began.wait()
        servicer.released.set()
        async with serving(socket, SERVICES, servicer):
            if again:
                assert await calling == "space"
            else:
                with pytest.raises(WharfError) as failed:
                    await calling
                assert failed.value.kind is Kind.UNAVAILABLE
            assert servicer.calls == 1 + again
        assert connection.losses == 1

    scenario(tmp_path, work)


def test_messages_larger_than_the_windows(tmp_path: Path) -> None:
    async def work(connection: Connection, servicer: Servicer, socket: Path) -> None:
        async with serving(socket, SERVICES, servicer):
            call = connection.duplex(WRITE, content_pb2.WriteContentRequest, content_pb2.WriteContentResponse)
            for _ in range(2):
                answer = await call.exchange(content_pb2.WriteContentRequest(data=bytes(LARGE)))
                assert answer.offset == LARGE
            await call.finish()
            assert servicer.ended.is_set()
            call.cancel()
            request = Struct()
            request["x"] = "x" * LARGE  # unknown to the service, so it is skipped
            assert (await connection.call(VERSION, request, VersionResponse)).version == "space"

    scenario(tmp_path, work)


def test_the_status_of_a_duplex_call_wins(tmp_path: Path) -> None:
    async def work(connection: Connection, servicer: Servicer, socket: Path) -> None:
        async with serving(socket, SERVICES, servicer):
            call = connection.duplex(WRITE, content_pb2.WriteContentRequest, content_pb2.WriteContentResponse)
            for _ in range(2):  # also of a write after the end
                with pytest.raises(WharfError) as failed:
                    await call.exchange(content_pb2.WriteContentRequest(action=content_pb2.COMMIT, data=bytes(LARGE)))
                assert (failed.value.kind, failed.value.message) == (Kind.ALREADY_EXISTS, "it exists")
            await call.finish()
            call.cancel()
            unused = connection.duplex(WRITE, content_pb2.WriteContentRequest, content_pb2.WriteContentResponse)
            await unused.finish()
            unused.cancel()

    scenario(tmp_path, work)


def test_leaving_a_stream_cancels_the_call(tmp_path: Path) -> None:
    async def work(connection: Connection, servicer: Servicer, socket: Path) -> None:
        async with serving(socket, SERVICES, servicer):
            request = content_pb2.ReadContentRequest()
            stream = connection.stream(READ, request, content_pb2.ReadContentResponse)
            async for answer in stream:
                assert len(answer.data) == LARGE
                if answer.offset == 1:
                    break
            await stream.aclose()  # type: ignore[attr-defined]
            await servicer.ended.wait()
            assert await version(connection) == "space"

    scenario(tmp_path, work)


def test_unknown_methods_are_not_implemented(tmp_path: Path) -> None:
    async def work(connection: Connection, servicer: Servicer, socket: Path) -> None:
        async with serving(socket, SERVICES, servicer):
            for method in ("/containerd.services.content.v1.Content/Info", "/no.such.Service/Method"):
                with pytest.raises(WharfError) as failed:
                    await connection.call(method, Empty(), Empty)
                assert failed.value.kind is Kind.NOT_IMPLEMENTED

    scenario(tmp_path, work)


def test_a_server_that_stops_lets_calls_end(tmp_path: Path) -> None:
    async def work(connection: Connection, servicer: Servicer, socket: Path) -> None:
        servicer.released.clear()
        async with serving(socket, SERVICES, servicer) as server:
            calling = asyncio.create_task(version(connection))
            await servicer.began.wait()
            stopping = asyncio.create_task(server.stop(DEADLINE))
            await asyncio.sleep(0)
            servicer.released.set()
            assert await calling == "space"
            await stopping

    scenario(tmp_path, work)


def test_an_absent_server_is_unavailable_after_the_deadline(tmp_path: Path) -> None:
    async def work(connection: Connection, servicer: Servicer, socket: Path) -> None:
        with pytest.raises(WharfError) as failed:
            await connection.ready(0.1)
        assert failed.value.kind is Kind.UNAVAILABLE
        async with serving(socket, SERVICES, servicer):
            await connection.ready(DEADLINE)

    scenario(tmp_path, work)
