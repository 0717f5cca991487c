"""Mount points that a runtime makes in a step's root, taken away again before the step becomes a layer.

A runtime creates what it mounts on where it is missing: ``/etc/hosts``, ``/proc``, a ``--mount``'s target. Those
files and directories are no work of the step's and must not be in its layer.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence

from engine.api.types import Mount
from server.containers.mounts.snapshot import layers


def remove_stubs(rootfs: Sequence[Mount], targets: Iterable[str]) -> None:
    """Removes what is still as empty as it was made, and directories above that changed nothing else. Blocks.

    Works on the layers, so the root must not be mounted. A file system that is a copy keeps them: there is no telling
    what was in it before.
    """
    if not rootfs or rootfs[0].type != "overlay":
        return
    upper, *lowers = layers(rootfs)
    for target in sorted(targets, key=len, reverse=True):
        parts = [part for part in target.split("/") if part]
        if not parts or ".." in parts:
            continue
        if not _remove(upper, lowers, parts):
            continue
        while parts := parts[:-1]:
            if not (_remove(upper, lowers, parts) or _restore(upper, lowers, parts)):
                break


def settle(rootfs: Sequence[Mount], targets: Iterable[str]) -> None:
    """Gives directories that a runtime made, and that stay, the mode that dockerd's have: crun's are sticky. Blocks."""
    if not rootfs or rootfs[0].type != "overlay":
        return
    upper, *lowers = layers(rootfs)
    for target in targets:
        parts = [part for part in target.split("/") if part]
        path = os.path.join(upper, *parts)
        if _through_link(upper, parts) or any(os.path.lexists(os.path.join(lower, *parts)) for lower in lowers):
            continue
        with contextlib.suppress(OSError):
            if os.lstat(path).st_mode == stat.S_IFDIR | 0o1755:
                os.chmod(path, 0o755)


def _remove(upper: str, lowers: Sequence[str], parts: Sequence[str]) -> bool:
    """Removes an empty file or directory that the layers below don't have."""
    path = os.path.join(upper, *parts)
    if _through_link(upper, parts) or any(os.path.lexists(os.path.join(lower, *parts)) for lower in lowers):
        return False
    try:
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(path)
        elif stat.S_ISREG(found.st_mode) and found.st_size == 0:
            os.unlink(path)
        else:
            return False
    except OSError:
        return False
    return True


def _restore(upper: str, lowers: Sequence[str], parts: Sequence[str]) -> bool:
    """Removes a directory that was copied up only for a stub's sake: empty, and otherwise as below."""
    path = os.path.join(upper, *parts)
    below = next((found for lower in lowers if os.path.lexists(found := os.path.join(lower, *parts))), "")
    try:
        ours, theirs = os.lstat(path), os.lstat(below)
        if not stat.S_ISDIR(theirs.st_mode) or os.listdir(path) or "trusted.overlay.opaque" in os.listxattr(path):
            return False
        if (ours.st_mode, ours.st_uid, ours.st_gid) != (theirs.st_mode, theirs.st_uid, theirs.st_gid):
            return False
        os.rmdir(path)
    except OSError:
        return False
    return True


def _through_link(upper: str, parts: Sequence[str]) -> bool:
    """Whether a link is on the way: then the path names something else than it says."""
    for count in range(1, len(parts)):
        with contextlib.suppress(OSError):
            if stat.S_ISLNK(os.lstat(os.path.join(upper, *parts[:count])).st_mode):
                return True
    return False
