"""Reads a container's log across its rotated files, and goes on where it grows, without loss or repeat.

A file that was rotated away is known by its inode; when compression gave it another, by its first record. The
reader holds its file open, so what is renamed or removed meanwhile is still read to its end.
"""

import os
import time
import zlib

from server.services.containers.log_format import Format, Formatter, Query

CHUNK = 1 << 18
# Enough of a file's beginning to hold the time of its first record.
_IDENTITY = 1 << 16
_GLANCE = 256
# While the writer renames its files one after the other, the chain has a gap: a millisecond or so, on a busy host more.
_PAUSE = 0.002
_TRIES = 250
# Looks after a file that has lost its name, before it counts as dropped.
_LOOKS = 5


class _Plain:
    """An open file of the log. ``position`` is where to read next."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.inode = os.fstat(self.fd).st_ino
        self.position = 0
        self._glance = os.pread(self.fd, _GLANCE, 0)

    @property
    def named(self) -> bool:
        """Whether it still has a name somewhere."""
        return os.fstat(self.fd).st_nlink > 0

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    @property
    def identity(self) -> bytes:
        return os.pread(self.fd, _IDENTITY, 0)

    def restarted(self) -> bool:
        """Whether the file was emptied and written anew since the last look (rotation with max-file=1)."""
        now = os.pread(self.fd, _GLANCE, 0)
        before, self._glance = self._glance, now
        return now[: len(before)] != before or self.size < self.position

    def read(self, size: int) -> bytes:
        data = os.pread(self.fd, size, self.position)
        self.position += len(data)
        return data

    def at(self, size: int, offset: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def close(self) -> None:
        os.close(self.fd)


class _Packed:
    """A rotated file that was gzipped; read from its beginning only."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        self.inode = os.fstat(self._file.fileno()).st_ino
        self._inflate = zlib.decompressobj(31)
        self._waiting = b""
        self._skip = 0
        while len(self._waiting) < _IDENTITY and (more := self._some()):
            self._waiting += more
        self.identity = self._waiting[:_IDENTITY]

    @property
    def named(self) -> bool:
        return os.fstat(self._file.fileno()).st_nlink > 0

    def _some(self) -> bytes:
        """Empty at the end, which a torn file reaches early."""
        try:
            while raw := self._file.read(CHUNK):
                if data := self._inflate.decompress(raw):
                    return data
            return self._inflate.flush()
        except zlib.error:
            self._file.seek(0, os.SEEK_END)
            return b""

    def skip(self, size: int) -> None:
        self._skip = size

    def read(self, size: int) -> bytes:
        while True:
            data, self._waiting = self._waiting or self._some(), b""
            if not data:
                return b""
            if self._skip:
                dropped = min(self._skip, len(data))
                self._skip -= dropped
                data = data[dropped:]
            if data:
                return data

    def close(self) -> None:
        self._file.close()


_File = _Plain | _Packed


def chain(path: str) -> list[str]:
    """The files of a log that are there, oldest first, at a moment when none is being renamed."""
    for _ in range(_TRIES):
        found = _numbered(path)
        if not found or sorted(found) == list(range(len(found))):
            break
        time.sleep(_PAUSE)
    return [found[number] for number in sorted(found, reverse=True)]


def _numbered(path: str) -> dict[int, str]:
    """Number → name; 0 is the file that is written now."""
    directory, base = os.path.split(path)
    try:
        names = os.listdir(directory or ".")
    except FileNotFoundError:
        return {}
    found: dict[int, str] = {}
    for name in names:
        if name == base:
            found[0] = path
            continue
        head, _, rest = name.partition(base + ".")
        number = rest.removesuffix(".gz")
        # While x.1 is being compressed both may exist; the plain one is whole.
        if not head and number.isdecimal() and (rest == number or int(number) not in found):
            found[int(number)] = os.path.join(directory, name)
    return found


def _open(path: str) -> _File | None:
    try:
        return _Packed(path) if path.endswith(".gz") else _Plain(path)
    except FileNotFoundError:
        return None


