"""The server's version is requested once, and again after another server has taken over the socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from google.protobuf.empty_pb2 import Empty

from engine.api.client import Engine
from engine.api.pb import events_pb2, version_pb2
from engine.api.tests.serving import serving
from engine.common.errors import WharfError


class _Server:
    """Serves a version and a stream of events without events."""

    def __init__(self, version: str) -> None:
        self._version = version
        self.asked = 0
        self.subscribed = asyncio.Event()

    async def version(self, request: Empty, call: object) -> version_pb2.VersionResponse:
        self.asked += 1
        return version_pb2.VersionResponse(version=self._version)

    async def subscribe(self, request: events_pb2.SubscribeRequest, call: object) -> AsyncIterator[events_pb2.Envelope]:
        self.subscribed.set()
        await asyncio.Event().wait()
        yield events_pb2.Envelope()


@asynccontextmanager
async def _serving(path: Path, version: str) -> AsyncIterator[_Server]:
    servicer = _Server(version)
    services = (version_pb2.DESCRIPTOR.services_by_name["Version"], events_pb2.DESCRIPTOR.services_by_name["Events"])
    async with serving(path, services, servicer):
        yield servicer


async def _listen(engine: Engine, server: _Server) -> None:
    """Listens until the server has ended. A stream doesn't wait for a connection: retry one that fails before it is
    active."""
    while True:
        with contextlib.suppress(WharfError):
            async for _ in engine.events.stream([]):
                pass
        if server.subscribed.is_set():
            return
        await asyncio.sleep(0.05)


def test_the_version_is_asked_for_once_per_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = Engine(str(tmp_path / "socket"))
        try:
            async with _serving(tmp_path / "socket", "one") as server:
                listening = asyncio.create_task(_listen(engine, server))
                await asyncio.wait_for(server.subscribed.wait(), 60)
                assert [(await engine.version()).version for _ in range(3)] == ["one"] * 3
                assert server.asked == 1
            await asyncio.wait_for(listening, 60)
            async with _serving(tmp_path / "socket", "two"):
                assert (await engine.version()).version == "two"
        finally:
            await engine.close()

    asyncio.run(scenario())
