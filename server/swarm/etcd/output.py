"""What a member of etcd reports: its log messages of level "warn" and higher, as JSON lines on its standard error."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Mapping

from engine.common import jsontext

log = logging.getLogger(__name__)

#: The most bytes of one line, and of a message in our log.
LINE, _SHOWN = 64 << 10, 500
#: The most messages in so many seconds: without its peers, a member repeats several each second.
_MOST, _WINDOW = 20, 60.0

#: A member that was removed from the cluster ends with this message, now and whenever it is started.
_REMOVED = re.compile("server error .*permanently removed from the cluster")
#: Messages of every start.
_USUAL = (
    "Running http and grpc server on single port",
    "simple token is not cryptographically signed",
    "recognized and used environment variable",
)
_LEVELS = {"warn": logging.WARNING, "error": logging.ERROR}
_HIDDEN = frozenset(("level", "ts", "caller", "msg", "stacktrace", "errorVerbose"))


class Output:
    """Reads the lines of one member, also of several processes one after the other.

    ``removed``: it reported that it was removed from the cluster. ``last``: its last message."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.removed = False
        self.last = ""
        #: Its messages are not logged while it ends because we want it.
        self.quiet = False
        self._window = 0.0
        self._count = 0

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Reads until the stream ends."""
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                continue  # longer than LINE: its begin was dropped
            if not line:
                break
            self._note(line)
        self._close_window()

    def _note(self, line: bytes) -> None:
        level, message = _parse(line)
        if not message or message.startswith(_USUAL):
            return
        self.removed |= _REMOVED.match(message) is not None
        self.last = message
        if self.quiet:
            return
        now = time.monotonic()
        if now - self._window > _WINDOW:
            self._close_window()
            self._window = now
        self._count += 1
        if self._count <= _MOST:
            log.log(level, "etcd: %s", message)

    def _close_window(self) -> None:
        if self._count > _MOST:
            log.warning("etcd: %d more messages", self._count - _MOST)
        self._count = 0


def _parse(line: bytes) -> tuple[int, str]:
    """The level and the text of a line; a panic of Go's runtime is no JSON."""
    document: object = None
    with contextlib.suppress(ValueError):
        document = jsontext.loads(line)
    if not isinstance(document, Mapping):
        return logging.ERROR, line.decode(errors="replace").strip()[:_SHOWN]
    fields = [f"{key}={value}" for key, value in document.items() if key not in _HIDDEN]
    text = " ".join([str(document.get("msg", "")), *fields])
    return _LEVELS.get(str(document.get("level")), logging.ERROR), text[:_SHOWN]
