"""Reads a container's log across its rotated files and continues as it grows, without lost or repeated records.

The reader keeps its file open, so that it reads a file to its end that the rotation renames, compresses or removes.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from server.containers.logs.files import CHUNK, File, LogFiles, Plain
from server.containers.logs.format import Format, Formatter, Query
from server.containers.logs.json_records import JsonFormatter


@dataclass(frozen=True, slots=True)
class End:
    """The end of a log at some time: after ``size`` bytes of the open file ``fd``. -1: there was no file."""

    fd: int
    size: int


class LogReader:
    """One pass over a log. Every method blocks on the disk: call it in a thread, one call at a time.

    ``end``: the reader stops there; the caller closes its descriptor.
    """

    def __init__(self, path: str, form: Format, query: Query, end: End | None = None) -> None:
        self.path = path
        self._files = LogFiles(path)
        self._format = form
        self._query = query
        self._formatter = Formatter(query) if query.json is None else JsonFormatter(query, query.json)
        self._file: File | None = None
        self._rest = b""
        self._sealed = False
        self._started = False
        self._ended = False
        self._end = end
        # With an ``end``: the open files that follow the current one.
        self._following: deque[File] = deque()

    @property
    def done(self) -> bool:
        """Whether a record later than ``until``, or ``end``, was reached."""
        return self._formatter.done or self._ended

    def read(self) -> bytes:
        """The next chunk of output; b"": there is no more now."""
        if not self._started:
            self._started = True
            self._begin()
        while not self.done:
            if self._file is None:
                self._file = self._files.oldest()
                if self._file is None:
                    return b""
            data = self._file.read(self._read_size())
            if self._end is None and isinstance(self._file, Plain) and self._file.restarted():
                self._file.position, self._rest = 0, b""
                continue
            if not data:
                if self._advance():
                    continue
                return b""
            if out := self._format_records(data):
                return out
        return b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        while self._following:
            self._following.popleft().close()

    def _read_size(self) -> int:
        """The number of bytes to read next: not beyond ``end``."""
        if self._end is None or self._following or not isinstance(self._file, Plain):
            return CHUNK
        return max(0, min(CHUNK, self._end.size - self._file.position))

    def _format_records(self, data: bytes) -> bytes:
        """The output for the complete records; an incomplete one at the end waits for the next read."""
        data = self._rest + data if self._rest else data
        size = self._format.whole(data)
        self._rest = data[size:]
        return self._formatter.format(self._format.records(data[:size])) if size else b""

    def _begin(self) -> None:
        """Opens the first file of the query."""
        if self._end is not None:
            self._open_until(self._end.fd)
        elif self._query.tail >= 0:
            self._file = self._tail(self._query.tail)

    def _open_until(self, fd: int) -> None:
        """Opens all files up to the one of ``fd``: a rotation during the pass has no effect then."""
        if fd < 0:
            self._ended = True
            return
        file: File | None = Plain(os.dup(fd))
        while file is not None:
            self._following.appendleft(file)
            file = self._files.older(file)
        self._file = self._following.popleft()

    def _tail(self, missing: int) -> File | None:
        """Opens the file in which the last ``missing`` records begin, at their position."""
        file = self._files.newest()
        while file is not None:
            if isinstance(file, Plain):
                size = file.size
                file.position, found = self._format.tail(file.at, size, missing) if missing else (size, 0)
            else:
                # Decompressed in memory, as the format's tail() reads backwards.
                data = file.whole()
                begin, found = self._format.tail(_reader(data), len(data), missing) if missing else (len(data), 0)
                file.skip(begin)
            missing -= found
            if missing <= 0 or (older := self._files.older(file)) is None:
                break
            file.close()
            file = older
        return file

    def _advance(self) -> bool:
        """Continues at the end of a file. Whether there may be more to read, in this file or in the next."""
        file = self._file
        assert file is not None
        if self._end is not None:
            newer = self._following.popleft() if self._following else None
            self._ended = newer is None
        elif isinstance(file, Plain) and not self._sealed:
            try:
                current = os.stat(self.path).st_ino == file.inode
            except FileNotFoundError:
                current = False  # the rotation has renamed the file, and not made the new one yet
            # The shim closes a file before it renames it: after one more read it is at its end.
            self._sealed = not current
            return self._sealed
        else:
            newer = self._files.newer(file)
        if newer is None:
            return False
        file.close()
        self._file, self._rest, self._sealed = newer, b"", False
        return True


def _reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda size, offset: data[offset : offset + size]
