"""The audit log: one JSON line for each request that changes something, and for each that is refused.

A line has no bodies and no headers, and of the query only the parameters of ``SHOWN``, so it has no secrets. A thread
writes the lines: a slow disk delays no request. Lines that it can't write are counted in the daemon's log.
"""

import logging
import logging.handlers
import queue
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api_models.times import rfc3339
from engine.common import jsontext
from server.access.caller import Caller

log = logging.getLogger(__name__)

#: Parameters of queries that name objects.
SHOWN = frozenset(("container", "fromImage", "name", "repo", "t", "tag", "signal", "force", "all"))
# Lines that wait for the disk.
_WAITING = 10_000


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
        self._listener.start()

    def write(self, entry: Entry) -> None:
        """Returns at once."""
        record = logging.LogRecord("audit", logging.INFO, "", 0, entry.line(), (), None)
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._lost += 1
            if self._lost in (1, 1000) or self._lost % 100_000 == 0:
                log.error("audit log: the disk is too slow: %d lines are lost", self._lost)

    def close(self) -> None:
        """Writes what waits."""
        self._listener.stop()
        self._handler.close()


class _File(logging.handlers.RotatingFileHandler):
    """A rotating file, readable by root only, whose errors are in the daemon's log."""

    def handleError(self, record: logging.LogRecord) -> None:
        log.exception("audit log: a line could not be written to %s", self.baseFilename)

    def doRollover(self) -> None:
        super().doRollover()
        Path(self.baseFilename).chmod(0o600)
