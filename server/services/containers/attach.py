"""``docker attach``: a client's socket joins the container's streams, now or when the container starts.

A client may come before start (``docker run`` does): its socket waits here and is handed over between the task's
creation and its first instruction, so that not a byte is missed.
"""

import asyncio
import contextlib
import logging
import select
from dataclasses import dataclass

from engine.api.stdio import Attach as Wishes
from engine.api.stdio import AttachSession, Ending, Stdio
from engine.errors import WharfError, conflict
from server.services.containers.client import DEFAULT_KEYS, Client, parse_keys
from server.services.containers.log_format import Query, header
from server.services.containers.logs import Logs
from server.services.containers.model import Container
from server.services.containers.room import Room
from server.services.containers.stdio import socket_path

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


def _streaming(container: Container) -> bool:
    """Whether there is a process to attach to now."""
    return container.state.running and not container.state.restarting


class Attachments:
    """Attaches clients to containers."""

    def __init__(self, room: Room, logs: Logs) -> None:
        self._room = room
        self._logs = logs
        self._pending: dict[str, set[_Pending]] = {}
        self._hangups: select.epoll | None = None
        self._waiting: dict[int, _Pending] = {}
        for hooks in (room.hooks.start_failed, room.hooks.removed):
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
        joins = wanted.logs and wanted.stream and _streaming(container)
        try:
            if wanted.logs or not wanted.stream or not _streaming(container):
                await client.send_head()
            if wanted.logs and not joins:
                await self._replay(container, Query(stdout=wanted.stdout, stderr=wanted.stderr, framed=framed), client)
        except (OSError, WharfError) as error:
            # The head is out: dockerd, too, has only its log left to tell.
            log.info("container=%s attach: %s", container.id, error)
            await client.finish()
            return
        self._room.publish(container, "attach")
        if not wanted.stream:
            await client.finish()
            return
        wishes = self._wishes(container, wanted, client, framed=framed, held=joins)
        session = await self._join(container, wishes, client)
        if session is None:
            await client.finish(client.head)
            return
        if joins:
            await self._before(container, wanted, session, client, framed=framed)
        client.sock.close()
        if await session.ended() is Ending.DETACHED:
            self._room.publish(container, "detach")

    async def _replay(self, container: Container, query: Query, client: Client) -> None:
        async for data in self._logs.open(container, query):
            await client.send(data)

    async def _before(
        self, container: Container, wanted: Wanted, session: AttachSession, client: Client, *, framed: bool
    ) -> None:
        """What was written before the session joined: the log up to there, and lines that had no end yet. Then the
        session's own output follows, so that nothing is lost and nothing comes twice."""
        mark = session.mark
        try:
            end = (mark.inode, mark.size) if mark is not None else None
            query = Query(stdout=wanted.stdout, stderr=wanted.stderr, framed=framed, end=end)
            await self._replay(container, query, client)
            for stream, data in (mark.rest if mark is not None else {}).items():
                if wanted.stdout if stream == "stdout" else wanted.stderr:
                    await client.send((header(stream, len(data)) if framed else b"") + data)
        except (OSError, WharfError) as error:
            log.info("container=%s attach: %s", container.id, error)
        await session.go()

    def _wishes(self, container: Container, wanted: Wanted, client: Client, *, framed: bool, held: bool) -> Wishes:
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
            held=held,
        )

    async def _join(self, container: Container, wishes: Wishes, client: Client) -> AttachSession | None:
        stdio = Stdio(socket_path(self._room, container))
        if _streaming(container):
            try:
                return await stdio.open(wishes, client.sock)
            except WharfError as error:
                # It has just ended.
                log.info("container=%s attach: %s", container.id, error)
                return None
        pending = _Pending(stdio, wishes, client)
        waiting = self._pending.setdefault(container.id, set())
        waiting.add(pending)
        container.before_start.append(pending.hand_over)
        self._watch(client.sock.fileno(), pending)
        try:
            return await pending.session
        finally:
            self._unwatch(client.sock.fileno())
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
