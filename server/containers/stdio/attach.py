"""``docker attach``: the container's stdio gets the client's socket, now or when the container starts.

``docker run`` attaches before the start: the stdio gets such a client's socket between the task's creation and its
start, so that the client misses no output.
"""

import asyncio
import contextlib
import logging
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.api.stdio import Attach, AttachSession, LogMark, SessionEnd, Stdio
from engine.common.errors import WharfError, conflict
from server.containers.context import ContainerContext
from server.containers.logs.config import log_file
from server.containers.logs.follow import Logs
from server.containers.logs.format import Query, header
from server.containers.logs.reader import End
from server.containers.model import Container
from server.containers.stdio.client import DEFAULT_KEYS, Client, parse_keys
from server.containers.stdio.stdio import socket_path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachRequest:
    """The query of ``POST /containers/{id}/attach``. ``logs``: the output until now. ``stream``: the input, and the
    output from now on."""

    logs: bool = False
    stream: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: str = ""


class _Pending:
    """A client that waits for the container's start.

    ``session``: completes at the start; None: the client has closed the connection, or the container was not started.
    """

    def __init__(self, stdio: Stdio, options: Attach, client: Client) -> None:
        self.session: asyncio.Future[AttachSession | None] = asyncio.get_running_loop().create_future()
        self._stdio = stdio
        self._options = options
        self._client = client

    async def join(self) -> None:
        """Opens the session; called between the task's creation and its start."""
        if self.session.done():
            return
        try:
            session = await self._stdio.open(self._options, self._client.sock)
        except WharfError as error:
            log.warning("a client could not be attached: %s", error)
            self.cancel()
            return
        if self.session.done():
            session.abandon()
        else:
            self.session.set_result(session)

    def cancel(self) -> None:
        """Ends the wait without a session."""
        if not self.session.done():
            self.session.set_result(None)

    def abandon(self) -> None:
        """Ends the wait, or abandons the session that was opened."""
        self.cancel()
        if not self.session.cancelled() and (session := self.session.result()) is not None:
            session.abandon()


def _has_stdio(container: Container) -> bool:
    """Whether a client can join the stdio now: the container runs, or start has called ``before_start`` already."""
    return container.joinable or (container.state.running and not container.state.restarting)


