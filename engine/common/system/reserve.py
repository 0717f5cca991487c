"""Space for a SQLite database on a full disk, so that its daemon can still record what ends and what is removed.

Two parts. The write-ahead log is allocated in advance: SQLite writes it from its beginning after each checkpoint, so
commits need no new space as long as the database itself does not grow. And a file without a meaning is kept beside the
database; it is removed for the writes that free space when a commit has failed all the same. The first part comes
first because a program that fills the disk also takes what the second one gives back.
"""

import contextlib
import errno
import os
import sqlite3

from engine.common.errors import Kind, WharfError

_FILE_SIZE = 1 << 20
#: Twice what SQLite writes until its automatic checkpoint (1,000 pages of 4 KiB).
_LOG_SIZE = 8 << 20
_BLOCK = 512  # of st_blocks, stat(2)


class Reserve:
    """Belongs to the database at the path ``database``, whose folder exists. Its methods block, for less than a
    millisecond."""

    def __init__(self, database: str) -> None:
        self._log = f"{database}-wal"
        self._file = os.path.join(os.path.dirname(database), "reserve")
        self.held = False

    def renew(self) -> None:
        """Allocates both parts, if there is space. The database is open: before that, it has no log."""
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
        """Removes the file. False: there was none."""
        self.held = False
        try:
            os.unlink(self._file)
        except FileNotFoundError:
            return False
        return True

    @staticmethod
    def _allocate(path: str, size: int, flags: int) -> None:
        # SQLite takes zeros behind the last commit for the log's end: their checksum is wrong.
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
    """A full disk, or a quota that is used up, as RESOURCE_EXHAUSTED in the kernel's words; any other error as it is.
    What a client and the log get is one sentence: it is no defect of ours."""
    if is_full(error):
        return WharfError(Kind.RESOURCE_EXHAUSTED, f"write metadata: {os.strerror(errno.ENOSPC).lower()}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = os.strerror(error.errno).lower()
        return WharfError(Kind.RESOURCE_EXHAUSTED, f"{error.filename}: {reason}" if error.filename else reason)
    return error
