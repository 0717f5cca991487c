"""The paths of extracted entries inside the confined root: creates missing parents and removes obstacles."""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import TypeVar

from engine.common.errors import invalid
from engine.common.layers.lower import Lowers

_LINKS_MAX = 40

_T = TypeVar("_T")


class TargetPaths:
    """The target of one extraction. ``mark``: it is an overlay's upper directory, where whiteouts are devices;
    ``base``: the directory inside the root that names are relative to."""

    def __init__(self, *, mark: bool, lowers: Sequence[int], base: str, no_overwrite_kind: bool) -> None:
        self.lowers = Lowers(lowers)
        self._mark = mark
        self._base = base
        self._no_overwrite_kind = no_overwrite_kind

    def make(self, name: str, operation: Callable[[str], _T]) -> _T:
        """Calls ``operation``, which creates ``name``; creates missing parents and removes an existing file before a
        retry."""
        for _ in range(3):
            try:
                return operation(name)
            except FileNotFoundError:
                self.ensure(os.path.dirname(name))
            except FileExistsError:
                self._clear(name)
        return operation(name)

    def _clear(self, name: str) -> None:
        if stat.S_ISDIR(os.lstat(name).st_mode):
            if self._no_overwrite_kind:
                raise invalid(f"cannot overwrite directory {name!r} with non-directory")
            remove_tree(name)
        else:
            os.unlink(name)

    def ensure(self, path: str) -> None:
        """Creates the directories of ``path`` with the attributes of the layers below; follows links."""
        top = f"/{self._base}" if self._base else ""
        done = top
        todo = [part for part in reversed(path.split("/")) if part]
        links = 0
        while todo:
            part = todo.pop()
            if part == "." or part == "..":
                done = os.path.dirname(done) if part == ".." else done
                continue
            here = f"{done}/{part}" if done else part
            try:
                found = os.lstat(here).st_mode
            except FileNotFoundError:
                found = self.lowers.copy_up(here, directory=True)
                if not found:
                    os.mkdir(here, 0o755)
                    found = stat.S_IFDIR
            if stat.S_ISDIR(found):
                done = here
            elif stat.S_ISLNK(found):
                links += 1
                if links > _LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), here)
                target = os.readlink(here)
                if target.startswith("/"):
                    done = "/" if top else ""
                todo += [part for part in reversed(target.split("/")) if part]
            elif self._mark and stat.S_ISCHR(found) and is_whiteout(os.lstat(here)):
                os.unlink(here)
                os.mkdir(here, 0o755)
                set_opaque(here)
                done = here
            else:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), here)


def is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def set_opaque(path: str) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        os.setxattr(path, "trusted.overlay.opaque", b"y", follow_symlinks=False)


def remove_tree(path: str) -> None:
    """Removes a directory inside the confined root. No other process changes that tree; links are not followed."""
    for name in os.listdir(path):
        child = f"{path}/{name}"
        if stat.S_ISDIR(os.lstat(child).st_mode):
            remove_tree(child)
        else:
            os.unlink(child)
    os.rmdir(path)
