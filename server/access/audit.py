"""The audit log: one JSON line for each request that changes something, and for each that is refused.

A line has no bodies and no headers, and of the query only the parameters of ``SHOWN``, so it has no secrets. A thread
writes the lines: a slow disk delays no request. Lines that it can't write are counted in the daemon's log.
"""

import asyncio
import logging
import logging.handlers
import os
import queue
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from api_models.times import rfc3339
from engine.common import jsontext
from engine.common.errors import Kind, WharfError
from server.access.audit_tail import tail
from server.access.caller import Caller

log = logging.getLogger(__name__)

#: Parameters of queries that name objects.
SHOWN = frozenset(("container", "fromImage", "name", "repo", "t", "tag", "signal", "force", "all"))
# Lines that wait for the disk.
_WAITING = 10_000
# Lines that wait for a client that follows the log; then its answer ends.
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One request. ``caller`` None: the policy refused the client. ``peer``: the path of the socket, or the address of
    the client. ``query``: only parameters of ``SHOWN``. ``status``: 101 for a connection that was taken over."""

    began_ns: int
    seconds: float
    caller: Caller | None
    peer: str
    method: str
    path: str
    query: Mapping[str, str]
    status: int
    error: str = ""

    def line(self) -> str:
        caller = self.caller
        document: dict[str, object] = {
            "time": rfc3339(self.began_ns),
            "user": caller.user if caller is not None else "",
            "owner": caller.owner if caller is not None else "",
            "uid": caller.uid if caller is not None else -1,
            "peer": self.peer,
            "method": self.method,
            "path": self.path,
            "query": dict(self.query),
            "status": self.status,
            "seconds": round(self.seconds, 3),
        }
        if self.error:
            document["error"] = self.error
        return jsontext.dumps(document).decode()


class AuditLog:
    """``size``: bytes at which the file is replaced; ``files``: how many are kept. Call ``close`` at the end."""

    def __init__(self, path: Path, *, size: int, files: int, reads: bool) -> None:
        """``reads``: requests that change nothing are logged, too.

        :raises OSError: the file can't be opened.
        """
        self.reads = reads
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handler = _File(path, maxBytes=size, backupCount=max(files - 1, 1))
        path.chmod(0o600)
        self._queue: queue.Queue[logging.LogRecord] = queue.Queue(_WAITING)
        self._lost = 0
        self._listener = logging.handlers.QueueListener(self._queue, handler)
        self._handler = handler
        self._path = path
        self._followers: set[_Follower] = set()
        self._listener.start()

    def write(self, entry: Entry) -> None:
        """Returns at once."""
        line = entry.line()
        record = logging.LogRecord("audit", logging.INFO, "", 0, line, (), None)
        user = entry.caller.user if entry.caller is not None else ""
        for follower in self._followers:
            follower.put(line, user)
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._lost += 1
            if self._lost in (1, 1000) or self._lost % 100_000 == 0:
                log.error("audit log: the disk is too slow: %d lines are lost", self._lost)

    async def read(self, count: int, user: str = "", *, follow: bool = False) -> AsyncIterator[bytes]:
        """The last ``count`` lines so far, the oldest first; with ``follow`` then each new one, until the log is closed
        or the reader is ``_BACKLOG`` lines behind. ``user``: only lines of this user; "": all.

        :raises WharfError: UNAVAILABLE: the disk is too slow. :raises OSError: the log can't be read.
        """
        follower = _Follower(user)
        if follow:
            self._followers.add(follower)
        try:
            inode, end = await self._position()
            for line in await asyncio.to_thread(tail, self._path, inode, end, count, user):
                yield line
            while follow and (text := await follower.lines.get()) is not None:
                yield text.encode()
        finally:
            self._followers.discard(follower)

    async def _position(self) -> tuple[int, int]:
        """The file's inode and its length when all lines so far are written."""
        written: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Mark(written))
        except queue.Full:
            raise WharfError(Kind.UNAVAILABLE, "audit log: the disk is too slow") from None
        return await written

    def close(self) -> None:
        """Writes what waits, and ends the answers that follow the log."""
        self._listener.stop()
        self._handler.close()
        for follower in self._followers:
            follower.end()


class _Follower:
    """A client that follows the log. None in ``lines``: the end."""

    def __init__(self, user: str) -> None:
        self._user = user
        self._ended = False
        self.lines: asyncio.Queue[str | None] = asyncio.Queue()

    def put(self, line: str, user: str) -> None:
        if self._ended or (self._user and self._user != user):
            return
        if self.lines.qsize() >= _BACKLOG:
            log.warning("a client of the audit log has not read %d lines: its answer ends", _BACKLOG)
            self.end()
        else:
            self.lines.put_nowait(line)

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self.lines.put_nowait(None)


class _Mark(logging.LogRecord):
    """Between two lines: asks for the file's inode and length when the lines before it are written."""

    def __init__(self, written: asyncio.Future[tuple[int, int]]) -> None:
        super().__init__("audit", logging.INFO, "", 0, "", (), None)
        self._written = written

    def report(self, inode: int, length: int) -> None:
        """Called in the thread that writes."""

        def report() -> None:
            if not self._written.done():  # the client may have left
                self._written.set_result((inode, length))

        self._written.get_loop().call_soon_threadsafe(report)


class _File(logging.handlers.RotatingFileHandler):
    """A rotating file, readable by root only, whose errors are in the daemon's log."""

    def emit(self, record: logging.LogRecord) -> None:
        if not isinstance(record, _Mark):
            super().emit(record)
        elif self.stream is None:  # a rotation has failed
            record.report(0, 0)
        else:
            found = os.fstat(self.stream.fileno())
            record.report(found.st_ino, found.st_size)

    def handleError(self, record: logging.LogRecord) -> None:
        log.exception("audit log: a line could not be written to %s", self.baseFilename)

    def doRollover(self) -> None:
        super().doRollover()
        Path(self.baseFilename).chmod(0o600)
