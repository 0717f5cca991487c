"""Consumers of output: one bounded queue per consumer, written when the consumer can accept it.

The rule for consumers that don't read, which is also the engine's promise:

* Output is never lost and never accumulated in memory. A consumer that is ``HIGH`` bytes behind stops the
  reading of the container's pipe, so that the container waits, as in dockerd.
* A client that accepted nothing for ``STUCK`` seconds no longer stops the others: its output is written to an
  unlinked file beside the log, and sent when it reads again. Log and other clients continue.
* That file has at most ``SPILL`` bytes; beyond them the container waits for this client after all.
* FIFOs (``ctr``, stock containerd's clients) are never spilled: containerd's contract is to wait.
"""

import contextlib
import os
import socket
import time
from collections import deque
from itertools import islice
from typing import Protocol

from engine.shim.loop import WRITE, Loop
from engine.shim.stdio.stdin import Input

HIGH = 256 << 10
LOW = 64 << 10
STUCK = 2.0
SPILL = 256 << 20
_CHUNK = 64 << 10
_PARTS = 32


class Spill:
    """A queue in an unlinked file."""

    __slots__ = ("_fd", "_read", "_written")

    def __init__(self, directory: str) -> None:
        """Creates the file.

        :raises OSError: no file can be created there.
        """
        self._fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._read = 0
        self._written = 0

    def __len__(self) -> int:
        return self._written - self._read

    def append(self, parts: tuple[bytes, ...]) -> None:
        """Appends to the file.

        :raises OSError: the disk is full.
        """
        view = memoryview(b"".join(parts))
        while view:
            done = os.pwrite(self._fd, view, self._written)
            self._written += done
            view = view[done:]

    def read(self) -> bytes:
        """Returns the next bytes, b"" at the end of the file."""
        data = os.pread(self._fd, min(_CHUNK, len(self)), self._read)
        self._read += len(data)
        return data

    def close(self) -> None:
        os.close(self._fd)


class FanOut(Protocol):
    """The process's streams, as their consumers use them (``engine.shim.stdio.streams``)."""

    input: Input
    terminal: bool
    stdin_once: bool

    def resume(self) -> None:
        """Reads the process's output again, if no consumer is behind any more."""

    def remove(self, sink: "Sink") -> None:
        """``sink`` is closed and gets no more output."""


