"""Docker's log plugins: LogEntry messages, each after its length, on a FIFO that the plugin reads."""

import io
import os
from collections.abc import Iterator
from itertools import islice

from engine.shim.logs.files import entry
from engine.shim.logs.remote.delivery import Delivery
from engine.shim.logs.remote.encoder import Part, Settings
from engine.shim.loop import WRITE, Loop

_BATCH = 64


class Entries:
    """protobuf messages, as in the ``local`` driver's files."""

    def encode(self, stream: str, line: bytes, now_ns: int, part: Part | None) -> Iterator[bytes]:
        metadata = (part.identity, part.ordinal, part.last) if part is not None else None
        message = entry(stream, line, now_ns, metadata)
        yield len(message).to_bytes(4, "big") + message


class Fifo(Delivery):
    """Opened for both directions: a plugin that exits causes no SIGPIPE, and continues to read after its restart."""

    def __init__(self, loop: Loop, path: str, *, limit: int, waits: bool) -> None:
        super().__init__(loop, limit=limit, waits=waits, patient=True, retry=1.0, attempts=0)
        self._path = path
        self._offset = 0

    def open(self) -> None:
        """Opens the FIFO.

        :raises OSError: it can't be opened.
        """
        self.sock = io.FileIO(os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), "w")
        self.connection_made()

    def connect(self) -> None:
        try:
            self.open()
        except OSError:
            self.connection_lost()

    def ready(self, _events: int) -> None:
        self.flush()

    def flush(self) -> None:
        if self.sock is None:
            return
        while self.queue:
            parts: list[bytes | memoryview] = list(islice(self.queue, _BATCH))
            parts[0] = memoryview(parts[0])[self._offset :]
            try:
                self._offset += os.writev(self.sock.fileno(), parts)
            except BlockingIOError:
                break
            while self.queue and self._offset >= len(self.queue[0]):
                message = self.queue.popleft()
                self._offset -= len(message)
                self.sent(message)
        self.after_flush()

    def reset(self) -> None:
        self._offset = 0

    def events(self) -> int:
        # Never watched for reading: this process would read its own messages.
        return WRITE if self.queue else 0


def make(settings: Settings, loop: Loop) -> tuple[Entries, Delivery]:
    """``path`` of the FIFO."""
    return Entries(), Fifo(loop, settings.text("path"), limit=settings.limit, waits=settings.waits)
