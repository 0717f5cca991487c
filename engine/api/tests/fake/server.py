"""The fake's services by their gRPC names, and the connection that calls them."""

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Generic, TypeVar, cast

from google.protobuf.message import Message

from engine.api.client import Engine
from engine.api.pb import content_pb2
from engine.api.rpc import Connection, Duplex, current_lease
from engine.api.tests.fake import collector
from engine.api.tests.fake.content import Content, Write
from engine.api.tests.fake.diff import Diff
from engine.api.tests.fake.events import Events
from engine.api.tests.fake.records import Containers, Images, Leases, Namespaces, Server, check_identifier
from engine.api.tests.fake.snapshots import Snapshots
from engine.api.tests.fake.state import Call, Namespace
from engine.api.tests.fake.tasks import Tasks
from engine.common.errors import WharfError, not_implemented

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


class FakeServer:
    """``directory`` gets the snapshots' directories. ``tasks`` is public for tests that end a process. ``listeners``:
    called with the method of each call."""

    def __init__(self, directory: Path) -> None:
        self.listeners: list[Callable[[str], None]] = []
        self.spaces: dict[str, Namespace] = {}
        self.tasks = Tasks(events := Events())
        snapshots = Snapshots(events, directory / "snapshots")
        self.content = content = Content(events)

        def collect(space: Namespace) -> None:
            collector.collect(space, snapshots)

        about = Server()
        self.services: dict[str, object] = {
            "containerd.services.content.v1.Content": content,
            "containerd.services.images.v1.Images": Images(events, collect),
            "containerd.services.containers.v1.Containers": Containers(events),
            "containerd.services.leases.v1.Leases": Leases(collect),
            "containerd.services.snapshots.v1.Snapshots": snapshots,
            "containerd.services.diff.v1.Diff": Diff(content),
            "containerd.services.tasks.v1.Tasks": self.tasks,
            "containerd.services.events.v1.Events": events,
            "containerd.services.namespaces.v1.Namespaces": Namespaces(self.spaces),
            "containerd.services.introspection.v1.Introspection": about,
            "containerd.services.version.v1.Version": about,
            "grpc.health.v1.Health": about,
        }

    def client(self, *, namespace: str = "moby", snapshotter: str = "native") -> Engine:
        connection = FakeConnection(self, namespace)
        return Engine(connection.address, namespace=namespace, snapshotter=snapshotter, connection=connection)

    def call(self, namespace: str) -> Call:
        """The context of a call in a namespace; the first call creates the namespace.

        :raises WharfError: INVALID_ARGUMENT: no name of a namespace.
        """
        check_identifier(namespace)
        return Call(namespace, current_lease.get(), self.spaces.setdefault(namespace, Namespace()))


class FakeConnection(Connection):
    """Calls the server's methods. Requests and replies are serialized and parsed, so nothing is shared by accident."""

    def __init__(self, server: FakeServer, namespace: str) -> None:
        super().__init__("unix:///fake/containerd.sock", namespace)
        self._server = server

    async def ready(self, deadline: float) -> None:
        return

    async def close(self) -> None:
        return

    async def call(
        self,
        method: str,
        request: Message,
        reply: type[R],
        *,
        deadline: str | None = "engine.call",
        again: bool = False,
    ) -> R:
        call = self._server.call(self.namespace)
        await asyncio.sleep(0)
        answer: object = self._handler(method)(call, _copied(request))
        if inspect.isawaitable(answer):
            answer = await answer
        assert isinstance(answer, reply)
        return _copied(answer)

    async def stream(self, method: str, request: Message, reply: type[R]) -> AsyncIterator[R]:
        call = self._server.call(self.namespace)
        await asyncio.sleep(0)
        answers = self._handler(method)(call, _copied(request))
        async for answer in cast("AsyncIterator[Message]", answers):
            assert isinstance(answer, reply)
            yield _copied(answer)

    def duplex(self, method: str, request: type[M], reply: type[R]) -> Duplex[M, R]:
        if not method.endswith("Content/Write"):
            return _Refused(not_implemented(f"unknown method {method}"))
        return cast("Duplex[M, R]", _Writing(self._server.content.write(self._server.call(self.namespace))))

    def _handler(self, method: str) -> Callable[[Call, Message], object]:
        for listener in self._server.listeners:
            listener(method)
        _, service, name = method.split("/")
        handler = getattr(self._server.services.get(service), re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower(), None)
        if handler is None:
            raise not_implemented(f"unknown method {method}")
        return cast("Callable[[Call, Message], object]", handler)


class _Writing:
    """A ``Write`` call."""

    def __init__(self, write: Write) -> None:
        self._write = write

    async def exchange(self, request: content_pb2.WriteContentRequest | bytes) -> content_pb2.WriteContentResponse:
        await asyncio.sleep(0)
        if not isinstance(request, bytes):
            request = request.SerializeToString()
        return self._write.handle(content_pb2.WriteContentRequest.FromString(request))

    async def read(self) -> content_pb2.WriteContentResponse:
        raise AssertionError("each answer is read with its request")

    async def finish(self) -> None:
        self._write.close()

    def cancel(self) -> None:
        self._write.close()


class _Refused(Generic[M, R]):
    """A call that the server ends with an error at once."""

    def __init__(self, error: WharfError) -> None:
        self._error = error

    async def exchange(self, request: M | bytes) -> R:
        raise self._error

    async def read(self) -> R:
        raise self._error

    async def finish(self) -> None:
        return

    def cancel(self) -> None:
        return


def _copied(message: M) -> M:
    return type(message).FromString(message.SerializeToString())
