"""The default snapshotter: a snapshot is a layer of overlayfs, and creating one takes two ``mkdir``.

::

    snapshots/<number>/fs     the snapshot's changes (the upper directory, later a lower one)
    snapshots/<number>/work   overlayfs's work directory
"""

import os
import tempfile
from collections.abc import Sequence

from engine.api.types import Mount, SnapshotKind, Usage
from engine.common.system import linux
from engine.supervisor.snapshots.folders import Folders, disk_usage, remove_tree


class OverlaySnapshotter:
    name = "overlayfs"
    stages = False

    def __init__(self, root: str) -> None:
        self.root = os.path.join(root, "io.containerd.snapshotter.v1.overlayfs")
        self._folders = Folders(self.root)
        # With index=on, overlayfs refuses a directory that was a layer of another mount before.
        self._options = ("index=off",) if os.path.exists("/sys/module/overlay/parameters/index") else ()

    def check(self) -> str:
        """Tests it with a mount: whether the file system supports upper directories can't be read anywhere."""
        trial = tempfile.mkdtemp(prefix="check-", dir=self._folders.root)
        paths = [os.path.join(trial, name) for name in ("lower", "upper", "work", "merged")]
        lower, upper, work, merged = paths
        try:
            for path in paths:
                os.mkdir(path)
            options = ",".join((f"lowerdir={lower}", f"upperdir={upper}", f"workdir={work}", *self._options))
            linux.mount("overlay", merged, "overlay", 0, options)
            linux.umount(merged)
        except OSError as error:
            return f"overlayfs can't mount on {self.root}: {error.strerror}"
        finally:
            remove_tree(trial)
        return ""

    def stage(self, parents: Sequence[int]) -> str:
        return ""

    def create(self, number: int, parents: Sequence[int], kind: SnapshotKind, staged: str) -> None:
        upper = os.path.join(self._folders.make(number), "fs")
        os.mkdir(upper, 0o755)
        if parents:  # the merged root has the attributes of the upper directory
            below = os.stat(self._folders.path(parents[0]))
            os.chown(upper, below.st_uid, below.st_gid)
            os.chmod(upper, below.st_mode & 0o7777)
        if kind is SnapshotKind.ACTIVE:
            os.mkdir(self._folders.path(number, "work"), 0o711)

    def unstage(self, staged: str) -> None:
        pass

    def mounts(self, number: int, parents: Sequence[int], kind: SnapshotKind) -> tuple[Mount, ...]:
        writable = kind is SnapshotKind.ACTIVE
        layers = [self._folders.path(parent) for parent in parents]
        if not parents:
            return (Mount("bind", self._folders.path(number), "", ("rw" if writable else "ro", "rbind")),)
        if writable:
            upper: tuple[str, ...] = (
                f"workdir={self._folders.path(number, 'work')}",
                f"upperdir={self._folders.path(number)}",
            )
        elif len(layers) == 1:
            return (Mount("bind", layers[0], "", ("ro", "rbind")),)
        else:
            upper = ()
        return (Mount("overlay", "overlay", "", (*self._options, *upper, f"lowerdir={':'.join(layers)}")),)

    def tree(self, number: int) -> str:
        return self._folders.path(number)

    def usage(self, number: int, parents: Sequence[int]) -> Usage:
        return disk_usage(self._folders.path(number))

    def discard(self, number: int) -> None:
        self._folders.discard(number)

    def numbers(self) -> list[int]:
        return self._folders.numbers()

    def tidy(self) -> None:
        self._folders.tidy()
