"""The changes of a container in its root file system, from the directories of its overlay. Blocks."""

import os
import stat
from collections.abc import Iterator, Sequence

from engine.common.layers.diff import Change, ChangeKind

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def from_overlay(upper: str, lowers: Sequence[str]) -> Iterator[Change]:
    """The changes in byte order of their paths, a directory before its entries.

    ``lowers``: the lower layers, the uppermost first. As in dockerd, a directory with changed entries is modified.
    """
    fds = [os.open(path, _DIRECTORY) for path in (upper, *lowers)]
    try:
        yield from _walk(fds[0], fds[1:], "")
    finally:
        for fd in fds:
            os.close(fd)


def _walk(directory: int, lowers: Sequence[int], above: str) -> Iterator[Change]:
    for name in sorted(os.listdir(directory), key=os.fsencode):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        path = f"{above}/{name}" if above else name
        below = _below(lowers, name)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            if below is not None:
                yield Change(path, ChangeKind.DELETED)
            continue
        yield Change(path, ChangeKind.ADDED if below is None else ChangeKind.MODIFIED)
        if not stat.S_ISDIR(status.st_mode):
            continue
        fd = os.open(name, _DIRECTORY, dir_fd=directory)
        opened = [] if below is None or _opaque(fd) else _directories(lowers, name)
        try:
            yield from _walk(fd, opened, path)
        finally:
            for item in (fd, *opened):
                os.close(item)


def _below(lowers: Sequence[int], name: str) -> os.stat_result | None:
    """The file of this name in the lower layers; None: there is none, or a whiteout deletes it."""
    for lower in lowers:
        try:
            status = os.stat(name, dir_fd=lower, follow_symlinks=False)
        except FileNotFoundError:
            continue
        return None if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0 else status
    return None


def _directories(lowers: Sequence[int], name: str) -> list[int]:
    """Opens the directories of this name in the lower layers, down to an opaque one, which hides those below it."""
    found: list[int] = []
    for lower in lowers:
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=lower)
        except FileNotFoundError:
            continue
        except OSError:
            break  # a file or a whiteout hides the layers below it
        found.append(fd)
        if _opaque(fd):
            break
    return found


def _opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False
