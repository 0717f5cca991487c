"""The files of a log, opened while the shim may rotate, compress and remove them.

A rotation renames ``x.1`` to ``x.2`` and so on, the highest number first, and ``x`` to ``x.1`` last; then ``x.1`` may
be compressed to ``x.1.gz``. So a file's number only grows, and a reader that opens the numbers in ascending order
misses no file: it may open a renamed file twice, and find no file for one number. An open file is identified by its
inode, which no other file can get while it is open; the header of a compressed file has the inode of its original.
"""

import os
import zlib
from collections.abc import Iterator

CHUNK = 1 << 18
# Bytes at the beginning of a file that identify it: they include the time of its first record.
_IDENTITY = 1 << 16
# Bytes at the beginning of a file that show whether it was truncated and written again.
_HEAD = 256
# How often older() looks again for a file that is renamed at the same time.
_ATTEMPTS = 1000
# RFC 1952: the extra field of a header, and our subfield in it (engine/shim/logs/rotate.py).
_FEXTRA, _ORIGIN = 4, b"WF"


class Plain:
    """An open, uncompressed file. ``position``: the offset of the next read."""

    def __init__(self, fd: int, number: int = 0) -> None:
        """``close`` closes ``fd``."""
        self.fd = fd
        self.number = number
        self.inode = os.fstat(fd).st_ino
        self.position = 0
        self._head = os.pread(fd, _HEAD, 0)

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def restarted(self) -> bool:
        """Whether the file was truncated and written again since the last call. The shim does so if the disk has no
        space for a new file."""
        head = os.pread(self.fd, _HEAD, 0)
        former, self._head = self._head, head
        return head[: len(former)] != former or self.size < self.position

    def read(self, size: int = CHUNK) -> bytes:
        data = os.pread(self.fd, size, self.position)
        self.position += len(data)
        return data

    def at(self, size: int, offset: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def close(self) -> None:
        os.close(self.fd)


class Packed:
    """A rotated, gzipped file; it can be read only from its beginning."""

    def __init__(self, fd: int, number: int) -> None:
        """``close`` closes ``fd``."""
        self.fd = fd
        self.number = number
        self.inode = os.fstat(fd).st_ino
        self.origin = _origin(os.pread(fd, _HEAD, 0))
        self._skip = 0
        self._stream = self._unpack()

    def _unpack(self) -> Iterator[bytes]:
        """The decompressed content; ends early if the file is damaged."""
        inflate, offset = zlib.decompressobj(31), 0
        while raw := os.pread(self.fd, CHUNK, offset):
            offset += len(raw)
            try:
                yield inflate.decompress(raw)
            except zlib.error:
                return
        yield inflate.flush()

    def identity(self) -> bytes:
        """The first ``_IDENTITY`` bytes of the content."""
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
        """The next part of the content, of any size; b"" at the end."""
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
    """The inode of the original file, from the header of a gzipped one; 0: the header doesn't have it."""
    if len(head) < 12 or not head[3] & _FEXTRA:
        return 0
    extra = head[12 : 12 + int.from_bytes(head[10:12], "little")]
    while len(extra) >= 4:
        size = int.from_bytes(extra[2:4], "little")
        if extra[:2] == _ORIGIN:
            return int.from_bytes(extra[4 : 4 + size], "little")
        extra = extra[4 + size :]
    return 0


def _same(opened: File, candidate: File) -> bool:
    """Whether ``candidate`` has the content of ``opened``: the same file, or the compressed copy of it."""
    if opened.inode == candidate.inode:
        return True
    if isinstance(opened, Packed) or isinstance(candidate, Plain):
        # The original of a compressed file is removed, and another file may have its inode.
        return False
    if candidate.origin:
        return candidate.origin == opened.inode
    return candidate.identity() == opened.at(_IDENTITY, 0) != b""


class LogFiles:
    """The files of the log at ``path``. All methods block on the disk; the caller closes the returned files."""

    def __init__(self, path: str) -> None:
        self.path = path

    def newest(self) -> File | None:
        """The file that is written now; None: there is no file."""
        return next(self._ascending(0), None)

    def oldest(self) -> File | None:
        """The oldest file; None: there is no file."""
        found: File | None = None
        for file in self._ascending(max(self._numbers(), default=0)):
            if found is not None:
                found.close()
            found = file
        return found

    def newer(self, opened: File) -> File | None:
        """The next file after ``opened``; None: there is none yet. If the rotation has removed ``opened``: the oldest
        remaining file."""
        start = max(0, opened.number - 1)
        while True:
            exists, found = self._up_to(opened, start)
            if not exists:
                return found or self.oldest()
            below = [number for number in self._numbers() if number < opened.number]
            if found is not None or not below:
                return found
            # Files between the two were removed.
            start = max(below)

    def older(self, opened: File) -> File | None:
        """The file before ``opened``; None: there is none any more."""
        for _ in range(_ATTEMPTS):
            if not self._locate(opened):
                return None
            number = opened.number
            found = next(self._ascending(number + 1), None)
            # Unless ``opened`` was renamed meanwhile, the found file is the one before it.
            if self._locate(opened) and opened.number == number:
                return found
            if found is not None:
                found.close()
        return None

    def _up_to(self, opened: File, start: int) -> tuple[bool, File | None]:
        """Opens the files from number ``start`` up to ``opened``. Whether ``opened`` exists, and the last file below
        it.
        """
        last: File | None = None
        for file in self._ascending(start):
            if _same(opened, file):
                opened.number = file.number
                file.close()
                return True, last
            if last is not None:
                last.close()
            last = file
        return False, last

    def _locate(self, opened: File) -> bool:
        """Updates ``opened.number``; False: the file was removed."""
        exists, last = self._up_to(opened, opened.number)
        if last is not None:
            last.close()
        return exists

    def _numbers(self) -> list[int]:
        """The numbers of the existing files; 0 is the file that is written now."""
        directory, base = os.path.split(self.path)
        try:
            names = os.listdir(directory or ".")
        except FileNotFoundError:
            return []
        endings = [name.removeprefix(base + ".").removesuffix(".gz") for name in names if name.startswith(base + ".")]
        return [int(ending) for ending in endings if ending.isdecimal()] + ([0] if base in names else [])

    def _ascending(self, number: int) -> Iterator[File]:
        """Opens the files from ``number`` on. During a rotation one number may be missing; if more are, files were
        removed."""
        missing = 0
        while missing < 2 or number <= max(self._numbers(), default=0):
            file = self._open(number)
            missing = missing + 1 if file is None else 0
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
