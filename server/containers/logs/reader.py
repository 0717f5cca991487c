"""Reads a container's log across its rotated files, and goes on where it grows, without loss or repeat.

The reader holds its file open, so what is renamed, packed or removed meanwhile is still read to its end.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from server.containers.logs.files import CHUNK, File, LogFiles, Plain
from server.containers.logs.format import Format, Formatter, Query


@dataclass(frozen=True, slots=True)
class End:
    """Where a log ended at some moment: after ``size`` bytes of the file that ``fd`` has open; -1: there was none."""

    fd: int
    size: int


class LogReader:
    """One pass over a log. Every method blocks on the disk: call it from a thread, one at a time.

    ``end``: what was written after it is not wanted; its descriptor stays the caller's.
    """

    def __init__(self, path: str, form: Format, query: Query, end: End | None = None) -> None:
        self.path = path
        self._files = LogFiles(path)
        self._format = form
        self._query = query
        self._formatter = Formatter(query)
        self._file: File | None = None
        self._rest = b""
        self._sealed = False
        self._started = False
        self._ended = False
        self._end = end
        # Up to an end: the files that are still to be read, all of them open.
        self._waiting: deque[File] = deque()

    @property
    def done(self) -> bool:
        """A record later than ``until`` was reached, or the end: nothing more is wanted."""
        return self._formatter.done or self._ended

    def read(self) -> bytes:
        """The next piece of output; empty when there is nothing more now."""
        if not self._started:
            self._started = True
            self._begin()
        while not self.done:
            if self._file is None:
                self._file = self._files.oldest()
                if self._file is None:
                    return b""
            data = self._file.read(self._wanted())
            if self._end is None and isinstance(self._file, Plain) and self._file.restarted():
                self._file.position, self._rest = 0, b""
                continue
            if not data:
                if self._advance():
                    continue
                return b""
            if out := self._take(data):
                return out
        return b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        while self._waiting:
            self._waiting.popleft().close()

    def _wanted(self) -> int:
        """How much to read of the file now."""
        if self._end is None or self._waiting or not isinstance(self._file, Plain):
            return CHUNK
        return max(0, min(CHUNK, self._end.size - self._file.position))

    def _take(self, data: bytes) -> bytes:
        data = self._rest + data if self._rest else data
        size = self._format.whole(data)
        self._rest = data[size:]
        return self._formatter.format(self._format.records(data[:size])) if size else b""

    def _begin(self) -> None:
        """Opens the file where the query begins."""
        if self._end is not None:
            self._gather(self._end.fd)
        elif self._query.tail >= 0:
            self._file = self._tail(self._query.tail)

    def _gather(self, fd: int) -> None:
        """The file of the end and all that are older: whatever happens to their names, they are read."""
        if fd < 0:
            self._ended = True
            return
        file: File | None = Plain(os.dup(fd))
        while file is not None:
            self._waiting.appendleft(file)
            file = self._files.older(file)
        self._file = self._waiting.popleft()

    def _tail(self, missing: int) -> File | None:
        """The file where the last records begin, and the place in it."""
        file = self._files.newest()
        while file is not None:
            if isinstance(file, Plain):
                size = file.size
                file.position, found = self._format.tail(file.at, size, missing) if missing else (size, 0)
            else:
                # Only a tail that reaches into packed files pays for unpacking one in memory.
                data = file.whole()
                begin, found = self._format.tail(_reading(data), len(data), missing) if missing else (len(data), 0)
                file.skip(begin)
            missing -= found
            if missing <= 0 or (older := self._files.older(file)) is None:
                break
            file.close()
            file = older
        return file

    def _advance(self) -> bool:
        """At the end of a file: whether there is more to read in it or in a newer one."""
        file = self._file
        assert file is not None
        if self._end is not None:
            newer = self._waiting.popleft() if self._waiting else None
            self._ended = newer is None
        elif isinstance(file, Plain) and not self._sealed:
            try:
                current = os.stat(self.path).st_ino == file.inode
            except FileNotFoundError:
                current = False  # between the renaming and the new file
            # The writer closed it before it was renamed: one more look, then it is finished.
            self._sealed = not current
            return self._sealed
        else:
            newer = self._files.newer(file)
        if newer is None:
            return False
        file.close()
        self._file, self._rest, self._sealed = newer, b"", False
        return True


def _reading(data: bytes) -> Callable[[int, int], bytes]:
    return lambda size, offset: data[offset : offset + size]
