"""The methods that a session's client serves: a table of their paths and response types."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from engine.api.errors import from_status
from engine.api.http2.connection import Connection
from engine.common.errors import Kind, WharfError, internal
from server.builder.session.pb import auth_pb2, filesync_pb2, fsutil_pb2, secrets_pb2, ssh_pb2, upload_pb2

CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
PULL_FILES = "/moby.filesync.v1.FileSync/DiffCopy"
SEND_FILES = "/moby.filesync.v1.FileSend/DiffCopy"
SEND_TREE = f"{SEND_FILES}#tree"
"""The method carries either one file as bytes, or a tree as packets, depending on the client's output."""
GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CHECK_AGENT = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD_AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
UPLOAD = "/moby.upload.v1.Upload/Pull"

_TYPES: dict[str, type[Message]] = {
    CREDENTIALS: auth_pb2.CredentialsResponse,
    PULL_FILES: fsutil_pb2.Packet,
    SEND_TREE: fsutil_pb2.Packet,
    SEND_FILES: filesync_pb2.BytesMessage,
    GET_SECRET: secrets_pb2.GetSecretResponse,
    CHECK_AGENT: ssh_pb2.CheckAgentResponse,
    FORWARD_AGENT: ssh_pb2.BytesMessage,
    UPLOAD: upload_pb2.BytesMessage,
}

R = TypeVar("R", bound=Message)


class Call(Generic[R]):
    """One call. Every method raises a WharfError if the call broke off; always call ``cancel`` in the end."""

    def __init__(
        self, connection: Connection, path: str, reply: type[R], metadata: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._reply = reply
        self._stream = connection.request(path, metadata)

    async def write(self, message: Message | bytes) -> None:
        """Send a message, encoded or not. Raises the client's error if it has ended the call."""
        try:
            await self._stream.send(message if isinstance(message, bytes) else message.SerializeToString())
        except WharfError:
            self._check_ended()
            raise

    def _check_ended(self) -> None:
        if self._stream.status_received:
            self.check()

    async def write_all(self, messages: Iterable[Message]) -> None:
        """Send many small messages at once."""
        try:
            await self._stream.send_all(message.SerializeToString() for message in messages)
        except WharfError:
            self._check_ended()
            raise

    async def read(self) -> R | None:
        """Return the next response; ``None`` at the end."""
        data = await self._stream.read()
        return None if data is None else self._reply.FromString(data)

    async def read_buffered(self) -> list[bytes]:
        """Return all unread responses that have arrived, encoded; an empty list at the end."""
        return await self._stream.read_buffered()

    async def drain(self) -> None:
        """Read and drop the remaining responses. Raises the client's error."""
        while await self._stream.read_buffered():
            continue
        self.check()

    def check(self) -> None:
        """Raise the client's error, if it ended the call with one."""
        code, message, _ = self._stream.outcome()
        if code:
            raise from_status(code, message)

    def done_writing(self) -> None:
        """Half-close: no more messages follow."""
        self._stream.done_writing()

    def cancel(self) -> None:
        """Cancel the call."""
        self._stream.cancel()


async def ask(
    connection: Connection,
    path: str,
    request: Message,
    reply: type[R],
    *,
    metadata: Sequence[tuple[str, str]] = (),
    timeout: float | None = None,
) -> R:
    """Make a unary call. Raises the client's error, and UNAVAILABLE if the client disconnects."""
    call = Call(connection, path, reply, metadata)
    try:
        async with asyncio.timeout(timeout):
            await call.write(request)
            call.done_writing()
            answer = await call.read()
            await call.drain()
    except TimeoutError:
        raise WharfError(Kind.DEADLINE_EXCEEDED, f"no answer to {path} after {timeout:g} seconds") from None
    finally:
        call.cancel()
    if answer is None:
        raise internal(f"no answer to {path}")
    return answer


async def unary(connection: Connection, method: str, request: Message, *, timeout: float | None = None) -> Any:
    """:func:`ask` for a method of the table."""
    return await ask(connection, method, request, _TYPES[method], timeout=timeout)


def stream(connection: Connection, method: str, metadata: Sequence[tuple[str, str]] = ()) -> Call[Any]:
    """Start a call that streams in both directions."""
    return Call(connection, method.partition("#")[0], _TYPES[method], metadata)
