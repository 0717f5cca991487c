"""Sessions over a hijacked connection or within a call: the client serves gRPC on one end of a socket pair."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.api.http2.connection import Connection
from engine.api.serving import Server
from engine.common.errors import WharfError
from server.builder.session import calls
from server.builder.session.filesync import Selection
from server.builder.session.mirror import walk
from server.builder.session.pb import control_pb2, filesync_pb2, fsutil_pb2, secrets_pb2
from server.builder.session.session import Session, Sessions
from server.builder.session.stat import to_go
from server.builder.session.tunnel import carry

Packet = fsutil_pb2.Packet


class Client(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not subscriptable at run time
    """The CLI's services: files of a directory (as fsutil sends them), one secret, and a target for output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requested = 0
        self.output = b""
        self.metadata: dict[str, Any] = {}

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        if details.method == calls.PULL_FILES:
            return grpc.stream_stream_rpc_method_handler(self.files, Packet.FromString, Packet.SerializeToString)
        if details.method == calls.SEND_FILES:
            return grpc.stream_stream_rpc_method_handler(
                self.receive,
                filesync_pb2.BytesMessage.FromString,
                filesync_pb2.BytesMessage.SerializeToString,
            )
        if details.method == calls.GET_SECRET:
            return grpc.unary_unary_rpc_method_handler(
                self.secret,
                secrets_pb2.GetSecretRequest.FromString,
                secrets_pb2.GetSecretResponse.SerializeToString,
            )
        return None

    async def files(self, _: Any, context: Any) -> None:
        self.metadata = dict(context.invocation_metadata())
        entries = list(walk(str(self.folder)))
        for entry in entries:
            stat = fsutil_pb2.Stat(
                path=entry.path,
                mode=to_go(entry.mode),
                size=entry.size,
                modTime=entry.mtime_ns,
                linkname=entry.linkname,
            )
            await context.write(Packet(type=Packet.PACKET_STAT, stat=stat))
        await context.write(Packet(type=Packet.PACKET_STAT))
        while True:
            packet = await context.read()
            if packet.type == Packet.PACKET_FIN:
                await context.write(Packet(type=Packet.PACKET_FIN))
                return
            self.requested += 1
            content = (self.folder / entries[packet.ID].path).read_bytes()
            for at in range(0, len(content), 32768):
                chunk = content[at : at + 32768]
                await context.write(Packet(type=Packet.PACKET_DATA, ID=packet.ID, data=chunk))
            await context.write(Packet(type=Packet.PACKET_DATA, ID=packet.ID))

    async def receive(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self.metadata = dict(context.invocation_metadata())
        async for message in requests:
            self.output += message.data
        return
        yield  # an empty response stream

    async def secret(self, request: Any, context: Any) -> Any:
        if request.ID != "known":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no")
        return secrets_pb2.GetSecretResponse(data=b"hush")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


METHODS = [calls.PULL_FILES, calls.SEND_FILES, calls.GET_SECRET]
UUID, METHOD = "x-docker-expose-session-uuid", "x-docker-expose-session-grpc-method"


class Control:
    """Serves sessions within calls."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    async def session(
        self, requests: AsyncIterator[control_pb2.BytesMessage], call: Mapping[str, str]
    ) -> AsyncIterator[control_pb2.BytesMessage]:
        async def serve(sock: socket.socket) -> None:
            methods = call[METHOD].split(",")
            await self.sessions.serve(sock, early=b"", id=call[UUID], name="n", shared_key="k", methods=methods)

        async for data in carry((message.data async for message in requests), serve):
            yield control_pb2.BytesMessage(data=data)


async def _hijacked(sessions: Sessions, sock: socket.socket) -> None:
    await sessions.serve(sock, early=b"", id="s1", name="n", shared_key="k", methods=METHODS)


async def _within_a_call(sessions: Sessions, sock: socket.socket) -> None:
    """Forward between ``sock`` and a call of Control's Session."""
    here, there = socket.socketpair()
    server = Server()
    server.add(control_pb2.DESCRIPTOR.services_by_name["Control"], Control(sessions), dict)
    serving = asyncio.create_task(server.serve(there, b""))
    connection = await Connection.from_socket(here, b"")
    metadata = [(UUID, "s1"), *((METHOD, method) for method in METHODS)]
    call = calls.Call(connection, "/moby.buildkit.v1.Control/Session", control_pb2.BytesMessage, metadata)
    reader, writer = await asyncio.open_connection(sock=sock)

    async def outward() -> None:
        with suppress(ConnectionError):  # the other end may close before it has read everything
            while data := await reader.read(1 << 16):
                await call.write(control_pb2.BytesMessage(data=data))
        call.done_writing()

    pump = asyncio.create_task(outward())
    with suppress(ConnectionError):  # so may this one
        while message := await call.read():
            writer.write(message.data)
            await writer.drain()
    await pump
    writer.close()
    connection.close()
    await serving


Connect = Callable[[Sessions, socket.socket], Coroutine[Any, Any, None]]


@asynccontextmanager
async def _session(
    client: Client, directory: Path, connect: Connect = _hijacked
) -> AsyncIterator[tuple[Session, Sessions]]:
    """A session whose client end is served by gRPC's own server."""
    ours, theirs = socket.socketpair()
    server = grpc.aio.server(handlers=[client])
    os.makedirs(directory)
    address = str(directory / "s")
    server.add_insecure_port(f"unix:{address}")
    await server.start()
    near, far = await asyncio.open_connection(sock=theirs), await asyncio.open_unix_connection(address)
    pumps = [asyncio.create_task(_pump(near[0], far[1])), asyncio.create_task(_pump(far[0], near[1]))]
    sessions = Sessions()
    serving = asyncio.create_task(connect(sessions, ours))
    try:
        yield await sessions.get("s1"), sessions
    finally:
        near[1].close()
        await asyncio.wait_for(serving, 30)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        far[1].close()
        await server.stop(None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "sub").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "sub/big").write_bytes(os.urandom(3_000_000))
    for number in range(300):
        (folder / f"sub/f{number}").write_text(str(number))
    return folder