class LogReader:
    """One pass over a log. Every method blocks on the disk: call it from a thread, one at a time."""

    def __init__(self, path: str, form: Format, query: Query) -> None:
        self.path = path
        self._format = form
        self._query = query
        self._formatter = Formatter(query)
        self._file: _File | None = None
        self._rest = b""
        self._sealed = False
        self._started = False
        self._ended = False

    @property
    def done(self) -> bool:
        """A record later than ``until`` was reached, or the query's end: nothing more is wanted."""
        return self._formatter.done or self._ended

    def read(self) -> bytes:
        """The next piece of output; empty when there is nothing more now."""
        if not self._started:
            self._started = True
            self._begin()
        while not self.done:
            if self._file is None and not self._next():
                return b""
            assert self._file is not None
            wanted = self._wanted(self._file)
            if not wanted:
                self._ended = True
                break
            data = self._file.read(wanted)
            if isinstance(self._file, _Plain) and self._file.restarted():
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

    def _wanted(self, file: _File) -> int:
        """How much to read of the file; 0 at the query's end."""
        if self._query.end is None or not isinstance(file, _Plain):
            return CHUNK
        inode, size = self._query.end
        return max(0, min(CHUNK, size - file.position)) if file.inode == inode else CHUNK

    def _take(self, data: bytes) -> bytes:
        data = self._rest + data if self._rest else data
        size = self._format.whole(data)
        self._rest = data[size:]
        return self._formatter.format(self._format.records(data[:size])) if size else b""

    def _begin(self) -> None:
        """Opens the file where the query's tail begins."""
        if self._query.tail < 0:
            names = chain(self.path)
            self._file = self._oldest(names)
            return
        missing = self._query.tail
        opened: _File | None = None
        for name in reversed(chain(self.path)):
            file = _open(name)
            if file is None:
                continue
            if isinstance(file, _Plain):
                offset, found = self._tail_plain(file, missing)
                file.position = offset
            else:
                offset, found = self._tail_packed(name, missing)
                file.skip(offset)
            if opened is not None:
                opened.close()
            opened = file
            missing -= found
            if missing <= 0:
                break
        self._file = opened

    def _tail_plain(self, file: _Plain, count: int) -> tuple[int, int]:
        if count == 0:
            return file.size, 0
        return self._format.tail(file.at, file.size, count)

    def _tail_packed(self, name: str, count: int) -> tuple[int, int]:
        """Unpacks the file in memory: only a tail that reaches into compressed files pays for it."""
        file = _Packed(name)
        try:
            data = b"".join(iter(lambda: file.read(CHUNK), b""))
        finally:
            file.close()
        return self._format.tail(lambda size, offset: data[offset : offset + size], len(data), count)

    @staticmethod
    def _oldest(names: list[str]) -> _File | None:
        for name in names:
            if (file := _open(name)) is not None:
                return file
        return None

    def _next(self) -> bool:
        self._file = self._oldest(chain(self.path))
        return self._file is not None

    def _advance(self) -> bool:
        """At the end of a file: whether there is more to read in it or in a newer one."""
        file = self._file
        assert file is not None
        if isinstance(file, _Plain) and not self._sealed:
            try:
                info = os.stat(self.path)
            except FileNotFoundError:
                info = None  # between the renaming and the new file
            if info is not None and info.st_ino == file.inode:
                return False
            # The writer closed it before it was renamed: one more look, then it is finished.
            self._sealed = True
            return True
        newer = self._successor(file)
        if newer is None:
            return False
        file.close()
        self._file, self._rest, self._sealed = newer, b"", False
        return True

    def _successor(self, file: _File) -> _File | None:
        """The file after ``file`` in the chain; None: ``file`` is still the newest."""
        looks = 0
        for _ in range(_TRIES):
            names = chain(self.path)
            index = _find(names, file)
            if index is None:
                looks += not file.named
                if looks >= _LOOKS:
                    break
                # It may have been renamed between the two.
                time.sleep(_PAUSE)
                continue
            if index + 1 == len(names):
                return None
            newer = _open(names[index + 1])
            # The writer renames the older file first: if that is still in its place, the newer one was, too.
            if newer is not None and _find(names[index : index + 1], file) == 0:
                return newer
            if newer is not None:
                newer.close()
        # It was dropped: the oldest that is left is what followed it.
        return self._oldest(chain(self.path))


def _find(names: list[str], file: _File) -> int | None:
    """Where in the chain an open file is now."""
    for index in range(len(names) - 1, -1, -1):
        if (candidate := _open(names[index])) is not None:
            same = candidate.inode == file.inode
            if not same and type(candidate) is not type(file):
                same = candidate.identity[:_IDENTITY] == file.identity[:_IDENTITY] != b""
            candidate.close()
            if same:
                return index
    return None
