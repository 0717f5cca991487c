"""Directories and files below the data root and the exec root: other users of the host can't list or read them.

What a container's root wrote into a layer or a volume may be a set-id program, and blobs, logs and databases hold what
users don't share (CVE-2021-41091). Directories that must be passed (by the root of containers whose ids are mapped, or
to a socket that a group may use) are 0711: what isn't known by name isn't found, and what is found is closed itself.
"""

import os
import stat

#: A directory that others may pass, but not list.
PASSABLE = 0o711


def make_directory(path: str | os.PathLike[str], mode: int = 0o700) -> None:
    """Makes a directory, and those above it that are missing (which can be passed). One that is there stays as it is.

    :raises OSError: it can't be made, or a file is there.
    """
    try:
        os.mkdir(path, mode)
    except FileNotFoundError:
        above = os.path.dirname(os.fspath(path).rstrip("/"))
        if not above:
            raise
        make_directory(above, PASSABLE)
        make_directory(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def restrict_directory(path: str | os.PathLike[str], mode: int = 0o700, *, group: int = 0) -> None:
    """Makes a directory of the engine's, or gives one that is there (of an earlier version, of an administrator) this
    mode and root and ``group`` as its owners."""
    make_directory(path, mode)
    found = os.stat(path)
    if (found.st_uid, found.st_gid) != (0, group):
        os.chown(path, 0, group)
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(path, mode)


def make_file(path: str | os.PathLike[str]) -> None:
    """Makes an empty file that only root reads, or makes one that is there root's alone: before a database, whose
    further files take its mode, writes anything into it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:
            os.fchmod(fd, 0o600)
    finally:
        os.close(fd)
