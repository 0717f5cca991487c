"""``docker attach``: a client's socket joins the container's streams, now or when the container starts.

A client may come before start (``docker run`` does): its socket waits here and is handed over between the task's
creation and its first instruction, so that not a byte is missed.
"""

import asyncio
import contextlib
import logging
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.api.stdio import Attach as Wishes
from engine.api.stdio import AttachSession, LogMark, SessionEnd, Stdio
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
class Wanted:
    """``logs``: what was written before. ``stream``: what is written from now on (and input)."""

    logs: bool = False
    stream: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: str = ""


class _Pending:
    """A client that waits for the container's start. ``session`` None: it has gone, or there is no start."""

    def __init__(self, stdio: Stdio, wishes: Wishes, client: Client) -> None:
        self.session: asyncio.Future[AttachSession | None] = asyncio.get_running_loop().create_future()
        self._stdio = stdio
        self._wishes = wishes
        self._client = client

    async def hand_over(self) -> None:
        """Called by start."""
        if self.session.done():
            return
        try:
            session = await self._stdio.open(self._wishes, self._client.sock)
        except WharfError as error:
            log.warning("a client could not be attached: %s", error)
            self.give_up()
            return
        if self.session.done():
            session.abandon()
        else:
            self.session.set_result(session)

    def give_up(self) -> None:
        if not self.session.done():
            self.session.set_result(None)

    def leave(self) -> None:
        """Nobody waits for the session any more."""
        self.give_up()
        if not self.session.cancelled() and (session := self.session.result()) is not None:
            session.abandon()


def _streaming(container: Container) -> bool:
    """Whether there is a process to attach to now; one that is about to start counts when it takes clients no more
    from those who wait."""
    return container.joinable or (container.state.running and not container.state.restarting)


