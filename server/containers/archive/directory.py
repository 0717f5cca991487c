"""The entries of one directory of a container's root. Blocks."""

import heapq
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.common import limits
from engine.common.errors import WharfError, internal, invalid, not_found
from engine.common.files import paths
from engine.common.ids import IdMaps

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """``kind``: file, directory, symlink, fifo, socket or device. ``mode``: as ``ls`` writes it. ``uid``, ``gid``: in
    the container. ``mtime_ns``: ns since the epoch. ``target``: of a symbolic link, as it is stored."""

    name: str
    kind: str
    size: int
    mode: str
    uid: int
    gid: int
    mtime_ns: int
    target: str = ""


def read_directory(root: int, path: str, maps: IdMaps | None) -> tuple[Sequence[DirectoryEntry], bool]:
    """The entries of a directory, directories first, by name; and whether there are more than ``DIRECTORY_ENTRIES``.

    ``root``: a descriptor of the container's root; symbolic links of the path are resolved below it. ``maps``: to show
    the owners that a process inside sees.

    :raises WharfError: NOT_FOUND with the path as its message; INVALID_ARGUMENT: it is no directory, or no valid path;
        PERMISSION_DENIED, INTERNAL: it can't be read.
    """
    try:
        fd = paths.open_inside(root, path, _DIRECTORY)
    except FileNotFoundError:
        raise not_found(path) from None
    except NotADirectoryError:
        raise invalid(f"{path}: not a directory") from None
    except (OSError, ValueError) as error:
        raise _refused(path, error) from None
    try:
        entries = heapq.nsmallest(
            limits.DIRECTORY_ENTRIES + 1, _entries(fd, maps), key=lambda entry: (entry.kind != "directory", entry.name)
        )
    except OSError as error:
        raise _refused(path, error) from None
    finally:
        os.close(fd)
    return entries[: limits.DIRECTORY_ENTRIES], len(entries) > limits.DIRECTORY_ENTRIES


def _refused(path: str, error: OSError | ValueError) -> WharfError:
    if isinstance(error, ValueError):
        return invalid(f"{path!r}: {error}")
    return internal(f"{path}: {(error.strerror or str(error)).lower()}")


def _entries(fd: int, maps: IdMaps | None) -> Iterator[DirectoryEntry]:
    with os.scandir(fd) as found:
        for entry in found:
            try:
                status = entry.stat(follow_symlinks=False)
                target = os.readlink(entry.name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
            except OSError:
                continue  # it was removed meanwhile
            uid, gid = (
                maps.to_container(status.st_uid, status.st_gid) if maps is not None else (status.st_uid, status.st_gid)
            )
            yield DirectoryEntry(
                _shown(entry.name),
                _KINDS.get(stat.S_IFMT(status.st_mode), "device"),
                status.st_size,
                stat.filemode(status.st_mode),
                uid,
                gid,
                status.st_mtime_ns,
                _shown(target),
            )


def _shown(name: str) -> str:
    """A name for JSON: bytes that are no UTF-8 are replaced."""
    return os.fsencode(name).decode(errors="replace")
