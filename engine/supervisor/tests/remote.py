"""A remote snapshotter for tests: the fake's, served on a unix socket by a thread of the test's process."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from google.protobuf.empty_pb2 import Empty

from engine.api.pb import snapshots_pb2 as pb
from engine.api.serving import Server
from engine.api.tests.fake.events import Events
from engine.api.tests.fake.snapshots import Snapshots
from engine.api.tests.fake.state import Call, Namespace
from engine.api.types import NAMESPACE_HEADER
from engine.common.errors import Kind, WharfError, not_found


class Remote:
    """``names``: its snapshots. ``removed``: set by each removal. ``labels``: of the last ``prepare``. ``namespaces``:
    those of the calls. ``cleaned``: how often files were to be deleted."""

    def __init__(self, place: Path) -> None:
        self.address = str(place / "remote.sock")
        self.labels: dict[str, str] = {}
        self.namespaces: set[str] = set()
        self.cleaned = 0
        self.removed = threading.Event()
        self._snapshots = Snapshots(Events(), place / "remote")
        self._space = Namespace()

    @property
    def names(self) -> list[str]:
        return sorted(key for _, key in self._space.snapshots)

    def caller(self, headers: Mapping[str, str]) -> Call:
        self.namespaces.add(headers.get(NAMESPACE_HEADER, ""))
        return Call("all", "", self._space)

    def add(self, name: str) -> None:
        """A snapshot that nobody asked for now."""
        self._snapshots.prepare(Call("all", "", self._space), pb.PrepareSnapshotRequest(snapshotter="remote", key=name))

    def lose(self, name: str) -> None:
        """As if its directory were new."""
        for key, snapshot in list(self._space.snapshots.items()):
            if key[1] == name:
                self._snapshots.discard(self._space, key[0], snapshot)

    async def prepare(self, request: pb.PrepareSnapshotRequest, call: Call) -> pb.PrepareSnapshotResponse:
        self.labels = dict(request.labels)
        return self._snapshots.prepare(call, request)

    async def view(self, request: pb.ViewSnapshotRequest, call: Call) -> pb.ViewSnapshotResponse:
        return self._snapshots.view(call, request)

    async def mounts(self, request: pb.MountsRequest, call: Call) -> pb.MountsResponse:
        return self._snapshots.mounts(call, request)

    async def commit(self, request: pb.CommitSnapshotRequest, call: Call) -> Empty:
        return self._snapshots.commit(call, request)

    async def remove(self, request: pb.RemoveSnapshotRequest, call: Call) -> Empty:
        try:
            return self._snapshots.remove(call, request)
        finally:
            self.removed.set()

    async def stat(self, request: pb.StatSnapshotRequest, call: Call) -> pb.StatSnapshotResponse:
        return self._snapshots.stat(call, request)

    async def update(self, request: pb.UpdateSnapshotRequest, call: Call) -> pb.UpdateSnapshotResponse:
        return self._snapshots.update(call, request)

    async def usage(self, request: pb.UsageRequest, call: Call) -> pb.UsageResponse:
        return self._snapshots.usage(call, request)

    async def list(self, request: pb.ListSnapshotsRequest, call: Call) -> AsyncIterator[pb.ListSnapshotsResponse]:
        if not self._space.snapshots:
            raise WharfError(Kind.INTERNAL, "bucket does not exist: not found")  # as containerd's metadata store
        async for page in self._snapshots.list(call, request):
            yield page

    async def cleanup(self, request: pb.CleanupRequest, call: Call) -> Empty:
        self.cleaned += 1
        if not self._space.snapshots:
            raise not_found("bucket does not exist: not found")
        return Empty()


@contextlib.contextmanager
def serving(remote: Remote) -> Iterator[None]:
    """Serves until the end, from which on its socket refuses connections."""
    loop = asyncio.new_event_loop()
    ending = asyncio.Event()
    listening = socket.socket(socket.AF_UNIX)
    Path(remote.address).unlink(missing_ok=True)
    listening.bind(remote.address)
    listening.listen()

    async def main() -> None:
        server = Server()
        server.add(pb.DESCRIPTOR.services_by_name["Snapshots"], remote, remote.caller)
        server.listen(listening)
        await ending.wait()
        await server.stop(grace=0)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), name="remote snapshotter")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()
