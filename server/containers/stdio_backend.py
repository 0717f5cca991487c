"""The process that owns a task's pipes.

With our supervisor it is the shim, which reads a ``wharf://`` URI. A stock containerd's shim knows FIFOs only: there it
is an I/O host, a small process for each container that outlives this daemon.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from engine.api.stdio import Stdio, StdioUri
from engine.common import timeouts
from engine.common.errors import Kind, WharfError, internal
from engine.shim import protocol
from engine.shim.iohost import SOCKET
from engine.shim.protocol import Json, ProtocolError
from engine.shim.zygote import Handle

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TaskStdio:
    """The stdio fields of Tasks.Create and Tasks.Exec: paths or URIs."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""


class StdioBackend(Protocol):
    """The stdio of processes. ``container``: its id. ``exec_id``: "" is the container's first process.

    Only ``open`` raises; the other methods log their errors. An exec by ``engine.api.extensions.run_exec`` needs none
    of these calls.
    """

    async def open(self, container: str, exec_id: str, uri: StdioUri, *, terminal: bool) -> TaskStdio:
        """Makes the pipes; call it before Tasks.Create or Tasks.Exec.

        :raises WharfError: the log or the pipes can't be made.
        """

    async def started(self, container: str, exec_id: str = "") -> None:
        """Call it when the process runs."""

    async def abandoned(self, container: str, exec_id: str = "") -> None:
        """Call it if the process could not be started: returns the clients' sockets."""

    async def ended(self, container: str, exec_id: str = "") -> None:
        """Call it after the exit. Returns when the output is logged and delivered, or a deadline has passed."""

    async def resume(self, container: str) -> list[str]:
        """Call it after a restart of this daemon. Returns the ids of execs for which ``ended`` was not called yet; []
        where the shim owns the pipes."""

    async def discard(self, container: str) -> None:
        """Removes the stdio of a container without a task, in any state."""

    def close(self) -> None:
        """Closes the connections. The processes' stdio stays open."""


class Embedded:
    """The shim's stdio: the shim reads the URI, drains the pipes before the exit event, and closes them with the
    task."""

    async def open(self, container: str, exec_id: str, uri: StdioUri, *, terminal: bool) -> TaskStdio:
        return TaskStdio(stdout=str(uri))

    async def started(self, container: str, exec_id: str = "") -> None:
        return

    async def abandoned(self, container: str, exec_id: str = "") -> None:
        return

    async def ended(self, container: str, exec_id: str = "") -> None:
        return

    async def resume(self, container: str) -> list[str]:
        return []

    async def discard(self, container: str) -> None:
        return

    def close(self) -> None:
        return


def _strings(message: Json, key: str) -> list[str]:
    value = message.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


