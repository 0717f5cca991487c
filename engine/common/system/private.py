"""Directories and files below the data root and the exec root, which other users of the host can't list or read.

A container's root may have written set-id programs into layers and volumes, and blobs, logs and databases contain
private data (CVE-2021-41091). Directories that others must traverse (the root of containers with mapped ids, or a group
that may use a socket) have mode 0711: others can open known names only, and the entries are restricted themselves.
"""

import os
import stat

#: The mode of a directory that others may traverse, but not list.
PASSABLE = 0o711


def make_directory(path: str | os.PathLike[str], mode: int = 0o700) -> None:
    """Creates a directory, and its missing parents (which others may traverse). An existing one is not changed.

    :raises OSError: it can't be created, or a file exists there.
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
    """Creates a directory of the engine, or sets mode and owners (root, ``group``) of an existing one, which an earlier
    version or an administrator may have created."""
    make_directory(path, mode)
    found = os.stat(path)
    if (found.st_uid, found.st_gid) != (0, group):
        os.chown(path, 0, group)
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(path, mode)


def make_file(path: str | os.PathLike[str]) -> None:
    """Creates an empty file that only root reads, or restricts an existing one to root. Call it before a database opens
    the file: the database's further files get its mode."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:
            os.fchmod(fd, 0o600)
    finally:
        os.close(fd)
