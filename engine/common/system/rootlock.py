"""The lock of a daemon on its root directory: an flock(2), which the kernel releases when the process ends.

The file contains the owner's pid, so that another process can wait for the owner or end it.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from engine.common.errors import Kind, WharfError

_PAUSE = 0.02  # seconds between two attempts: flock has no timeout


@contextlib.contextmanager
def locked(path: str, *, seconds: float, busy: str) -> Iterator[None]:
    """Holds the lock during the block. Blocks for at most ``seconds`` while another process has it.

    Opens the descriptor here, after all forks: the lock lasts as long as any copy of the descriptor.

    :raises WharfError: UNAVAILABLE with the message ``busy``: another process still has it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + seconds
        while not _taken(fd):
            if time.monotonic() > deadline:
                raise WharfError(Kind.UNAVAILABLE, busy)
            time.sleep(_PAUSE)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(fd)


def owner(path: str) -> int | None:
    """The pid of the process that holds the lock, 0 if the pid is unknown; None: the lock is free."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _taken(fd, fcntl.LOCK_SH):
            return None
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)


def _taken(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
