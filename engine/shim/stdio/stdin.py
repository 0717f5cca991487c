"""One process's stdin."""

import os
from collections.abc import Callable

from engine.shim.loop import WRITE, Loop


class Input:
    """The process's input. Bytes that it doesn't accept yet wait here, and clients wait for them."""

    def __init__(self, loop: Loop, on_ready: Callable[[], None]) -> None:
        self._loop = loop
        self._on_ready = on_ready
        self._fd = -1
        self._pending = b""
        self._closing = False
        self._watched = False
        self.open = False
        self.terminal = False
        self.on_shut: Callable[[], None] | None = None

    def connect(self, fd: int, *, terminal: bool) -> None:
        """Takes ownership of ``fd``, which is non-blocking."""
        os.set_blocking(fd, False)
        self._fd = fd
        self.terminal = terminal
        self._flush()

    @property
    def blocked(self) -> bool:
        return bool(self._pending)

    def write(self, data: bytes) -> None:
        if not self.open or self._closing:
            return
        self._pending += data
        self._flush()

    def close(self) -> None:
        """The process reads end of file after the written bytes; a terminal's input has no end."""
        if self.terminal or not self.open:
            return
        self._closing = True
        self._flush()

    def _flush(self) -> None:
        if self._fd < 0:
            return
        had = bool(self._pending)
        while self._pending:
            try:
                written = os.write(self._fd, self._pending)
            except BlockingIOError:
                break
            except OSError:
                # The process closed its input (EPIPE) or its terminal (EIO).
                self._pending = b""
                self.shut()
                break
            self._pending = self._pending[written:]
        if self._fd >= 0 and bool(self._pending) != self._watched:
            self._watched = bool(self._pending)
            if self._watched:
                self._loop.add(self._fd, WRITE, lambda _events: self._flush())
            else:
                self._loop.remove(self._fd)
        if not self._pending:
            if self._closing:
                self.shut()
            if had:
                self._on_ready()

    def shut(self) -> None:
        """Closes at once; discards unwritten bytes."""
        self._pending = b""
        self.open = False
        on_shut, self.on_shut = self.on_shut, None
        if on_shut is not None:
            on_shut()
        if self._fd >= 0:
            if self._watched:
                self._loop.remove(self._fd)
                self._watched = False
            os.close(self._fd)
            self._fd = -1
