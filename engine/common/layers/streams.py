"""Sources of an archive's bytes: an iterator of pieces, or a file of plain bytes."""

import errno
import os
from collections.abc import Callable, Iterator

from engine.common.errors import WharfError, invalid
from engine.common.files.writing import write_all

Write = Callable[[memoryview], object]

#: Bytes of a file per read, for headers and small files.
_WINDOW = 256 << 10
#: From this size on, the kernel copies data from file to file.
_LARGE = 64 << 10
_STEP = 4 << 20
#: Errors if the kernel can't copy between this pair of files.
_UNABLE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)


def truncated() -> WharfError:
    return invalid("unexpected EOF")


class Pieces:
    """An iterator of pieces, read as one stream: small amounts as bytes, large ones passed on without a copy."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._at = 0

    def _next(self) -> bool:
        """Replaces the consumed buffer; False at the end."""
        for piece in self._pieces:
            if piece:
                self._buffer, self._at = piece, 0
                return True
        self._buffer, self._at = b"", 0
        return False

    def read(self, size: int) -> bytes:
        """Returns exactly ``size`` bytes, fewer only at the end of the stream."""
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
        """Reads to the end: a digest covers bytes after the end-of-archive mark, too."""
        self._buffer, self._at = b"", 0
        for _ in self._pieces:
            pass

    def send(self, size: int, fd: int) -> None:
        """Writes ``size`` bytes into a file."""
        self.copy(size, lambda view: write_all(fd, view))


class FileStream:
    """A file read as a stream, by position. The kernel copies large amounts from file to file.

    ``end(at)`` returns the end of the available bytes: more than ``at``, unless the file is complete. It may block, and
    may raise to stop the reading.
    """

    def __init__(self, fd: int, end: Callable[[int], int]) -> None:
        self._fd = fd
        self._end = end
        self._there = 0  # available bytes so far
        self._window = b""
        self._start = 0  # of the window
        self._at = 0
        self._able = True

    @property
    def size(self) -> int:
        """Bytes so far; after ``drain`` those of the file."""
        return self._there

    def _more(self, at: int) -> int:
        """The number of available bytes from ``at`` on; 0 at the end of the file."""
        if self._there <= at:
            self._there = self._end(at)
        return self._there - at

    def read(self, size: int) -> bytes:
        """Returns exactly ``size`` bytes, fewer only at the end of the stream."""
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
                data = self.read(min(size, _WINDOW))
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
        """Appends ``size`` bytes to a file."""
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
        self.copy(size, lambda view: write_all(fd, view))

    def drain(self) -> None:
        """Reads to the end: a digest covers bytes after the end-of-archive mark, too."""
        while more := self._more(self._at):
            self._at += more