@contextlib.contextmanager
def _log_end(container: Container) -> Iterator[End]:
    """The current end of the log."""
    try:
        fd = os.open(log_file(container), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield End(-1, 0)
        return
    try:
        yield End(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


class Attachments:
    """Attaches clients to containers."""

    def __init__(self, context: ContainerContext, logs: Logs) -> None:
        self._context = context
        self._logs = logs
        self._pending: dict[str, set[_Pending]] = {}
        self._hangups: select.epoll | None = None
        self._by_fd: dict[int, _Pending] = {}
        for hooks in (context.hooks.start_failed, context.hooks.removed):
            hooks.append(self._not_started)

    def check(self, container: Container, key: str, request: AttachRequest) -> None:
        """Checks a request before its connection is hijacked. ``key``: the container's name or id in the request.

        :raises WharfError: INVALID_ARGUMENT: bad detach keys; CONFLICT: the container is paused or restarting.
        """
        if request.detach_keys:
            parse_keys(request.detach_keys)
        if container.state.paused:
            raise conflict(f"container {key} is paused, unpause the container before attach")
        if container.state.restarting:
            raise conflict(f"container {key} is restarting, wait until the container is running")

    async def attach(self, container: Container, request: AttachRequest, client: Client, *, framed: bool) -> None:
        """Serves the client until its session ends, and closes its socket. ``framed``: the output is in stdcopy frames.

        If the container runs, the stdio sends the head when the session begins: a client that has read the head misses
        no output.
        """
        if request.logs and request.stream:
            session = await self._log_and_stream(container, request, client, framed=framed)
        else:
            session = await self._log_or_stream(container, request, client, framed=framed)
        if session is None:
            await client.finish(client.head)
            return
        client.sock.close()
        if await session.ended() is SessionEnd.DETACHED:
            self._context.publish(container, "detach")

    async def _log_or_stream(
        self, container: Container, request: AttachRequest, client: Client, *, framed: bool
    ) -> AttachSession | None:
        """Sends the log, or opens a session. None: no session is open."""
        try:
            if not request.stream or not _has_stdio(container):
                await client.send_head()
            if request.logs:
                await self._send_log(container, request, client, None, framed=framed)
        except (OSError, WharfError) as error:
            # The head is sent: the error can only be logged, as in dockerd.
            log.info("container=%s attach: %s", container.id, error)
            return None
        self._context.publish(container, "attach")
        if not request.stream:
            return None
        options = self._attach_options(container, request, client, framed=framed)
        if _has_stdio(container):
            return await self._join(container, options, client)
        with self._registered(container, options, client) as pending:
            return await pending.session

    async def _log_and_stream(
        self, container: Container, request: AttachRequest, client: Client, *, framed: bool
    ) -> AttachSession | None:
        """Opens a session and sends the log until there, with incomplete lines; then the session sends its output. So
        no byte is lost or sent twice. None: no session is open."""
        session: AttachSession | None = None
        # hold_output: the session must not write before the head and the log are sent.
        options = replace(self._attach_options(container, request, client, framed=framed), hold_output=True, head=b"")
        try:
            if _has_stdio(container):
                self._context.publish(container, "attach")
                session = await self._join(container, options, client)
                await client.send_head()
                if session is None:
                    # The container has exited: all its output is in the log.
                    await self._send_log(container, request, client, None, framed=framed)
                    return None
                await self._send_until(container, request, session.mark, client, framed=framed)
            else:
                # Register before the first await: a start in between would not call the client's join().
                with self._registered(container, options, client) as pending, _log_end(container) as end:
                    await client.send_head()
                    await self._send_log(container, request, client, end, framed=framed)
                    self._context.publish(container, "attach")
                    session = await pending.session
        except (OSError, WharfError) as error:
            log.info("container=%s attach: %s", container.id, error)
        if session is not None:
            session.forget_mark()
            await session.release_output()
        return session

    async def _send_log(
        self, container: Container, request: AttachRequest, client: Client, end: End | None, *, framed: bool
    ) -> None:
        query = Query(stdout=request.stdout, stderr=request.stderr, framed=framed)
        async for data in self._logs.open(container, query, end):
            await client.send(data)

    async def _send_until(
        self, container: Container, request: AttachRequest, mark: LogMark | None, client: Client, *, framed: bool
    ) -> None:
        """Sends the output until ``mark``, where a session begins: the log, and the lines that it doesn't have yet."""
        if mark is None:
            return
        await self._send_log(container, request, client, End(mark.fd, mark.size), framed=framed)
        for stream, data in mark.rest.items():
            if request.stdout if stream == "stdout" else request.stderr:
                await client.send((header(stream, len(data)) if framed else b"") + data)

    def _attach_options(self, container: Container, request: AttachRequest, client: Client, *, framed: bool) -> Attach:
        config = container.config
        keys = b""
        if config.tty:
            keys = parse_keys(request.detach_keys) if request.detach_keys else DEFAULT_KEYS
        return Attach(
            stdin=request.stdin and config.open_stdin,
            stdout=request.stdout,
            stderr=request.stderr,
            framed=framed,
            detach_keys=keys,
            early=client.early,
            head=client.head,
        )

    async def _join(self, container: Container, options: Attach, client: Client) -> AttachSession | None:
        """Opens a session with a running container; None: it has just exited."""
        try:
            return await Stdio(socket_path(self._context, container)).open(options, client.sock)
        except WharfError as error:
            log.info("container=%s attach: %s", container.id, error)
            return None

    @contextlib.contextmanager
    def _registered(self, container: Container, options: Attach, client: Client) -> Iterator[_Pending]:
        """A client for which the next start opens a session."""
        pending = _Pending(Stdio(socket_path(self._context, container)), options, client)
        waiting = self._pending.setdefault(container.id, set())
        waiting.add(pending)
        container.before_start.append(pending.join)
        fd = client.sock.fileno()
        self._watch(fd, pending)
        try:
            yield pending
        except BaseException:
            pending.abandon()
            raise
        finally:
            self._unwatch(fd)
            waiting.discard(pending)
            if not waiting:
                self._pending.pop(container.id, None)
            with contextlib.suppress(ValueError):
                container.before_start.remove(pending.join)

    def _not_started(self, container: Container) -> None:
        for pending in self._pending.get(container.id, ()):
            pending.cancel()

    # A client that closes its connection before the start must not wait for it. Its input may be unread in the socket,
    # so epoll reports only the hangup (an event mask of 0).

    def _watch(self, fd: int, pending: _Pending) -> None:
        if self._hangups is None:
            self._hangups = select.epoll()
            asyncio.get_running_loop().add_reader(self._hangups.fileno(), self._hung_up)
        self._by_fd[fd] = pending
        self._hangups.register(fd, 0)

    def _unwatch(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None and self._hangups is not None:
            with contextlib.suppress(OSError):
                self._hangups.unregister(fd)

    def _hung_up(self) -> None:
        assert self._hangups is not None
        for fd, _ in self._hangups.poll(0):
            pending = self._by_fd.get(fd)
            self._unwatch(fd)
            if pending is not None:
                pending.cancel()

    def close(self) -> None:
        """Ends the wait of all clients that wait for a start."""
        for waiting in list(self._pending.values()):
            for pending in list(waiting):
                pending.cancel()
        if self._hangups is not None:
            asyncio.get_running_loop().remove_reader(self._hangups.fileno())
            self._hangups.close()
            self._hangups = None
