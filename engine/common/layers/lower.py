"""Reads the layers below an overlay's upper directory, for entries that an archive requires but doesn't contain.

A tool may write ``usr/bin/x`` without an entry for ``usr/bin``: in the upper directory that parent must then have the
lower one's owner, mode and attributes (or be the same link), since a directory of the upper layer hides the attributes
of those below.
"""

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Found:
    parent: int  # an fd of the lower directory that contains it; the caller closes it
    name: str
    stat: os.stat_result


class Lowers:
    """The lower directories, the nearest first, as fds that were opened before the thread changed its root."""

    def __init__(self, fds: Sequence[int]) -> None:
        self._fds = fds

    def __bool__(self) -> bool:
        return bool(self._fds)

    def copy_up(self, path: str, *, directory: bool = False) -> int:
        """Copies a lower file (or the directory itself, without content) to the same path in the upper directory, whose
        parent exists. Returns its ``st_mode``; 0 if there is none, or (``directory``) if it is neither a directory nor
        a link."""
        found = self._find(path)
        if found is None:
            return 0
        try:
            mode = found.stat.st_mode
            if stat.S_ISDIR(mode):
                if not directory:
                    return 0
                os.mkdir(path, 0o700)
            elif stat.S_ISLNK(mode):
                os.symlink(os.readlink(found.name, dir_fd=found.parent), path)
            elif directory:
                return 0
            elif stat.S_ISREG(mode):
                _copy_file(found, path)
            else:
                os.mknod(path, stat.S_IFMT(mode) | 0o600, found.stat.st_rdev)
            _copy_attributes(found, path)
            return mode
        finally:
            os.close(found.parent)

    def _find(self, path: str) -> _Found | None:
        parts = path.split("/")
        for root in self._fds:
            fd = os.dup(root)
            keep = False
            try:
                opaque = False
                reached = True
                for part in parts[:-1]:
                    try:
                        deeper = os.open(part, _DIRECTORY, dir_fd=fd)
                    except FileNotFoundError:
                        reached = False
                        break
                    except OSError as error:
                        if error.errno in (errno.ENOTDIR, errno.ELOOP):
                            return None  # a whiteout or another file hides everything below
                        raise
                    os.close(fd)
                    fd = deeper
                    opaque = opaque or _is_opaque(fd)
                if reached:
                    try:
                        status = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
                    except FileNotFoundError:
                        status = None
                    if status is not None:
                        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                            return None
                        keep = True
                        return _Found(fd, parts[-1], status)
                if opaque:
                    return None
            finally:
                if not keep:
                    os.close(fd)
        return None


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def _copy_file(found: _Found, path: str) -> None:
    source = os.open(found.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found.parent)
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while os.copy_file_range(source, target, 1 << 30):
                pass
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_attributes(found: _Found, path: str) -> None:
    status = found.stat
    os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(path, stat.S_IMODE(status.st_mode))
    if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(found.name, flags, dir_fd=found.parent)
        try:
            for key in os.listxattr(fd):
                if not key.startswith("trusted.overlay."):
                    os.setxattr(path, key, os.getxattr(fd, key), follow_symlinks=False)
        finally:
            os.close(fd)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
