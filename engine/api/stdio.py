"""The daemon's side of a container's stdio: passes clients' sockets to the process that owns the container's pipes (our
shim, or the I/O host beside a stock containerd) and reports how their sessions ended.

Stream bytes never pass through here. A relay (TLS, websocket) creates a socket pair and passes one end.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, invalid
from engine.common.system.fds import ready
from engine.shim import protocol
from engine.shim.protocol import Json, ProtocolError

SCHEME = "wharf"

#: Seconds until a connect to a listener with a full queue is retried; the kernel has no notification for free space.
_CONNECT_AGAIN = 0.01


class SessionEnd(Enum):
    """How a client's session ended."""

    EOF = "eof"
    """The process exited and all its output was delivered."""
    DETACHED = "detached"
    """The client typed the detach keys."""
    GONE = "gone"
    """The client left, or (without stdin-once) closed its input."""
    UNSTARTED = "unstarted"
    """The process could not be started. Only the head was written and the socket was not shut down: a caller with a
    copy of the socket can still write to the client."""

    @classmethod
    def from_message(cls, message: Json) -> "SessionEnd":
        """Parses the frame that ends a session; GONE for a value of a later shim version."""
        try:
            return cls(message.get("ended"))
        except ValueError:
            return cls.GONE


@dataclass(frozen=True, slots=True)
class Attach:
    """The options of one client's session. ``head`` is written before all output, ``early`` is input read before the
    rest. ``hold_output``: the output is kept back until :meth:`AttachSession.release_output`."""

    exec_id: str = ""
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    framed: bool = False
    detach_keys: bytes = b""
    early: bytes = b""
    head: bytes = b""
    hold_output: bool = False

    def to_json(self) -> dict[str, object]:
        """The JSON that the shim's ``attach.AttachRequest`` reads; head and early bytes follow as the frame's tail."""
        return {
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "framed": self.framed,
            "detach_keys": self.detach_keys.hex(),
            "head": len(self.head),
            "held": self.hold_output,
        }


