"""Reserves space for a SQLite database on a full disk, so that its daemon can still record exits and removals.

Two parts. The write-ahead log is allocated in advance: SQLite overwrites it from its start after each checkpoint, so
commits need no new space as long as the database itself does not grow. A reserve file is kept beside the database; it
is removed, for the writes that free space, when a commit fails nevertheless. The log comes first because a program that
fills the disk may also take the blocks that the removed file releases.
"""

import contextlib
import errno
import os
import sqlite3

from engine.common.errors import Kind, WharfError

_FILE_SIZE = 1 << 20
#: Twice the size that SQLite writes until its automatic checkpoint (1,000 pages of 4 KiB).
_LOG_SIZE = 8 << 20
_BLOCK = 512  # of st_blocks, stat(2)


class Reserve:
    """The reserve of the database at the path ``database``, whose folder exists. Its methods block for less than a
    millisecond."""

    def __init__(self, database: str) -> None:
        self._log = f"{database}-wal"
        self._file = os.path.join(os.path.dirname(database), "reserve")
        self.held = False

    def renew(self) -> None:
        """Allocates both parts, if there is space. Call it with the database open: before that, it has no log."""
        self.held = False
        with contextlib.suppress(OSError):
            self._allocate(self._log, _LOG_SIZE, os.O_WRONLY)
            if not os.path.exists(self._file):
                try:
                    self._allocate(self._file, _FILE_SIZE, os.O_WRONLY | os.O_CREAT)
                except OSError:
                    os.unlink(self._file)
                    raise
            self.held = True

    def release(self) -> bool:
        """Removes the reserve file. Returns False if there was none."""
        self.held = False
        try:
            os.unlink(self._file)
        except FileNotFoundError:
            return False
        return True

    @staticmethod
    def _allocate(path: str, size: int, flags: int) -> None:
        # SQLite takes zeros after the last commit for the log's end: their checksum is wrong.
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_blocks * _BLOCK < size:
                os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)


def is_full(error: BaseException) -> bool:
    """Whether SQLite found the disk full."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def disk_error(error: BaseException) -> BaseException:
    """Turns a full disk, or an exceeded quota, into RESOURCE_EXHAUSTED with the kernel's message; returns other errors
    unchanged. Clients and the log get one sentence: it is not an internal error."""
    if is_full(error):
        return WharfError(Kind.RESOURCE_EXHAUSTED, f"write metadata: {os.strerror(errno.ENOSPC).lower()}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = os.strerror(error.errno).lower()
        return WharfError(Kind.RESOURCE_EXHAUSTED, f"{error.filename}: {reason}" if error.filename else reason)
    return error
