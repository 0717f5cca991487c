"""A CLI's session: the services that the client of a build serves to the daemon.

The client connects to ``POST /session`` and then *serves* gRPC on that connection; headers carry its id and the
methods that it offers. A build refers to its session by id. The session ends with its connection.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from engine.api.http2.connection import Connection
from engine.common import timeouts
from engine.common.errors import Kind, WharfError, not_found
from server.builder.session import calls
from server.builder.session.filesync import Selection, receive
from server.builder.session.pb import auth_pb2, filesync_pb2, secrets_pb2, ssh_pb2

ARRIVE = timeouts.define("session.arrive", 10.0)
"""A build may arrive before its session."""
ANSWER = timeouts.define("session.answer", 60.0)
"""A client may ask its user or a credential helper before it responds."""

CHUNK = 1 << 20
"""The most bytes in a message to the client."""

ABSENT = (Kind.NOT_FOUND, Kind.NOT_IMPLEMENTED)
"""The error kinds by which a client reports that it lacks a requested item."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Session:
    """The services of one client. Every method raises UNAVAILABLE if the connection breaks off."""

    id: str
    name: str
    shared_key: str
    methods: frozenset[str]
    carrier: Connection | None
    """``None``: the build has no session."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def connection(self) -> Connection:
        """The connection to the client. Raises NOT_IMPLEMENTED for a build without a session."""
        if self.carrier is None:
            raise WharfError(Kind.NOT_IMPLEMENTED, "the build has no session")
        return self.carrier

    def offers(self, method: str) -> bool:
        """Whether the client serves ``/package.Service/Method``."""
        return method.casefold() in self.methods

    def _require(self, method: str, what: str) -> None:
        if not self.offers(method):
            raise WharfError(Kind.NOT_IMPLEMENTED, f"the client of this build does not offer {what}")

    async def pull_files(
        self, selection: Selection, root: str, on_progress: Callable[[int], None] | None = None
    ) -> int:
        """Make the directory ``root`` equal to the client's selection; return the number of changed entries.

        ``on_progress``: called with the number of received bytes.
        """
        self._require(calls.PULL_FILES, "files")
        return await receive(self.connection, selection, root, on_progress)

    async def credentials(self, host: str) -> tuple[str, str]:
        """Return user and secret for a registry; empty strings if the client has none."""
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
        """Return a build secret. Raises NOT_FOUND with BuildKit's sentence."""
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
        """Raise NOT_FOUND unless the client forwards an agent of that name; UNAVAILABLE if it has disconnected."""
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
        """Connect a build process to the client's agent, until either side closes."""
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
        """Yield the client's upload of a path of its ``http://buildkit-session/`` URL: a context from stdin."""
        self._require(calls.UPLOAD, "an upload")
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
        """Send a file to the client: a ``tar``, ``docker`` or ``oci`` output.

        ``metadata``: the exporter's response fields, each sent as ``exporter-md-<key>``; ``exporter``: the client's
        number of the output.
        """
        self._require(calls.SEND_FILES, "a place for output")
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
                    with _client_errors():
                        await call.write(message)
            call.done_writing()
            with _client_errors():
                await call.drain()
        finally:
            call.cancel()


@contextlib.contextmanager
def _client_errors() -> Iterator[None]:
    """Mark errors of the block as the client's."""
    try:
        yield
    except WharfError as error:
        raise WharfError(error.kind, f"error from receiver: {error.message}") from error


class Sessions:
    """The connected sessions, by id."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._arrived = asyncio.Condition()

    async def serve(
        self, sock: socket.socket, *, early: bytes, id: str, name: str, shared_key: str, methods: Sequence[str]
    ) -> None:
        """Serve a session on a hijacked connection, which it takes over, until the client disconnects.

        Raises CONFLICT if the id is in use.
        """
        if id in self._sessions:
            raise WharfError(Kind.CONFLICT, f"session {id} already exists")
        connection = await Connection.from_socket(sock, early)
        offered = frozenset(method.casefold() for method in methods)
        session = Session(id=id, name=name, shared_key=shared_key, methods=offered, carrier=connection)
        try:
            async with self._arrived:
                self._sessions[id] = session
                self._arrived.notify_all()
            await asyncio.shield(connection.closed)
        finally:
            session.closed.set()
            self._sessions.pop(id, None)
            connection.close()

    @contextlib.contextmanager
    def registered(self, session: Session) -> Iterator[None]:
        """Register a session without a connection of its own, during the block."""
        self._sessions[session.id] = session
        try:
            yield
        finally:
            session.closed.set()
            self._sessions.pop(session.id, None)

    async def get(self, id: str) -> Session:
        """Return the session of that id; wait a moment for it, as a build may arrive before its session.

        Raises NOT_FOUND with BuildKit's sentence.
        """
        try:
            async with asyncio.timeout(ARRIVE), self._arrived:
                await self._arrived.wait_for(lambda: id in self._sessions)
        except TimeoutError as error:
            raise not_found(f"no active session for {id}: context deadline exceeded") from error
        return self._sessions[id]
