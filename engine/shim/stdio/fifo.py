"""Input from a FIFO that a client of containerd created."""

import os

from engine.shim.loop import READ, Loop
from engine.shim.stdio.streams import Streams

_READ = 64 << 10


class FifoInput:
    """Copies a FIFO to the process's input. The input ends when the client has closed its end *and* CloseIO was called:
    until then this object holds the FIFO open for writing, as containerd's shim does."""

    def __init__(self, loop: Loop, path: str, streams: Streams) -> None:
        """Opens the FIFO.

        :raises OSError: it can't be opened.
        """
        self._loop = loop
        self._streams = streams
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._keeper = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            os.close(self._fd)
            raise
        self._watched = False
        self.input_ready()

    def close_writer(self) -> None:
        """The operation CloseIO."""
        if self._keeper >= 0:
            os.close(self._keeper)
            self._keeper = -1

    def input_ready(self) -> None:
        if self._fd >= 0 and not self._watched:
            self._loop.add(self._fd, READ, self._ready)
            self._watched = True

    def _ready(self, _events: int) -> None:
        if self._streams.input.blocked:
            self._loop.remove(self._fd)
            self._watched = False
            return
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return
        if data:
            self._streams.input.write(data)
        else:
            self._streams.input.close()
            self.close()

    def close(self) -> None:
        self.close_writer()
        if self._fd >= 0:
            if self._watched:
                self._loop.remove(self._fd)
                self._watched = False
            os.close(self._fd)
            self._fd = -1