class Sink:
    """One consumer. Subclasses implement how bytes are written and how it ends."""

    may_spill = False

    def __init__(self, loop: Loop, fd: int) -> None:
        self.loop = loop
        self.fd = fd
        self.streams: FanOut | None = None
        self.closed = False
        self._queue: deque[bytes | memoryview] = deque()
        self.queued = 0
        self._spill: Spill | None = None
        self._finishing = False
        self._want_write = False
        self._moved = time.monotonic()

    # Methods of subclasses

    def accepts(self, stream: str) -> bool:
        """Whether this consumer gets ``stdout`` or ``stderr``."""
        raise NotImplementedError

    def encode(self, stream: str, data: bytes) -> tuple[bytes, ...]:
        return (data,)

    def write_parts(self, parts: list[bytes | memoryview]) -> int:
        """Writes as much as fits.

        :raises BlockingIOError: nothing fits.
        :raises OSError: the consumer has closed.
        """
        return os.writev(self.fd, parts)

    def flushed(self) -> None:
        """All output was delivered after ``finish``."""
        raise NotImplementedError

    def consumer_closed(self) -> None:
        """The consumer has closed."""
        raise NotImplementedError

    def update_watch(self) -> None:
        """``_want_write`` has changed."""
        raise NotImplementedError

    # The queue

    @property
    def lagging(self) -> bool:
        """Whether the container must wait for this consumer."""
        if self._spill is not None:
            return len(self._spill) >= SPILL
        return self.queued >= HIGH

    @property
    def pending(self) -> bool:
        return bool(self._queue) or self._spill is not None

    def stuck(self, now: float) -> bool:
        return now - self._moved >= STUCK

    def spill(self, directory: str) -> None:
        """Writes output that doesn't fit to a file from now on; if the directory accepts none, nothing changes."""
        if self._spill is None:
            try:
                self._spill = Spill(directory)
            except OSError:
                return

    def push(self, *parts: bytes) -> None:
        """Queues bytes and writes at once as much as the consumer accepts."""
        if self.closed:
            return
        if self._spill is not None:
            try:
                self._spill.append(parts)
            except OSError:
                # The disk is full: this client can't be kept without blocking the others.
                self.consumer_closed()
            return
        if not self._queue:
            self._moved = time.monotonic()
        self._queue.extend(parts)
        self.queued += sum(map(len, parts))
        if not self._want_write:
            self.flush()

    def finish(self) -> None:
        """No more output follows; ``flushed`` is called when all is delivered."""
        self._finishing = True
        if not self.closed and not self.pending:
            self.flushed()

    def flush(self) -> None:
        while not self.closed:
            if not self._queue and not self._refill():
                break
            try:
                written = self.write_parts(list(islice(self._queue, _PARTS)))
            except BlockingIOError:
                break
            except OSError:
                self.consumer_closed()
                return
            self._consume(written)
        if self.closed:
            return
        want = bool(self._queue)
        if want != self._want_write:
            self._want_write = want
            self.update_watch()
        if self.queued <= LOW and self.streams is not None:
            self.streams.resume()
        if self._finishing and not self.pending:
            self.flushed()

    def _consume(self, written: int) -> None:
        self._moved = time.monotonic()
        self.queued -= written
        queue = self._queue
        while written:
            first = queue[0]
            if written < len(first):
                queue[0] = memoryview(first)[written:]
                return
            written -= len(first)
            queue.popleft()

    def _refill(self) -> bool:
        if self._spill is None:
            return False
        data = self._spill.read()
        if not len(self._spill):
            self._spill.close()
            self._spill = None
        if data:
            self._queue.append(data)
            self.queued += len(data)
        return bool(data)

    def drop(self) -> None:
        """Discards the queue and leaves the fan-out; the subclass closes the descriptor."""
        self.closed = True
        self._queue.clear()
        self.queued = 0
        if self._spill is not None:
            self._spill.close()
            self._spill = None
        if self.streams is not None:
            self.streams.remove(self)


class FifoSink(Sink):
    """A FIFO that a client of containerd created. Opened for both directions: a reader that closes causes no SIGPIPE
    for the container, and a late one blocks nothing."""

    def __init__(self, loop: Loop, path: str, stream: str) -> None:
        """Opens the FIFO.

        :raises OSError: it can't be opened.
        """
        super().__init__(loop, os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        self._stream = stream
        self._watched = False

    def accepts(self, stream: str) -> bool:
        return stream == self._stream

    def update_watch(self) -> None:
        if self._want_write and not self._watched:
            self.loop.add(self.fd, WRITE, lambda _events: self.flush())
            self._watched = True
        elif not self._want_write and self._watched:
            self.loop.remove(self.fd)
            self._watched = False

    def flushed(self) -> None:
        self.close()

    def consumer_closed(self) -> None:
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        self.drop()
        if self._watched:
            self.loop.remove(self.fd)
        os.close(self.fd)


class FileSink(Sink):
    """``file:///path``: output is appended."""

    def __init__(self, loop: Loop, path: str, stream: str) -> None:
        """Opens the file.

        :raises OSError: it can't be opened.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        super().__init__(loop, os.open(path, flags, 0o600))
        self._stream = stream

    def accepts(self, stream: str) -> bool:
        return stream == self._stream

    def update_watch(self) -> None:
        pass

    def flushed(self) -> None:
        self.close()

    def consumer_closed(self) -> None:
        self.close()

    def close(self) -> None:
        if not self.closed:
            self.drop()
            os.close(self.fd)


def shut(sock: socket.socket, how: int) -> None:
    """Shuts down a socket that may be disconnected already."""
    with contextlib.suppress(OSError):
        sock.shutdown(how)