@pytest.mark.root  # files get the owners that the client names
@pytest.mark.parametrize("connect", [_hijacked, _within_a_call])
def test_files_secrets_and_output(tmp_path: Path, folder: Path, connect: Connect) -> None:
    client = Client(folder)

    async def run() -> None:
        async with _session(client, tmp_path / "run", connect) as (session, sessions):
            root = tmp_path / "mirror"
            await session.pull_files(Selection(name="context", exclude=("ä*",)), str(root))
            assert client.metadata["exclude-patterns"] == "%C3%A4%2A"
            assert client.metadata["exclude-patterns-encoded"] == "1"
            assert list(walk(str(root))) == list(walk(str(folder)))
            assert (root / "sub/big").read_bytes() == (folder / "sub/big").read_bytes()
            assert client.requested == 302
            (folder / "sub/f7").write_text("changed")
            assert await session.pull_files(Selection(name="context"), str(root)) == 1
            assert client.requested == 303
            assert (root / "sub/f7").read_text() == "changed"

            assert await session.secret("known") == b"hush"
            with pytest.raises(WharfError, match="secret other: not found"):
                await session.secret("other")
            assert await session.credentials("registry") == ("", "")
            with pytest.raises(WharfError, match="unset ssh forward key default"):
                await session.check_ssh("default")

            async def chunks() -> AsyncIterator[bytes]:
                for _ in range(3):
                    yield b"x" * 1_500_000

            await session.send_stream(chunks(), metadata={"image.name": "a"})
            assert client.output == b"x" * 4_500_000
            assert client.metadata["exporter-md-image.name"] == "a"
        with pytest.raises(KeyError):
            sessions._sessions["s1"]

    asyncio.run(run())


class Full(Client):
    """Rejects output for lack of space."""

    async def receive(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            await context.abort(grpc.StatusCode.UNKNOWN, "no space left")
        return
        yield


def test_output_that_is_refused_in_the_middle(tmp_path: Path, folder: Path) -> None:
    """The sender does not wait for a window that never opens."""

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1_500_000

    async def run() -> None:
        async with _session(Full(folder), tmp_path / "run") as (session, _):
            with pytest.raises(WharfError, match="error from receiver: no space left"):
                await asyncio.wait_for(session.send_stream(chunks(), metadata={}), 60)

    asyncio.run(run())
