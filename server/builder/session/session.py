"""A CLI's session: the services that the client of a build serves to the daemon.

The client dials ``POST /session`` and then *serves* gRPC on that connection; it says beforehand, in headers, its
id and which methods it offers. A build names its session by id. The session dies with its connection.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, not_found
from server.builder.session import calls
from server.builder.session.filesync import Selection, receive
from server.builder.session.http2.connection import Connection
from server.builder.session.pb import auth_pb2, filesync_pb2, secrets_pb2, ssh_pb2

ARRIVE = timeouts.define("session.arrive", 10.0)
"""A build can come before its session does."""
ANSWER = timeouts.define("session.answer", 60.0)
"""A client may ask its user or a credential helper before it answers."""

CHUNK = 1 << 20
"""Bytes in one message that is sent to the client."""

ABSENT = (Kind.NOT_FOUND, Kind.NOT_IMPLEMENTED)
"""How a client answers that doesn't have what it is asked for."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Session:
    """One client's services. Every method raises UNAVAILABLE when the connection breaks off."""

    id: str
    name: str
    shared_key: str
    methods: frozenset[str]
    carrier: Connection | None
    """``None``: the build has no client that could be asked."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def connection(self) -> Connection:
        """Where the client is asked. Raises NOT_IMPLEMENTED for a build without one."""
        if self.carrier is None:
            raise WharfError(Kind.NOT_IMPLEMENTED, "the build has no session")
        return self.carrier

    def offers(self, method: str) -> bool:
        """Whether the client serves ``/package.Service/Method``."""
        return method.casefold() in self.methods

    def _need(self, method: str, what: str) -> None:
        if not self.offers(method):
            raise WharfError(Kind.NOT_IMPLEMENTED, f"the client of this build does not offer {what}")

    async def pull_files(self, selection: Selection, root: str, tell: Callable[[int], None] | None = None) -> int:
        """Makes the directory ``root`` equal to the client's selection; returns how many entries changed.

        ``tell``: is told how many bytes have come.
        """
        self._need(calls.PULL_FILES, "files")
        return await receive(self.connection, selection, root, tell)

    async def credentials(self, host: str) -> tuple[str, str]:
        """User and secret for a registry; empty strings if the client has none."""
        if not self.offers(calls.CREDENTIALS):
            return "", ""
        try:
            request = auth_pb2.CredentialsRequest(Host=host)
            reply = await calls.unary(self.connection, calls.CREDENTIALS, request, timeout=ANSWER)
        except WharfError as error:
            if error.kind in ABSENT:
                return "", ""
            raise
        return reply.Username, reply.Secret

    async def secret(self, name: str) -> bytes:
        """A build's secret. Raises NOT_FOUND with BuildKit's sentence."""
        missing = not_found(f"secret {name}: not found")
        if not self.offers(calls.GET_SECRET):
            raise missing
        try:
            request = secrets_pb2.GetSecretRequest(ID=name)
            reply = await calls.unary(self.connection, calls.GET_SECRET, request, timeout=ANSWER)
        except WharfError as error:
            if error.kind in ABSENT:
                raise missing from error
            raise
        return bytes(reply.data)

    async def check_ssh(self, name: str) -> None:
        """Raises NOT_FOUND unless the client forwards an agent of that name; UNAVAILABLE if it has gone."""
        if not self.offers(calls.CHECK_AGENT):
            raise not_found(f"unset ssh forward key {name}")
        try:
            request = ssh_pb2.CheckAgentRequest(ID=name)
            await calls.unary(self.connection, calls.CHECK_AGENT, request, timeout=ANSWER)
        except WharfError as error:
            if error.kind in (Kind.UNAVAILABLE, Kind.CANCELLED):
                raise
            raise not_found(error.message or f"unset ssh forward key {name}") from error

    async def forward_ssh(self, name: str, connection: Stream) -> None:
        """Joins one connection of a process in a build to the client's agent, until either ends."""
        call = calls.stream(self.connection, calls.FORWARD_AGENT, (("ssh.id", name),))
        reader, writer = connection

        async def outward() -> None:
            while data := await reader.read(32 * 1024):
                await call.write(ssh_pb2.BytesMessage(data=data))
            call.done_writing()

        pump = asyncio.create_task(outward())
        try:
            while message := await call.read():
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
        call = calls.stream(self.connection, calls.UPLOAD, (("urlpath", path), ("urlhost", "buildkit-session")))
        try:
            call.done_writing()
            while (message := await call.read()) is not None:
                yield bytes(message.data)
            call.check()
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
        call = calls.stream(
            self.connection,
            calls.SEND_FILES,
            [
                ("buildkit-attachable-exporter-id", str(exporter)),
                *((f"exporter-md-{key}", value) for key, value in metadata.items()),
            ],
        )
        try:
            async for chunk in chunks:
                for at in range(0, len(chunk), CHUNK):
                    message = filesync_pb2.BytesMessage(data=chunk[at : at + CHUNK])
                    with _of_receiver():
                        await call.write(message)
            call.done_writing()
            with _of_receiver():
                await call.rest()
        finally:
            call.cancel()


@contextlib.contextmanager
def _of_receiver() -> Iterator[None]:
    """Errors within are the client's."""
    try:
        yield
    except WharfError as error:
        raise WharfError(error.kind, f"error from receiver: {error.message}") from error


class Sessions:
    """The sessions that are connected now, by id."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._arrived = asyncio.Condition()

    async def serve(
        self, sock: socket.socket, *, early: bytes, id: str, name: str, shared_key: str, methods: Sequence[str]
    ) -> None:
        """Keeps a session on a hijacked connection, which belongs to it, until the client leaves.

        Raises CONFLICT if the id is connected already.
        """
        if id in self._sessions:
            raise WharfError(Kind.CONFLICT, f"session {id} already exists")
        connection = await Connection.on(sock, early)
        offered = frozenset(method.casefold() for method in methods)
        session = Session(id=id, name=name, shared_key=shared_key, methods=offered, carrier=connection)
        try:
            async with self._arrived:
                self._sessions[id] = session
                self._arrived.notify_all()
            await asyncio.shield(connection.closed)
        finally:
            session.gone.set()
            self._sessions.pop(id, None)
            connection.close()

    @contextlib.contextmanager
    def held(self, session: Session) -> Iterator[None]:
        """A session without a connection of its own, for as long as the block runs."""
        self._sessions[session.id] = session
        try:
            yield
        finally:
            session.gone.set()
            self._sessions.pop(session.id, None)

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
