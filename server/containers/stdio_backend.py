"""Who owns a task's pipes: our own shim, told by a ``wharf://`` URI; or, beside a stock containerd whose shim knows
FIFOs only, an I/O host: one small process for each container that outlives this daemon.
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
    """What Tasks.Create and Tasks.Exec are given."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""


class StdioBackend(Protocol):
    """``exec_id`` "" is the container's first process. Only ``open`` fails; the rest is best effort. An exec that the
    shim runs by itself (``engine.api.extensions.run_exec``) needs none of these calls."""

    async def open(self, container: str, exec_id: str, uri: StdioUri, *, terminal: bool) -> TaskStdio:
        """Before Create or Exec. :raises WharfError: the log or the pipes can't be made."""

    async def started(self, container: str, exec_id: str = "") -> None:
        """The process runs."""

    async def abandoned(self, container: str, exec_id: str = "") -> None:
        """It will never run: clients get their sockets back."""

    async def ended(self, container: str, exec_id: str = "") -> None:
        """It has ended; returns when its output was read, logged and delivered (or a deadline passed)."""

    async def resume(self, container: str) -> list[str]:
        """After a restart of this daemon: goes on where the last one stopped, and returns the execs that are not
        done with (as far as somebody beside the engine knows them)."""

    async def discard(self, container: str) -> None:
        """It does not run, and nobody knows what is left of its stdio."""

    def close(self) -> None: ...


class Embedded:
    """Our shim does it all by itself: it reads the URI, drains before it tells the exit, forgets with the task."""

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


class _Line:
    """The connection to one I/O host: requests with numbered answers, and notices in between."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        notice: Callable[[Json], Awaitable[None]],
        gone: Callable[[], None],
    ) -> None:
        self._reader, self._writer, self._notice = reader, writer, notice
        self._answers: dict[int, asyncio.Future[Json]] = {}
        self._number = 0
        self._task = asyncio.create_task(self._read(gone), name="iohost")

    async def call(self, operation: str, **fields: object) -> Json:
        """:raises WharfError: of the kind that the host answered; UNAVAILABLE if it is gone."""
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
                answer.exception()  # told by what was raised while it was sent
        failure = message.get("error")
        if isinstance(failure, dict):
            raise WharfError.from_json(failure)
        result = message.get("ok")
        return result if isinstance(result, dict) else {}

    async def _read(self, gone: Callable[[], None]) -> None:
        decoder = protocol.Decoder()
        try:
            while data := await self._reader.read(65536):
                for message, _ in decoder.feed(data):
                    number = message.get("id")
                    if isinstance(number, int) and number in self._answers:
                        self._answers[number].set_result(message)
                    elif "event" in message:
                        await self._notice(message)
        except ConnectionError as error:
            log.debug("an I/O host has left: %s", error)
        except ProtocolError as error:
            log.warning("an I/O host's line: %s", error)
        finally:
            gone()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(WharfError(Kind.UNAVAILABLE, "the container's I/O host is gone"))
            self._writer.close()

    def close(self) -> None:
        self._task.cancel()


class IoHosts:
    """I/O hosts beside a stock containerd. ``directory`` holds each container's sockets and FIFOs.

    ``close_input(container, exec_id)`` tells the engine that a process's input has ended.
    """

    def __init__(self, directory: str, zygote: Handle, close_input: Callable[[str, str], Awaitable[None]]) -> None:
        self._directory = directory
        self._zygote = zygote
        self._close_input = close_input
        self._lines: dict[str, _Line] = {}
        self._lock = asyncio.Lock()

    def _place(self, container: str) -> str:
        return f"{self._directory}/{container}/io"

    async def open(self, container: str, exec_id: str, uri: StdioUri, *, terminal: bool) -> TaskStdio:
        request = {"exec_id": exec_id, "socket": uri.socket, "terminal": terminal, "options": dict(uri.options)}
        line = await self._line(container, spawn=True)
        try:
            paths = await line.call("open", **request)
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            # It was about to leave when we asked, as it had no other process.
            self._forget(container, line)
            paths = await (await self._line(container, spawn=True)).call("open", **request)
        return TaskStdio(**{name: str(paths.get(name, "")) for name in ("stdin", "stdout", "stderr")})

    async def started(self, container: str, exec_id: str = "") -> None:
        answer = await self._tell(container, "started", exec_id)
        if answer.get("input_closed"):
            await self._close_input(container, exec_id)

    async def abandoned(self, container: str, exec_id: str = "") -> None:
        await self._tell(container, "abandon", exec_id)

    async def ended(self, container: str, exec_id: str = "") -> None:
        await self._tell(container, "exited", exec_id)
        try:
            await Stdio(f"{self._directory}/{container}/stdio.sock").drained(exec_id)
        except WharfError as error:
            log.warning("container=%s output is not drained: %s", container, error)
        await self._tell(container, "close", exec_id)

    async def resume(self, container: str) -> list[str]:
        try:
            state = await (await self._line(container, spawn=False)).call("state")
        except WharfError as error:
            log.warning("container=%s I/O host: %s", container, error)
            return []
        for exec_id in _strings(state, "input_closed"):
            await self._close_input(container, exec_id)
        return [exec_id for exec_id in _strings(state, "processes") if exec_id]

    async def discard(self, container: str) -> None:
        await self._tell(container, "discard", "")

    def close(self) -> None:
        for line in self._lines.values():
            line.close()

    async def _tell(self, container: str, operation: str, exec_id: str) -> Json:
        try:
            return await (await self._line(container, spawn=False)).call(operation, exec_id=exec_id)
        except WharfError as error:
            if error.kind not in (Kind.NOT_FOUND, Kind.UNAVAILABLE):
                log.warning("container=%s I/O host: %s: %s", container, operation, error)
            return {}

    async def _line(self, container: str, *, spawn: bool) -> _Line:
        async with self._lock:
            line = self._lines.get(container)
            if line is None:
                place = self._place(container)
                try:
                    sock = await asyncio.to_thread(protocol.connect, f"{place}/{SOCKET}")
                except OSError:
                    if not spawn:
                        raise WharfError(Kind.UNAVAILABLE, "the container's I/O host is gone") from None
                    sock = await asyncio.to_thread(self._spawn, place)
                sock.setblocking(False)  # noqa: FBT003 - the socket's own signature
                reader, writer = await asyncio.open_unix_connection(sock=sock)

                async def notice(message: Json) -> None:
                    if message.get("event") == "stdin-closed":
                        await self._close_input(container, str(message.get("exec_id", "")))

                line = _Line(reader, writer, notice, lambda: self._forget(container, line))
                self._lines[container] = line
            return line

    def _forget(self, container: str, line: _Line | None) -> None:
        if self._lines.get(container) is line:
            self._lines.pop(container, None)

    def _spawn(self, place: str) -> socket.socket:
        """Has the zygote fork a host that lives in ``place``. Blocks; one at a time."""
        os.makedirs(place, mode=0o700, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            protocol.send_blocking(self._zygote.sock, {"what": "iohost", "bundle": place}, [theirs.fileno()])
            answer = protocol.receive_blocking(self._zygote.sock)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        if answer is None or "pid" not in answer[0]:
            ours.close()
            raise internal("no I/O host could be made for the container")
        return ours
