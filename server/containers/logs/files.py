"""The files of a log, found while their writer may rename, pack and drop them at any moment.

A rotation renames ``x.1`` to ``x.2`` and so on, the highest number first, and ``x`` to ``x.1`` last; then ``x.1`` may
become ``x.1.gz``. So a file's number only grows, and who opens the numbers in ascending order passes none by: at worst
he meets one twice that moved on meanwhile, and a number that is vacant just then. Files that are open here are known
by their inodes, which no other file can have as long; a packed one tells whose inode it was made of.
"""

import os
import zlib
from collections.abc import Iterator

CHUNK = 1 << 18
# Enough of a file's beginning to hold the time of its first record.
_IDENTITY = 1 << 16
_GLANCE = 256
# How often a file may be on the move while the one before it is looked for.
_TRIES = 1000
# RFC 1952: the extra field of a header, and our subfield in it (engine/shim/logs/rotate.py).
_FEXTRA, _ORIGIN = 4, b"WF"


class Plain:
    """An open file that is written, or was. ``position`` is where to read next."""

    def __init__(self, fd: int, number: int = 0) -> None:
        """Takes the descriptor over."""
        self.fd = fd
        self.number = number
        self.inode = os.fstat(fd).st_ino
        self.position = 0
        self._glance = os.pread(fd, _GLANCE, 0)

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def restarted(self) -> bool:
        """Whether the file was emptied and written anew since the last look: its writer found no room for another."""
        now = os.pread(self.fd, _GLANCE, 0)
        before, self._glance = self._glance, now
        return now[: len(before)] != before or self.size < self.position

    def read(self, size: int = CHUNK) -> bytes:
        data = os.pread(self.fd, size, self.position)
        self.position += len(data)
        return data

    def at(self, size: int, offset: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def close(self) -> None:
        os.close(self.fd)


class Packed:
    """A file that was rotated away and gzipped; read from its beginning only."""

    def __init__(self, fd: int, number: int) -> None:
        """Takes the descriptor over."""
        self.fd = fd
        self.number = number
        self.inode = os.fstat(fd).st_ino
        self.origin = _origin(os.pread(fd, _GLANCE, 0))
        self._skip = 0
        self._stream = self._unpack()

    def _unpack(self) -> Iterator[bytes]:
        """Ends early where a file is torn."""
        inflate, offset = zlib.decompressobj(31), 0
        while raw := os.pread(self.fd, CHUNK, offset):
            offset += len(raw)
            try:
                yield inflate.decompress(raw)
            except zlib.error:
                return
        yield inflate.flush()

    def identity(self) -> bytes:
        """The beginning of what is packed."""
        data = b""
        for part in self._unpack():
            data += part
            if len(data) >= _IDENTITY:
                break
        return data[:_IDENTITY]

    def whole(self) -> bytes:
        return b"".join(self._unpack())

    def skip(self, size: int) -> None:
        self._skip = size

    def read(self, size: int = CHUNK) -> bytes:
        """The next part, whatever its size."""
        for data in self._stream:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            if len(data) > dropped:
                return data[dropped:]
        return b""

    def close(self) -> None:
        os.close(self.fd)


File = Plain | Packed


def _origin(head: bytes) -> int:
    """The inode of the file that a gzipped one was made of; 0: its header doesn't say."""
    if len(head) < 12 or not head[3] & _FEXTRA:
        return 0
    extra = head[12 : 12 + int.from_bytes(head[10:12], "little")]
    while len(extra) >= 4:
        size = int.from_bytes(extra[2:4], "little")
        if extra[:2] == _ORIGIN:
            return int.from_bytes(extra[4 : 4 + size], "little")
        extra = extra[4 + size :]
    return 0


def _same(held: File, met: File) -> bool:
    """Whether a file that was met now is one that is held open, perhaps packed meanwhile."""
    if held.inode == met.inode:
        return True
    if isinstance(held, Packed) or isinstance(met, Plain):
        # What a packed file was made of has gone, and its inode may be another's by now.
        return False
    if met.origin:
        return met.origin == held.inode
    return met.identity() == held.at(_IDENTITY, 0) != b""


class LogFiles:
    """The files of the log at ``path``. All methods block on the disk; the caller closes what he gets."""

    def __init__(self, path: str) -> None:
        self.path = path

    def newest(self) -> File | None:
        return next(self._ascending(0), None)

    def oldest(self) -> File | None:
        found: File | None = None
        for file in self._ascending(max(self._numbers(), default=0)):
            if found is not None:
                found.close()
            found = file
        return found

    def newer(self, held: File) -> File | None:
        """The file that was begun after ``held``; None: there is none yet. Where ``held`` was dropped, and perhaps
        others after it, the oldest that is left."""
        start = max(0, held.number - 1)
        while True:
            there, found = self._up_to(held, start)
            if not there:
                return found or self.oldest()
            below = [number for number in self._numbers() if number < held.number]
            if found is not None or not below:
                return found
            # Somebody has taken files away from between the two.
            start = max(below)

    def older(self, held: File) -> File | None:
        """The file that was begun before ``held``; None: there is none any more."""
        for _ in range(_TRIES):
            if not self._locate(held):
                return None
            number = held.number
            found = next(self._ascending(number + 1), None)
            # If ``held`` has not moved meanwhile, what was met is the one before it.
            if self._locate(held) and held.number == number:
                return found
            if found is not None:
                found.close()
        return None

    def _up_to(self, held: File, start: int) -> tuple[bool, File | None]:
        """Whether ``held`` is there, and the last of the files from ``start`` on that comes before it."""
        last: File | None = None
        for file in self._ascending(start):
            if _same(held, file):
                held.number = file.number
                file.close()
                return True, last
            if last is not None:
                last.close()
            last = file
        return False, last

    def _locate(self, held: File) -> bool:
        there, last = self._up_to(held, held.number)
        if last is not None:
            last.close()
        return there

    def _numbers(self) -> list[int]:
        """The numbers in use; 0 is that of the file which is written now."""
        directory, base = os.path.split(self.path)
        try:
            names = os.listdir(directory or ".")
        except FileNotFoundError:
            return []
        endings = [name.removeprefix(base + ".").removesuffix(".gz") for name in names if name.startswith(base + ".")]
        return [int(ending) for ending in endings if ending.isdecimal()] + ([0] if base in names else [])

    def _ascending(self, number: int) -> Iterator[File]:
        """The files from a number on, opened one by one. One number may be vacant for a moment; where it is more,
        somebody has taken files away."""
        vacant = 0
        while vacant < 2 or number <= max(self._numbers(), default=0):
            file = self._open(number)
            vacant = vacant + 1 if file is None else 0
            number += 1
            if file is not None:
                yield file

    def _open(self, number: int) -> File | None:
        name = f"{self.path}.{number}" if number else self.path
        flags = os.O_RDONLY | os.O_CLOEXEC
        try:
            return Plain(os.open(name, flags), number)
        except FileNotFoundError:
            pass
        try:
            return Packed(os.open(f"{name}.gz", flags), number) if number else None
        except FileNotFoundError:
            return None
