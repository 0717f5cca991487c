"""A log file with Docker's rotation: ``x`` → ``x.1`` → ``x.2`` …, optionally gzipped."""

import contextlib
import errno
import os
import zlib
from collections.abc import Callable

_CHUNK = 1 << 18
# Errors of a write to a disk that is full, over its quota, or broken.
_LOSSES = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS))


def _header(inode: int) -> bytes:
    """A gzip header (RFC 1952) with an extra field: the inode of the compressed file. A reader of that file recognizes
    it by the inode, and doesn't mistake another one with the same content for it."""
    origin = inode.to_bytes(8, "little")
    extra = b"WF" + len(origin).to_bytes(2, "little") + origin
    return b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + len(extra).to_bytes(2, "little") + extra


def compress(source: str, target: str) -> None:
    """Writes ``source`` gzipped to ``target`` and removes ``source``; readers never see an unfinished target.

    Does nothing if ``source`` is another file by then (its shim has ended, and the next one rotates).
    """
    partial = target + ".tmp"
    try:
        inode = _pack(source, partial)
        if os.stat(source).st_ino != inode:
            return
        os.rename(partial, target)
        os.unlink(source)
    finally:
        _discard(partial)


def _pack(source: str, target: str) -> int:
    """Returns the inode of the compressed file."""
    with open(source, "rb", buffering=0) as reader, open(target, "wb") as writer:
        info = os.fstat(reader.fileno())
        os.fchmod(writer.fileno(), info.st_mode & 0o777)
        writer.write(_header(info.st_ino))
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        checksum = size = 0
        while data := reader.read(_CHUNK):
            writer.write(packer.compress(data))
            checksum, size = zlib.crc32(data, checksum), size + len(data)
        writer.write(packer.flush() + checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))
    return info.st_ino


class LogFile:
    """Appends to ``path``; at ``max_size`` bytes (0: never) starts a new file and keeps ``max_files`` in all.

    ``run_child`` runs a function in a child process (compression must not block the container's output) and returns a
    function that waits for its end.
    """

    def __init__(
        self,
        path: str,
        *,
        max_size: int = 0,
        max_files: int = 1,
        gzip: bool = False,
        mode: int = 0o640,
        run_child: Callable[[Callable[[], None]], Callable[[], None]] | None = None,
    ) -> None:
        self.path = path
        self.max_size = max_size
        self.max_files = max(1, max_files)
        self.gzip = gzip
        self._mode = mode
        #: Returns how many of the given bytes are whole records: here, lines.
        self.whole: Callable[[bytes], int] = lambda data: data.rfind(b"\n") + 1
        self._run_child = run_child
        self._compressing: Callable[[], None] | None = None
        self._fd = -1
        self.size = 0
        self.lost = 0
        self._open(os.O_APPEND)

    def _open(self, flag: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND | flag
        self._fd = os.open(self.path, flags, self._mode)
        self.size = os.fstat(self._fd).st_size

    def open_reader(self) -> int:
        """A new descriptor of the current file; -1: there is none."""
        try:
            return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC) if self._fd >= 0 else -1
        except OSError:
            return -1

    def remaining(self) -> int:
        """Bytes until the file is full (0 or less: it is); huge if there is no limit."""
        return self.max_size - self.size if self.max_size else 1 << 62

    def append(self, data: bytes) -> None:
        """Writes records. On a full disk the records that don't fit are lost, the container continues, and a partly
        written record is removed, so that none follows it. ``lost`` counts the bytes."""
        if self._fd < 0 and not self._reopen():
            self.lost += len(data)
            return
        before, done = self.size, 0
        view = memoryview(data)
        while done < len(data):
            try:
                done += os.write(self._fd, view[done:])
            except OSError as error:
                if error.errno not in _LOSSES:
                    raise
                kept = self.whole(data[:done])
                self.lost += len(data) - kept
                if kept < done:
                    with contextlib.suppress(OSError):
                        os.ftruncate(self._fd, before + kept)
                done = kept
                break
        self.size = before + done

    def _reopen(self) -> bool:
        try:
            self._open(0)
        except OSError:
            return False
        return True

    def rotate(self) -> None:
        """Starts a new file; if none can be created, ``append`` retries."""
        self.close()
        if self._compressing is not None:
            # The child removes x.1 at its end: nothing may be renamed to x.1 before that.
            self._compressing()
            self._compressing = None
        try:
            if self.max_files > 1:
                self._shift()
            else:
                self._replace()
        finally:
            with contextlib.suppress(OSError):
                self._open(os.O_TRUNC if self.max_files < 2 else 0)

    def _replace(self) -> None:
        """Replaces the only file by an empty one, so that its readers can read it to the end. If none can be created,
        truncates it."""
        partial = f"{self.path}.tmp"
        with contextlib.suppress(OSError):
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, self._mode))
            os.rename(partial, self.path)

    def _names(self, number: int) -> tuple[str, str]:
        return f"{self.path}.{number}", f"{self.path}.{number}.gz"

    def _shift(self) -> None:
        for name in self._names(self.max_files - 1):
            _discard(name)
        for number in range(self.max_files - 2, 0, -1):
            for old, new in zip(self._names(number), self._names(number + 1), strict=True):
                try:
                    os.rename(old, new)
                except FileNotFoundError:
                    continue
        try:
            os.rename(self.path, f"{self.path}.1")
        except FileNotFoundError:
            return
        if self.gzip:
            self._compress_first()

    def _compress_first(self) -> None:
        source, target = self._names(1)
        if self._run_child is None:
            compress(source, target)
        else:
            self._compressing = self._run_child(lambda: compress(source, target))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _discard(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
