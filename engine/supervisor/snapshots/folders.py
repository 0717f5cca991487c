"""Numbered directories, which all our snapshotters use: ``<root>/snapshots/<number>/``."""

import contextlib
import os
import shutil
import stat

from engine.api.types import Usage
from engine.common.system import mounts, private


class Folders:
    def __init__(self, root: str) -> None:
        self.root = os.path.join(root, "snapshots")
        private.restrict_directory(os.path.dirname(self.root), private.PASSABLE)
        private.restrict_directory(self.root)

    def path(self, number: int, name: str = "fs") -> str:
        return os.path.join(self.root, str(number), name)

    def numbers(self) -> list[int]:
        return [int(name) for name in os.listdir(self.root) if name.isdigit()]

    def tidy(self) -> None:
        for name in os.listdir(self.root):
            if not name.isdigit():
                path = os.path.join(self.root, name)
                # A supervisor that was killed while it tested overlayfs has left the mount.
                mounts.unmount_under(path)
                remove_tree(path)

    def make(self, number: int) -> str:
        """A new, empty directory. Replaces one that a failed write left: the number was released with it."""
        path = os.path.join(self.root, str(number))
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            remove_tree(path)
            os.mkdir(path, 0o700)
        return path

    def discard(self, number: int) -> None:
        remove_tree(os.path.join(self.root, str(number)))


def remove_tree(path: str) -> None:
    """Deletes a tree of which files may vanish meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def disk_usage(path: str) -> Usage:
    """Bytes of disk blocks and the number of inodes; a file with several names counts once."""
    root = os.lstat(path)
    seen = {(root.st_dev, root.st_ino)}
    blocks = root.st_blocks
    pending = [path]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                key = found.st_dev, found.st_ino
                if key not in seen:
                    seen.add(key)
                    blocks += found.st_blocks
                if stat.S_ISDIR(found.st_mode):
                    pending.append(entry.path)
    return Usage(size=blocks * 512, inodes=len(seen))
