"""Where an archive's bytes come from: pieces that somebody makes, or a file of plain bytes."""

import errno
import os
from collections.abc import Callable, Iterator

from engine.common.errors import WharfError, invalid

Write = Callable[[memoryview], object]

#: Bytes of a file that are read at once, for headers and small files.
_WINDOW = 256 << 10
#: From here on the kernel copies data from file to file.
_LARGE = 64 << 10
_STEP = 4 << 20
#: This pair of files can't be copied by the kernel.
_UNABLE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)


def truncated() -> WharfError:
    return invalid("unexpected EOF")


def _write(fd: int, view: memoryview) -> None:
    while len(view) > (done := os.write(fd, view)):
        view = view[done:]


class Pieces:
    """A stream of pieces read as one: small amounts as bytes, large ones passed through without a copy."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._at = 0

    def _next(self) -> bool:
        """Replaces the used-up buffer; False at the end."""
        for piece in self._pieces:
            if piece:
                self._buffer, self._at = piece, 0
                return True
        self._buffer, self._at = b"", 0
        return False

    def take(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end of the stream."""
        end = self._at + size
        if end <= len(self._buffer):
            data = self._buffer[self._at : end]
            self._at = end
            return data
        parts = [self._buffer[self._at :]]
        missing = size - len(parts[0])
        while missing and self._next():
            part = self._buffer[:missing]
            self._at = len(part)
            missing -= len(part)
            parts.append(part)
        if missing:
            self._buffer, self._at = b"", 0
        return b"".join(parts)

    def copy(self, size: int, write: Write | None) -> None:
        """Passes ``size`` bytes to ``write`` (None: skips them). INVALID_ARGUMENT if the stream ends before."""
        while size:
            have = len(self._buffer) - self._at
            if not have:
                if not self._next():
                    raise truncated()
                continue
            step = min(size, have)
            if write is not None:
                write(memoryview(self._buffer)[self._at : self._at + step])
            self._at += step
            size -= step

    def drain(self) -> None:
        """Reads to the end: what a digest covers does not stop at the end-of-archive mark."""
        self._buffer, self._at = b"", 0
        for _ in self._pieces:
            pass

    def send(self, size: int, fd: int) -> None:
        """Puts ``size`` bytes into a file."""
        self.copy(size, lambda view: _write(fd, view))


class FileStream:
    """A file read as a stream, by position. Large amounts go from file to file without passing this process.

    ``end(at)`` tells where the bytes end that are there: more than ``at``, unless that is the end of all. It may wait,
    and may raise to end the reading.
    """

    def __init__(self, fd: int, end: Callable[[int], int]) -> None:
        self._fd = fd
        self._end = end
        self._there = 0  # so far
        self._window = b""
        self._start = 0  # of the window
        self._at = 0
        self._able = True

    @property
    def size(self) -> int:
        """Bytes so far; after ``drain`` those of the file."""
        return self._there

    def _more(self, at: int) -> int:
        """How many bytes are there from ``at`` on; 0 at the end of all."""
        if self._there <= at:
            self._there = self._end(at)
        return self._there - at

    def take(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end of the stream."""
        begin = self._at - self._start
        data = self._window[begin : begin + size] if begin >= 0 else b""
        self._at += len(data)
        while len(data) < size and (more := self._more(self._at)):
            self._window, self._start = os.pread(self._fd, min(more, _WINDOW), self._at), self._at
            if not self._window:
                raise truncated()
            part = self._window[: size - len(data)]
            self._at += len(part)
            data += part
        return data

    def copy(self, size: int, write: Write | None) -> None:
        """Passes ``size`` bytes to ``write`` (None: skips them). INVALID_ARGUMENT if the stream ends before."""
        while size:
            if write is not None:
                data = self.take(min(size, _WINDOW))
                if not data:
                    raise truncated()
                write(memoryview(data))
                size -= len(data)
                continue
            step = min(size, self._more(self._at))
            if not step:
                raise truncated()
            self._at += step
            size -= step

    def send(self, size: int, fd: int) -> None:
        """Puts ``size`` bytes into a file, behind what was written to it."""
        while size >= _LARGE and self._able and (step := min(size, self._more(self._at), _STEP)):
            try:
                done = os.copy_file_range(self._fd, fd, step, offset_src=self._at)
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
                done = 0
            if not done:
                self._able = False
                break
            self._at += done
            size -= done
        self.copy(size, lambda view: _write(fd, view))

    def drain(self) -> None:
        """To the end: what a digest covers does not stop at the end-of-archive mark."""
        while more := self._more(self._at):
            self._at += more
