"""File metadata in fsutil's packets: modes are bits of Go's ``os.FileMode``, not the kernel's."""

import os
import stat
from dataclasses import dataclass

from engine.common.files.gomode import to_go, to_unix

__all__ = ["Entry", "entry_from_stat", "to_go", "to_unix"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree. ``path`` is relative, with ``/``; ``mode`` is ``st_mode``; ``mtime_ns`` since the epoch.

    ``linkname``: a symbolic link's target, or for a hard link, the path of the entry that it links to.
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
    def has_content(self) -> bool:
        """Whether it has content to request."""
        return stat.S_ISREG(self.mode) and not self.linkname


def entry_from_stat(path: str, st: os.stat_result, *, linkname: str = "") -> Entry:
    """Describe a file on disk."""
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
