"""The snapshotter for hosts without overlayfs: every snapshot is a complete copy of its parent's tree.

Slow and large, but it requires nothing from the kernel; on a file system with reflinks, the copies share blocks.
"""

import os
import tempfile
from collections.abc import Sequence

from engine.api.types import Mount, SnapshotKind, Usage
from engine.supervisor.snapshots.folders import Folders, disk_usage, remove_tree
from engine.supervisor.snapshots.tree import copy_tree


class CopySnapshotter:
    name = "native"
    stages = True

    def __init__(self, root: str) -> None:
        self.root = os.path.join(root, "io.containerd.snapshotter.v1.native")
        self._folders = Folders(self.root)

    def check(self) -> str:
        return ""

    def stage(self, parents: Sequence[int]) -> str:
        if not parents:
            return ""
        staged = tempfile.mkdtemp(prefix="new-", dir=self._folders.root)
        try:
            copy_tree(self._folders.path(parents[0]), os.path.join(staged, "fs"))
        except BaseException:
            remove_tree(staged)
            raise
        return staged

    def create(self, number: int, parents: Sequence[int], kind: SnapshotKind, staged: str) -> None:
        target = self._folders.make(number)
        if staged:
            os.rename(staged, target)
        else:
            os.mkdir(os.path.join(target, "fs"), 0o755)

    def unstage(self, staged: str) -> None:
        if staged:
            remove_tree(staged)

    def mounts(self, number: int, parents: Sequence[int], kind: SnapshotKind) -> tuple[Mount, ...]:
        mode = "rw" if kind is SnapshotKind.ACTIVE else "ro"
        return (Mount("bind", self._folders.path(number), "", (mode, "rbind")),)

    def tree(self, number: int) -> str:
        return self._folders.path(number)

    def usage(self, number: int, parents: Sequence[int]) -> Usage:
        own = disk_usage(self._folders.path(number))
        if not parents:
            return own
        below = disk_usage(self._folders.path(parents[0]))
        return Usage(max(0, own.size - below.size), max(0, own.inodes - below.inodes))

    def discard(self, number: int) -> None:
        self._folders.discard(number)

    def numbers(self) -> list[int]:
        return self._folders.numbers()

    def tidy(self) -> None:
        self._folders.tidy()