class _Connection:
    """The connection to one I/O host: requests, answers with the request's number, and events."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_event: Callable[[Json], Awaitable[None]],
        on_close: Callable[[], None],
    ) -> None:
        self._reader, self._writer, self._on_event = reader, writer, on_event
        self._answers: dict[int, asyncio.Future[Json]] = {}
        self._number = 0
        self._task = asyncio.create_task(self._read(on_close), name="iohost")

    async def call(self, operation: str, **fields: object) -> Json:
        """Sends a request and returns the answer.

        :raises WharfError: the I/O host's error; UNAVAILABLE: the connection is closed; DEADLINE_EXCEEDED.
        """
        self._number += 1
        number = self._number
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._writer.write(protocol.encode({"id": number, "op": operation, **fields}))
            async with timeouts.limit("shim.call"):
                await self._writer.drain()
                message = await answer
        except ConnectionError as error:
            raise WharfError(Kind.UNAVAILABLE, "the container's I/O host is gone") from error
        finally:
            self._answers.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # retrieve it: asyncio logs exceptions that nothing retrieves
        failure = message.get("error")
        if isinstance(failure, dict):
            raise WharfError.from_json(failure)
        result = message.get("ok")
        return result if isinstance(result, dict) else {}

    async def _read(self, on_close: Callable[[], None]) -> None:
        decoder = protocol.Decoder()
        try:
            while data := await self._reader.read(65536):
                for message, _ in decoder.feed(data):
                    number = message.get("id")
                    if isinstance(number, int) and number in self._answers:
                        self._answers[number].set_result(message)
                    elif "event" in message:
                        await self._on_event(message)
        except ConnectionError as error:
            log.debug("an I/O host has closed its connection: %s", error)
        except ProtocolError as error:
            log.warning("an I/O host has sent a malformed message: %s", error)
        finally:
            on_close()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(WharfError(Kind.UNAVAILABLE, "the container's I/O host is gone"))
            self._writer.close()

    def close(self) -> None:
        self._task.cancel()


class IoHosts:
    """The I/O hosts of containers on a stock containerd. ``directory`` holds each container's sockets and FIFOs.

    ``close_input(container, exec_id)``: called at the end of a process's input, to close its stdin in the engine.
    """

    def __init__(self, directory: str, zygote: Handle, close_input: Callable[[str, str], Awaitable[None]]) -> None:
        self._directory = directory
        self._zygote = zygote
        self._close_input = close_input
        self._connections: dict[str, _Connection] = {}
        self._lock = asyncio.Lock()

    async def open(self, container: str, exec_id: str, uri: StdioUri, *, terminal: bool) -> TaskStdio:
        request = {"exec_id": exec_id, "socket": uri.socket, "terminal": terminal, "options": dict(uri.options)}
        connection = await self._connect(container, spawn=True)
        try:
            paths = await connection.call("open", **request)
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            # The I/O host was exiting, as it had no other process.
            self._drop(container, connection)
            paths = await (await self._connect(container, spawn=True)).call("open", **request)
        return TaskStdio(**{name: str(paths.get(name, "")) for name in ("stdin", "stdout", "stderr")})

    async def started(self, container: str, exec_id: str = "") -> None:
        answer = await self._request(container, "started", exec_id)
        if answer.get("input_closed"):
            await self._close_input(container, exec_id)

    async def abandoned(self, container: str, exec_id: str = "") -> None:
        await self._request(container, "abandon", exec_id)

    async def ended(self, container: str, exec_id: str = "") -> None:
        await self._request(container, "exited", exec_id)
        try:
            await Stdio(f"{self._directory}/{container}/stdio.sock").drained(exec_id)
        except WharfError as error:
            log.warning("container=%s output is not drained: %s", container, error)
        await self._request(container, "close", exec_id)

    async def resume(self, container: str) -> list[str]:
        try:
            state = await (await self._connect(container, spawn=False)).call("state")
        except WharfError as error:
            log.warning("container=%s I/O host: %s", container, error)
            return []
        for exec_id in _strings(state, "input_closed"):
            await self._close_input(container, exec_id)
        return [exec_id for exec_id in _strings(state, "processes") if exec_id]

    async def discard(self, container: str) -> None:
        await self._request(container, "discard", "")

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    async def _request(self, container: str, operation: str, exec_id: str) -> Json:
        """The answer of a running I/O host; {} if there is none or it answers with an error, which is logged."""
        try:
            return await (await self._connect(container, spawn=False)).call(operation, exec_id=exec_id)
        except WharfError as error:
            if error.kind not in (Kind.NOT_FOUND, Kind.UNAVAILABLE):
                log.warning("container=%s I/O host: %s: %s", container, operation, error)
            return {}

    async def _connect(self, container: str, *, spawn: bool) -> _Connection:
        """The connection to the container's I/O host; ``spawn``: forks one if there is none.

        :raises WharfError: UNAVAILABLE: there is none; INTERNAL: it can't be forked.
        """
        async with self._lock:
            connection = self._connections.get(container)
            if connection is None:
                directory = f"{self._directory}/{container}/io"
                try:
                    sock = await asyncio.to_thread(protocol.connect, f"{directory}/{SOCKET}")
                except OSError:
                    if not spawn:
                        raise WharfError(Kind.UNAVAILABLE, "the container's I/O host is gone") from None
                    sock = await asyncio.to_thread(self._spawn, directory)
                sock.setblocking(False)  # noqa: FBT003 - the socket's own signature
                reader, writer = await asyncio.open_unix_connection(sock=sock)

                async def on_event(message: Json) -> None:
                    if message.get("event") == "stdin-closed":
                        await self._close_input(container, str(message.get("exec_id", "")))

                connection = _Connection(reader, writer, on_event, lambda: self._drop(container, connection))
                self._connections[container] = connection
            return connection

    def _drop(self, container: str, connection: _Connection | None) -> None:
        if self._connections.get(container) is connection:
            self._connections.pop(container, None)

    def _spawn(self, directory: str) -> socket.socket:
        """Forks an I/O host from the zygote, with its sockets in ``directory``; returns the connection to it. Blocks;
        must not be called concurrently."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            protocol.send_blocking(self._zygote.sock, {"what": "iohost", "bundle": directory}, [theirs.fileno()])
            answer = protocol.receive_blocking(self._zygote.sock)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        if answer is None or "pid" not in answer[0]:
            ours.close()
            raise internal("the zygote could not fork an I/O host for the container")
        return ours
