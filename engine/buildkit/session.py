"""A CLI's session: the services that the client of a build serves to the daemon.

The client dials ``POST /session`` and then *serves* gRPC on that connection; it says beforehand, in headers, its
id and which methods it offers. A build names its session by id. The session dies with its connection.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import grpc

from engine.buildkit import calls
from engine.buildkit.filesync import Selection, receive
from engine.buildkit.pb import auth_pb2, filesync_pb2, secrets_pb2, ssh_pb2
from engine.buildkit.transport import Rendezvous, Stream
from engine.errors import Kind, WharfError, invalid, not_found
from engine.system import timeouts

ARRIVE = timeouts.define("session.arrive", 10.0)
"""A build can come before its session does."""
ANSWER = timeouts.define("session.answer", 60.0)
"""A client may ask its user or a credential helper before it answers."""

OPTIONS = (
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.enable_http_proxy", 0),
    ("grpc.http2.max_ping_strikes", 0),
)
"""Of the gRPC channel: fsutil's packets are at most 32 KiB, an upload's chunks may be larger."""

CHUNK = 1 << 20
"""Bytes in one message that is sent to the client."""


@dataclass(slots=True)
class Session:
    """One client's services. Every method raises what grpc raises when the connection breaks off."""

    id: str
    name: str
    shared_key: str
    methods: frozenset[str]
    channel: grpc.aio.Channel
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def offers(self, method: str) -> bool:
        """Whether the client serves ``/package.Service/Method``."""
        return method.casefold() in self.methods

    def _need(self, method: str, what: str) -> None:
        if not self.offers(method):
            raise WharfError(Kind.NOT_IMPLEMENTED, f"the client of this build does not offer {what}")

    async def pull_files(self, selection: Selection, root: str) -> int:
        """Makes the directory ``root`` equal to the client's selection; returns how many entries changed."""
        self._need(calls.PULL_FILES, "files")
        return await receive(self.channel, selection, root)

    async def credentials(self, host: str) -> tuple[str, str]:
        """User and secret for a registry; empty strings if the client has none."""
        if not self.offers(calls.CREDENTIALS):
            return "", ""
        try:
            reply = await calls.unary(self.channel, calls.CREDENTIALS)(
                auth_pb2.CredentialsRequest(Host=host), timeout=ANSWER
            )
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED):
                return "", ""
            raise
        return reply.Username, reply.Secret

    async def secret(self, name: str) -> bytes:
        """A build's secret. Raises NOT_FOUND with BuildKit's sentence."""
        missing = not_found(f"secret {name}: not found")
        if not self.offers(calls.GET_SECRET):
            raise missing
        try:
            reply = await calls.unary(self.channel, calls.GET_SECRET)(
                secrets_pb2.GetSecretRequest(ID=name), timeout=ANSWER
            )
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED):
                raise missing from error
            raise
        return bytes(reply.data)

    async def check_ssh(self, name: str) -> None:
        """Raises NOT_FOUND unless the client forwards an agent of that name."""
        if not self.offers(calls.CHECK_AGENT):
            raise not_found(f"unset ssh forward key {name}")
        try:
            await calls.unary(self.channel, calls.CHECK_AGENT)(ssh_pb2.CheckAgentRequest(ID=name), timeout=ANSWER)
        except grpc.aio.AioRpcError as error:
            raise not_found(error.details() or f"unset ssh forward key {name}") from error

    async def forward_ssh(self, name: str, connection: Stream) -> None:
        """Joins one connection of a process in a build to the client's agent, until either ends."""
        call = calls.stream(self.channel, calls.FORWARD_AGENT)(None, metadata=(("ssh.id", name),))
        reader, writer = connection

        async def outward() -> None:
            while data := await reader.read(32 * 1024):
                await call.write(ssh_pb2.BytesMessage(data=data))
            await call.done_writing()

        pump = asyncio.create_task(outward())
        try:
            async for message in call:
                writer.write(message.data)
                await writer.drain()
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            call.cancel()
            writer.close()

    async def upload(self, path: str) -> AsyncIterator[bytes]:
        """What the client uploads under a path of its ``http://buildkit-session/`` URL: a context from stdin."""
        self._need(calls.UPLOAD, "an upload")
        call = calls.stream(self.channel, calls.UPLOAD)(
            None, metadata=(("urlpath", path), ("urlhost", "buildkit-session"))
        )
        # The sender begins with the first message; its content carries nothing.
        await call.done_writing()
        try:
            async for message in call:
                yield bytes(message.data)
        finally:
            call.cancel()

    async def send_stream(
        self, chunks: AsyncIterator[bytes], *, metadata: Mapping[str, str], exporter: int = 0
    ) -> None:
        """Sends one file to the client: a ``tar``, ``docker`` or ``oci`` output.

        ``metadata``: the exporter's results for the client, each under ``exporter-md-<key>``; ``exporter`` is the
        number of the output that the client has for it.
        """
        self._need(calls.SEND_FILES, "a place for output")
        call = calls.stream(self.channel, calls.SEND_FILES)(
            None,
            metadata=[
                ("buildkit-attachable-exporter-id", str(exporter)),
                *((f"exporter-md-{key}", value) for key, value in metadata.items()),
            ],
        )
        try:
            async for chunk in chunks:
                for at in range(0, len(chunk), CHUNK):
                    await call.write(filesync_pb2.BytesMessage(data=chunk[at : at + CHUNK]))
            await call.done_writing()
            async for _ in call:
                continue
            code = await call.code()
            if code is not grpc.StatusCode.OK:
                raise invalid(f"error from receiver: {await call.details()}")
        finally:
            call.cancel()


class Sessions:
    """The sessions that are connected now, by id."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._sessions: dict[str, Session] = {}
        self._arrived = asyncio.Condition()

    async def serve(
        self,
        connection: Stream,
        *,
        early: bytes,
        id: str,
        name: str,
        shared_key: str,
        methods: Sequence[str],
    ) -> None:
        """Keeps a session on a hijacked connection until the client leaves.

        Raises CONFLICT if the id is connected already.
        """
        if id in self._sessions:
            raise WharfError(Kind.CONFLICT, f"session {id} already exists")
        meeting = Rendezvous(self._directory)
        listening = await meeting.listen(connection, early=early)
        channel = grpc.aio.insecure_channel(meeting.address, options=OPTIONS)
        offered = frozenset(method.casefold() for method in methods)
        session = Session(id=id, name=name, shared_key=shared_key, methods=offered, channel=channel)
        try:
            async with self._arrived:
                self._sessions[id] = session
                self._arrived.notify_all()
            # gRPC dials when first asked; the client counts as present only when it is connected.
            channel.get_state(try_to_connect=True)
            await listening.ended()
        finally:
            session.gone.set()
            self._sessions.pop(id, None)
            with contextlib.suppress(Exception):
                await channel.close(None)
            listening.close()

    async def get(self, id: str) -> Session:
        """The session of that id; waits a moment, as a build can arrive before its session does.

        Raises NOT_FOUND with BuildKit's sentence.
        """
        try:
            async with asyncio.timeout(ARRIVE), self._arrived:
                await self._arrived.wait_for(lambda: id in self._sessions)
        except TimeoutError as error:
            raise not_found(f"no active session for {id}: context deadline exceeded") from error
        return self._sessions[id]