@dataclass(frozen=True, slots=True)
class StdioUri:
    """A task's ``stdout`` as ``wharf:///path/of/stdio.sock?driver=…``; see ``engine.shim.logs.opening.open_log``."""

    socket: str
    options: Mapping[str, str]

    def __str__(self) -> str:
        return f"{SCHEME}://{quote(self.socket)}?{urlencode(dict(self.options))}"

    @classmethod
    def parse(cls, text: str) -> "StdioUri":
        """Raises INVALID_ARGUMENT if the text is not such a URI."""
        parts = urlsplit(text)
        # unquote: urlsplit leaves the path quoted.
        if parts.scheme != SCHEME or parts.netloc or not parts.path.startswith("/"):
            raise invalid(f"invalid stdio URI {text!r}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        return cls(unquote(parts.path), options)


def _refusal(message: Mapping[str, object]) -> WharfError | None:
    error = message.get("error")
    return WharfError.from_json(error) if isinstance(error, dict) else None


async def _connect(sock: socket.socket, address: str) -> None:
    """Not ``loop.sock_connect``: it takes a listener's full queue (EAGAIN) for a connection in progress."""
    while True:
        try:
            sock.connect(address)
        except BlockingIOError:
            await asyncio.sleep(_CONNECT_AGAIN)
        else:
            return


class StdioConnection:
    """One connection to a stdio socket: sends a request, then receives frames until the peer closes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sock: socket.socket | None = None
        self.peer = 0  # the pid of the process that listens there
        self._decoder = protocol.Decoder()
        self._frames: list[Json] = []
        # Received descriptors that no caller has taken yet.
        self.fds: list[int] = []

    async def open(self) -> None:
        try:
            directory = os.open(os.path.dirname(self._path), os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            raise WharfError(Kind.UNAVAILABLE, f"stdio of the container: {error.strerror}") from None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # Through the directory's descriptor: the path may be longer than a socket address can be.
            await _connect(sock, f"/proc/self/fd/{directory}/{os.path.basename(self._path)}")
        except OSError as error:
            sock.close()
            raise WharfError(Kind.UNAVAILABLE, f"stdio of the container: {error.strerror}") from None
        except BaseException:
            sock.close()
            raise
        finally:
            os.close(directory)
        self._sock = sock
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.peer = int(struct.unpack("iII", credentials)[0])

    async def send(self, message: Mapping[str, object], tail: bytes = b"", fds: Sequence[int] = ()) -> None:
        assert self._sock is not None
        data = protocol.encode(message, tail)
        try:
            # The socket buffer of a new connection is empty: it accepts the first bytes, with the descriptors, at once.
            sent = protocol.send_with_fds(self._sock, data, fds)
            if sent < len(data):
                await asyncio.get_running_loop().sock_sendall(self._sock, data[sent:])
        except OSError as error:
            raise WharfError(Kind.UNAVAILABLE, f"stdio of the container: {error.strerror}") from None

    async def receive(self) -> Json | None:
        """The next frame, ``None`` when the peer closed. Raises WharfError when the peer refused the request."""
        while not self._frames:
            try:
                data = await self._receive()
                if not data:
                    return None
                self._frames.extend(message for message, _tail in self._decoder.feed(data))
            except ConnectionError:
                return None
            except ProtocolError as error:
                raise WharfError(Kind.INTERNAL, f"stdio of the container: {error}") from None
        message = self._frames.pop(0)
        refusal = _refusal(message)
        if refusal is not None:
            raise refusal
        return message

    async def _receive(self) -> bytes:
        assert self._sock is not None
        while True:
            try:
                data, fds = protocol.receive_with_fds(self._sock, 4096)
            except BlockingIOError:
                await ready(self._sock, write=False)
                continue
            self.fds.extend(fds)
            return data

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self.close_fds()

    def close_fds(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


@dataclass(frozen=True, slots=True)
class LogMark:
    """The end of a log: ``size`` bytes of the file behind ``fd``, which the connection owns until it is closed, and for
    each stream the ``rest``, an unfinished line."""

    fd: int
    size: int
    rest: Mapping[str, bytes]

    @classmethod
    def parse(cls, value: object, fds: Sequence[int]) -> "LogMark | None":
        if not isinstance(value, dict) or not value or not fds:
            return None
        rest = {stream: bytes.fromhex(text) for stream, text in value["rest"].items() if text}
        return cls(fds[0], int(value["size"]), rest)


class AttachSession:
    """A client whose socket was passed on. Await ``ended`` (or call ``abandon``) to free the connection."""

    def __init__(self, connection: StdioConnection, mark: "LogMark | None" = None) -> None:
        self._connection = connection
        #: Of a ``hold_output`` session: the end of the log when the session joined. None: there is no log file.
        self.mark = mark

    def forget_mark(self) -> None:
        """Closes the mark's file."""
        self.mark = None
        self._connection.close_fds()

    async def release_output(self) -> None:
        """Releases the output of a ``hold_output`` session. Does nothing if the shim has exited."""
        with contextlib.suppress(WharfError):
            await self._connection.send({"op": "go"})

    async def ended(self) -> SessionEnd:
        """Waits without a limit for the session's end. A shim that exits counts as GONE. Cancelling the wait closes the
        connection; the session continues unobserved."""
        try:
            message = await self._connection.receive()
        finally:
            self._connection.close()
        return SessionEnd.GONE if message is None else SessionEnd.from_message(message)

    def abandon(self) -> None:
        """Stops waiting for the end; the client stays attached."""
        self._connection.close()


class Stdio:
    """The stdio of one container, by the path of its socket: each call opens a connection of its own."""

    def __init__(self, path: str) -> None:
        self.path = path

    async def open(self, attach: Attach, client: socket.socket) -> AttachSession:
        """Passes a copy of ``client`` to the shim: the caller may close its own at once. When this returns, the session
        gets all output that is read from now on; to lose nothing, open after Create (or Exec) and before Start.

        NOT_FOUND: no such process. UNAVAILABLE: no process serves the container's stdio, or it has exited.
        """
        connection = StdioConnection(self.path)
        request = {"op": "attach", "exec_id": attach.exec_id, **attach.to_json()}
        try:
            async with timeouts.limit("stdio.handover"):
                await connection.open()
                await connection.send(request, attach.head + attach.early, [client.fileno()])
                answer = await connection.receive()
            if answer is None:
                raise WharfError(Kind.UNAVAILABLE, "stdio of the container: closed")
        except BaseException:
            connection.close()
            raise
        return AttachSession(connection, LogMark.parse(answer.get("log"), connection.fds))

    async def attach(self, client: socket.socket, attach: Attach) -> SessionEnd:
        """``open`` and ``ended`` in one."""
        session = await self.open(attach, client)
        return await session.ended()

    async def note(self, line: str) -> None:
        """Writes a line into the log of the container's first process, and to its clients.

        UNAVAILABLE, NOT_FOUND: the container has exited. NOT_IMPLEMENTED: a shim of an earlier version.
        """
        await self._ask({"op": "note", "line": line})

    async def clients(self) -> int:
        """The number of clients that are attached to the container's first process. Errors: as ``note``."""
        return protocol.integer(await self._ask({"op": "clients"}), "clients")

    async def usage(self) -> Json:
        """``cpu_ns`` and ``memory`` (the most bytes at a time) of a container that has exited, if its URI has the
        option ``usage=1``; {} else. Errors: as ``note``."""
        return protocol.mapping(await self._ask({"op": "usage"}), "usage")

    async def _ask(self, request: Json, *, deadline: str = "stdio.handover") -> Json:
        connection = StdioConnection(self.path)
        try:
            async with timeouts.limit(deadline):
                await connection.open()
                await connection.send(request)
                answer = await connection.receive()
        finally:
            connection.close()
        if answer is None:
            raise WharfError(Kind.UNAVAILABLE, "stdio of the container: closed")
        return answer

    async def drained(self, exec_id: str = "") -> None:
        """Waits until all output of the exited process was read, logged and delivered.

        DEADLINE_EXCEEDED: a client doesn't read. A process that is forgotten, or a shim that has exited, has nothing to
        deliver.
        """
        try:
            await self._ask({"op": "drained", "exec_id": exec_id}, deadline="stdio.drain")
        except WharfError as error:
            if error.kind not in {Kind.NOT_FOUND, Kind.UNAVAILABLE}:
                raise