@contextlib.contextmanager
def _log_now(container: Container) -> Iterator[End]:
    """Where the log ends now."""
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
        self._waiting: dict[int, _Pending] = {}
        for hooks in (context.hooks.start_failed, context.hooks.removed):
            hooks.append(self._never)

    def check(self, container: Container, key: str, wanted: Wanted) -> None:
        """What is refused before the connection is taken over.

        :raises WharfError: INVALID_ARGUMENT for bad detach keys, CONFLICT for a state.
        """
        if wanted.detach_keys:
            parse_keys(wanted.detach_keys)
        if container.state.paused:
            raise conflict(f"container {key} is paused, unpause the container before attach")
        if container.state.restarting:
            raise conflict(f"container {key} is restarting, wait until the container is running")

    async def attach(self, container: Container, wanted: Wanted, client: Client, *, framed: bool) -> None:
        """Serves the client to its end and closes its socket.

        Where the container runs, the head goes out with the session: who has read it misses no output.
        """
        if wanted.logs and wanted.stream:
            session = await self._with_log(container, wanted, client, framed=framed)
        else:
            session = await self._with_one(container, wanted, client, framed=framed)
        if session is None:
            await client.finish(client.head)
            return
        client.sock.close()
        if await session.ended() is SessionEnd.DETACHED:
            self._context.publish(container, "detach")

    async def _with_one(
        self, container: Container, wanted: Wanted, client: Client, *, framed: bool
    ) -> AttachSession | None:
        """The log or the session; None: there is no session (any more)."""
        try:
            if not wanted.stream or not _streaming(container):
                await client.send_head()
            if wanted.logs:
                await self._replay(container, wanted, client, None, framed=framed)
        except (OSError, WharfError) as error:
            # The head is out: dockerd, too, has only its log left to tell.
            log.info("container=%s attach: %s", container.id, error)
            return None
        self._context.publish(container, "attach")
        if not wanted.stream:
            return None
        wishes = self._wishes(container, wanted, client, framed=framed)
        if _streaming(container):
            return await self._join(container, wishes, client)
        with self._registered(container, wishes, client) as pending:
            return await pending.session

    async def _with_log(
        self, container: Container, wanted: Wanted, client: Client, *, framed: bool
    ) -> AttachSession | None:
        """The log up to where the session joins, and lines that had no end yet; then the session's own output, so that
        nothing is lost and nothing comes twice. None: there is no session (any more)."""
        session: AttachSession | None = None
        # Held: until the log is told, and the head before it, the session writes nothing.
        wishes = replace(self._wishes(container, wanted, client, framed=framed), hold_output=True, head=b"")
        try:
            if _streaming(container):
                self._context.publish(container, "attach")
                session = await self._join(container, wishes, client)
                await client.send_head()
                if session is None:
                    # It has just ended: what it has written is in the log.
                    await self._replay(container, wanted, client, None, framed=framed)
                    return None
                await self._before(container, wanted, session.mark, client, framed=framed)
            else:
                # A start knows of the client before anything is awaited: not a byte may pass it by.
                with self._registered(container, wishes, client) as pending, _log_now(container) as end:
                    await client.send_head()
                    await self._replay(container, wanted, client, end, framed=framed)
                    self._context.publish(container, "attach")
                    session = await pending.session
        except (OSError, WharfError) as error:
            log.info("container=%s attach: %s", container.id, error)
        if session is not None:
            session.forget_mark()
            await session.release_output()
        return session

    async def _replay(
        self, container: Container, wanted: Wanted, client: Client, end: End | None, *, framed: bool
    ) -> None:
        query = Query(stdout=wanted.stdout, stderr=wanted.stderr, framed=framed)
        async for data in self._logs.open(container, query, end):
            await client.send(data)

    async def _before(
        self, container: Container, wanted: Wanted, mark: LogMark | None, client: Client, *, framed: bool
    ) -> None:
        """What was written before a session joined."""
        if mark is None:
            return
        await self._replay(container, wanted, client, End(mark.fd, mark.size), framed=framed)
        for stream, data in mark.rest.items():
            if wanted.stdout if stream == "stdout" else wanted.stderr:
                await client.send((header(stream, len(data)) if framed else b"") + data)

    def _wishes(self, container: Container, wanted: Wanted, client: Client, *, framed: bool) -> Wishes:
        config = container.config
        keys = b""
        if config.tty:
            keys = parse_keys(wanted.detach_keys) if wanted.detach_keys else DEFAULT_KEYS
        return Wishes(
            stdin=wanted.stdin and config.open_stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr,
            framed=framed,
            detach_keys=keys,
            early=client.early,
            head=client.head,
        )

    async def _join(self, container: Container, wishes: Wishes, client: Client) -> AttachSession | None:
        """Of a container that runs; None: it has just ended."""
        try:
            return await Stdio(socket_path(self._context, container)).open(wishes, client.sock)
        except WharfError as error:
            log.info("container=%s attach: %s", container.id, error)
            return None

    @contextlib.contextmanager
    def _registered(self, container: Container, wishes: Wishes, client: Client) -> Iterator[_Pending]:
        """A client that the next start hands over."""
        pending = _Pending(Stdio(socket_path(self._context, container)), wishes, client)
        waiting = self._pending.setdefault(container.id, set())
        waiting.add(pending)
        container.before_start.append(pending.hand_over)
        fd = client.sock.fileno()
        self._watch(fd, pending)
        try:
            yield pending
        except BaseException:
            pending.leave()
            raise
        finally:
            self._unwatch(fd)
            waiting.discard(pending)
            if not waiting:
                self._pending.pop(container.id, None)
            with contextlib.suppress(ValueError):
                container.before_start.remove(pending.hand_over)

    def _never(self, container: Container) -> None:
        for pending in self._pending.get(container.id, ()):
            pending.give_up()

    # A client that closes its connection before start must not be kept until then. Its input, though, may lie
    # unread in the socket: only the hangup is asked for.

    def _watch(self, fd: int, pending: _Pending) -> None:
        if self._hangups is None:
            self._hangups = select.epoll()
            asyncio.get_running_loop().add_reader(self._hangups.fileno(), self._hung_up)
        self._waiting[fd] = pending
        self._hangups.register(fd, 0)

    def _unwatch(self, fd: int) -> None:
        if self._waiting.pop(fd, None) is not None and self._hangups is not None:
            with contextlib.suppress(OSError):
                self._hangups.unregister(fd)

    def _hung_up(self) -> None:
        assert self._hangups is not None
        for fd, _ in self._hangups.poll(0):
            pending = self._waiting.get(fd)
            self._unwatch(fd)
            if pending is not None:
                pending.give_up()

    def close(self) -> None:
        """Lets all go that still wait for a start."""
        for waiting in list(self._pending.values()):
            for pending in list(waiting):
                pending.give_up()
        if self._hangups is not None:
            asyncio.get_running_loop().remove_reader(self._hangups.fileno())
            self._hangups.close()
            self._hangups = None
