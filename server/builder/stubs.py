"""Removes the mount points that a runtime creates in a step's root before the step becomes a layer.

A runtime creates missing mount points: ``/etc/hosts``, ``/proc``, the target of a ``--mount``. The step did not create
these files and directories, so its layer must not contain them.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence

from engine.api.types import Mount
from server.containers.mounts.snapshot import layers


def remove_stubs(rootfs: Sequence[Mount], targets: Iterable[str]) -> None:
    """Remove unchanged mount points, and parent directories without other changes. Blocks.

    Works on the layer directories, so the root must not be mounted. A root that is a full copy keeps its mount points:
    its previous content is unknown.
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


def fix_modes(rootfs: Sequence[Mount], targets: Iterable[str]) -> None:
    """Give the directories that the runtime created and that stay dockerd's mode: crun makes them sticky. Blocks."""
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
    """Remove an empty file or directory that the lower layers don't have."""
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
    """Remove a directory that was copied up only for a mount point: it is empty, and otherwise equal to the lower
    one."""
    path = os.path.join(upper, *parts)
    below = next((found for lower in lowers if os.path.lexists(found := os.path.join(lower, *parts))), "")
    try:
        own, underlying = os.lstat(path), os.lstat(below)
        if not stat.S_ISDIR(underlying.st_mode) or os.listdir(path) or "trusted.overlay.opaque" in os.listxattr(path):
            return False
        if (own.st_mode, own.st_uid, own.st_gid) != (underlying.st_mode, underlying.st_uid, underlying.st_gid):
            return False
        os.rmdir(path)
    except OSError:
        return False
    return True


def _through_link(upper: str, parts: Sequence[str]) -> bool:
    """Whether a path component is a link: then the path refers to another file."""
    for count in range(1, len(parts)):
        with contextlib.suppress(OSError):
            if stat.S_ISLNK(os.lstat(os.path.join(upper, *parts[:count])).st_mode):
                return True
    return False
