"""The files of the content store. All functions block and are called in a thread.

::

    <root>/io.containerd.content.v1.content/
        blobs/<algorithm>/<hex>       complete, verified, mode 0444
        ingest/<folder>/data          being written; <folder> is a hash of namespace and ref
        trash/                        removed from the store, deleted in the background
        recipes/<algorithm>-<hex>     re-creates a blob that has no file (``engine.supervisor.recipes``)
"""

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator

from engine.common.errors import Kind, WharfError, internal
from engine.common.system import private

_CHUNK = 1 << 20
_STEP = 256 << 10  # small enough to stay in the processor's cache between read and hash


class BlobFiles:
    """``root``: the supervisor's root directory."""

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, "io.containerd.content.v1.content")
        private.restrict_directory(self._root)
        for name in ("blobs", "ingest", "trash", "recipes"):
            private.make_directory(os.path.join(self._root, name))

    def path(self, digest: str) -> str:
        algorithm, _, encoded = digest.partition(":")
        return os.path.join(self._root, "blobs", algorithm, encoded)

    def exists(self, digest: str) -> bool:
        return os.path.exists(self.path(digest))

    def open(self, digest: str) -> int:
        """A readable fd; raises NOT_FOUND if the file doesn't exist."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise WharfError(Kind.NOT_FOUND, f"content {digest}: not found") from None

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yields every blob that has a file, with the file's size."""
        base = os.path.join(self._root, "blobs")
        for algorithm in os.listdir(base):
            with os.scandir(os.path.join(base, algorithm)) as entries:
                for entry in entries:
                    yield f"{algorithm}:{entry.name}", entry.stat().st_size

    @staticmethod
    def folder(namespace: str, ref: str) -> str:
        return hashlib.sha256(f"{namespace}/{ref}".encode()).hexdigest()

    def ingest_data(self, folder: str) -> str:
        return os.path.join(self._root, "ingest", folder, "data")

    def progress(self, folder: str) -> tuple[int, int]:
        """An ingest's size, and the time of its last write; zeros before the first. (One stat: may be called in the
        loop.)"""
        try:
            found = os.stat(self.ingest_data(folder))
        except FileNotFoundError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def folders(self) -> list[str]:
        return os.listdir(os.path.join(self._root, "ingest"))

    def store(self, folder: str, digest: str) -> None:
        """Renames an ingest's file to the blob's path. One rename, so that it can be part of a metadata write."""
        target = self.path(digest)
        try:
            os.rename(self.ingest_data(folder), target)
        except FileNotFoundError:
            private.make_directory(os.path.dirname(target))
            os.rename(self.ingest_data(folder), target)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(self._root, "ingest", folder))

    def discard_ingest(self, folder: str) -> None:
        shutil.rmtree(os.path.join(self._root, "ingest", folder), ignore_errors=True)

    def discard(self, digest: str) -> None:
        """Removes the blob's file from the store at once; ``empty_trash`` frees its space."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(digest), os.path.join(self.trash, digest.replace(":", "-")))

    @property
    def trash(self) -> str:
        return os.path.join(self._root, "trash")

    def recipe(self, digest: str) -> str:
        return os.path.join(self._root, "recipes", digest.replace(":", "-"))

    def recipes(self) -> set[str]:
        """The digests of all recipes."""
        return {name.replace("-", ":", 1) for name in os.listdir(os.path.join(self._root, "recipes"))}

    def discard_recipe(self, digest: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.recipe(digest))

    def empty_trash(self) -> None:
        for name in os.listdir(self.trash):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.trash, name))


class IngestFile:
    """The bytes of one open write, hashed as they arrive.

    ``append``, ``hash_until``, ``truncate`` and ``close`` block on the disk and exclude each other: the thread of a
    cancelled call may still write, and ``close`` waits for it. All other methods may be called in the loop and don't
    block.
    """

    def __init__(self, path: str, algorithm: str) -> None:
        self._fd = -1
        self._busy = threading.Lock()  # held during disk I/O
        self._lock = threading.Lock()  # held briefly
        self._grown = threading.Condition(self._lock)
        self._whole = False
        self._restarts = 0  # the number of restarts at offset 0
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self.offset = 0
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while data := os.pread(self._fd, _CHUNK, self.offset):  # resume: hash the bytes of an earlier write
            self._hash.update(data)
            self.offset += len(data)

    def __del__(self) -> None:
        self.close()

    @property
    def digest(self) -> str:
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    def append(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        with self._busy:
            while view:
                try:
                    written = os.pwrite(self._fd, view, self.offset)
                except OSError:
                    # The disk is full: the bytes so far are useless, and other writers may need the space.
                    self._restart()
                    raise
                self._add(view[:written])
                view = view[written:]

    def _add(self, data: memoryview) -> None:
        self._hash.update(data)
        with self._grown:
            self.offset += len(data)
            self._grown.notify_all()

    def writable(self) -> int:
        """Another descriptor of the file, for writing."""
        with self._lock:
            if self._fd < 0:
                raise _ended()
            return os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_CLOEXEC)

    def hash_until(self, end: int) -> None:
        """Hashes bytes up to ``end`` that another process wrote, and makes them available to followers.

        :raises WharfError: FAILED_PRECONDITION: they aren't written; UNAVAILABLE: closed or restarted meanwhile.
        """
        restarts = self._restarts
        buffer = memoryview(bytearray(_STEP))
        while True:
            with self._busy:
                if self._fd < 0 or self._restarts != restarts:
                    raise _ended()
                if self.offset >= end:
                    return
                size = os.preadv(self._fd, [buffer[: end - self.offset]], self.offset)
                if not size:
                    raise WharfError(
                        Kind.FAILED_PRECONDITION, f"{self.offset} of {end} bytes are there: failed precondition"
                    )
                self._add(buffer[:size])

    def unhashed(self) -> bool:
        """Whether the file is longer than the hashed bytes."""
        with self._lock:
            return os.fstat(self._fd).st_size > self.offset

    def truncate(self) -> None:
        with self._busy:
            self._restart()

    def _restart(self) -> None:
        self._hash = hashlib.new(self._algorithm)
        with self._grown:  # notify first: no follower may read bytes that are being removed
            self.offset = 0
            self._restarts += 1
            self._grown.notify_all()
        os.ftruncate(self._fd, 0)

    def finish(self) -> int:
        """Makes the file read-only. Returns another fd of the file, for ``sync``."""
        with self._lock:
            os.fchmod(self._fd, 0o444)
            self._whole = True
            self._grown.notify_all()
            return os.dup(self._fd)

    @staticmethod
    def sync(fd: int) -> None:
        """Writes the file to the disk (fsync). Closes the fd."""
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        with self._busy:
            with self._grown:
                fd, self._fd = self._fd, -1
                self._grown.notify_all()
            if fd >= 0:
                os.close(fd)

    def follow(self) -> "Follower":
        """A reader from the first byte on that waits for further bytes."""
        with self._lock:
            if self._fd < 0:
                raise _ended()
            return Follower(self, os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC), self._restarts)

    def wait_for(self, offset: int, follower: "Follower") -> int:
        """The end of the available bytes, once that is more than ``offset`` or the write is complete. Blocks.

        :raises WharfError: UNAVAILABLE: the write was restarted, or ended before it was complete.
        """
        with self._grown:
            while True:
                if follower.stopped or follower.restarts != self._restarts:
                    raise _ended()
                if self.offset > offset or self._whole:
                    return self.offset
                if self._fd < 0:
                    raise _ended()
                self._grown.wait()

    def wake(self) -> None:
        """Wakes followers after one was stopped."""
        with self._grown:
            self._grown.notify_all()


class Follower:
    """One reader of an ingest's bytes, in its own thread; ``stop`` ends it from another. ``close`` it."""

    def __init__(self, file: IngestFile, fd: int, restarts: int) -> None:
        self._file = file
        self._fd = fd
        self._at = 0
        self.restarts = restarts
        self.stopped = False

    def peek(self, size: int) -> bytes:
        """The first bytes, once they are available."""
        end = 0
        while end < size:
            before, end = end, self._file.wait_for(end, self)
            if end == before:
                break
        return os.pread(self._fd, size, 0)

    @property
    def fd(self) -> int:
        """For reads at positions before ``end``."""
        return self._fd

    def end(self, at: int) -> int:
        """The end of the available bytes, once that is more than ``at`` or the write is complete.

        :raises WharfError: UNAVAILABLE: see ``IngestFile.wait_for``.
        """
        return self._file.wait_for(at, self)

    def read(self, size: int) -> bytes:
        """The next bytes, b"" at the end of the complete blob.

        :raises WharfError: UNAVAILABLE: see ``IngestFile.wait_for``.
        """
        end = self._file.wait_for(self._at, self)
        data = os.pread(self._fd, min(size, end - self._at), self._at)
        if not data and self._at < end:
            raise internal("an ingest's file was truncated")
        self._at += len(data)
        return data

    @property
    def digest(self) -> str:
        """The digest of the complete blob, after ``read`` has reached its end."""
        return self._file.digest

    def stop(self) -> None:
        self.stopped = True
        self._file.wake()

    def close(self) -> None:
        os.close(self._fd)


def _ended() -> WharfError:
    return WharfError(Kind.UNAVAILABLE, "the write of the blob was ended or restarted: unavailable")
