"""File metadata as fsutil's packets carry it: modes are Go's ``os.FileMode`` bits, not the kernel's."""

import os
import stat
from dataclasses import dataclass

_DIR = 1 << 31
_SYMLINK = 1 << 27
_DEVICE = 1 << 26
_FIFO = 1 << 25
_SOCKET = 1 << 24
_SETUID = 1 << 23
_SETGID = 1 << 22
_CHARDEV = 1 << 21
_STICKY = 1 << 20

_SPECIAL = ((_SETUID, stat.S_ISUID), (_SETGID, stat.S_ISGID), (_STICKY, stat.S_ISVTX))


def to_unix(mode: int) -> int:
    """Go's file mode → ``st_mode``."""
    if mode & _DIR:
        kind = stat.S_IFDIR
    elif mode & _SYMLINK:
        kind = stat.S_IFLNK
    elif mode & _DEVICE:
        kind = stat.S_IFCHR if mode & _CHARDEV else stat.S_IFBLK
    elif mode & _FIFO:
        kind = stat.S_IFIFO
    elif mode & _SOCKET:
        kind = stat.S_IFSOCK
    else:
        kind = stat.S_IFREG
    special = sum(unix for go, unix in _SPECIAL if mode & go)
    return kind | special | (mode & 0o777)


def to_go(mode: int) -> int:
    """``st_mode`` → Go's file mode."""
    kinds = {
        stat.S_IFDIR: _DIR,
        stat.S_IFLNK: _SYMLINK,
        stat.S_IFCHR: _DEVICE | _CHARDEV,
        stat.S_IFBLK: _DEVICE,
        stat.S_IFIFO: _FIFO,
        stat.S_IFSOCK: _SOCKET,
    }
    special = sum(go for go, unix in _SPECIAL if mode & unix)
    return kinds.get(stat.S_IFMT(mode), 0) | special | (mode & 0o777)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree. ``path`` is relative, with ``/``; ``mode`` is ``st_mode``; ``mtime_ns`` since the epoch.

    ``linkname`` is a symlink's target, or for a regular file the path of the entry it is a hard link to.
    """

    path: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: str = ""
    devmajor: int = 0
    devminor: int = 0

    @property
    def wanted(self) -> bool:
        """Whether its content has to be asked for."""
        return stat.S_ISREG(self.mode) and not self.linkname


def entry_of(path: str, st: os.stat_result, *, linkname: str = "") -> Entry:
    """The entry of a file on disk."""
    device = stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode)
    return Entry(
        path=path,
        mode=st.st_mode,
        uid=st.st_uid,
        gid=st.st_gid,
        size=st.st_size if stat.S_ISREG(st.st_mode) else 0,
        mtime_ns=st.st_mtime_ns,
        linkname=linkname,
        devmajor=os.major(st.st_rdev) if device else 0,
        devminor=os.minor(st.st_rdev) if device else 0,
    )
