"""The mounts of a snapshot: what its layers hold, and mounted by the daemon."""

import asyncio
import os
import stat
from collections.abc import Sequence
from contextlib import AsyncExitStack
from enum import Enum

from engine.api.types import Mount
from engine.common.errors import internal
from engine.common.system import linux, mounts, private
from server.containers.host.remap import Remap, as_container_root
from server.containers.spec.input import RootFiles
from server.containers.spec.users import DirectoryRoot, LayeredRoot, NeedsMount
from server.volumes.mountopts import split_options


def layers(rootfs: Sequence[Mount]) -> tuple[str, ...]:
    """The directories of an overlay, uppermost first; of a plain one the directory itself."""
    top = rootfs[0]
    if top.type != "overlay":
        return (top.source,)
    found: list[str] = []
    for option in top.options:
        key, _, value = option.partition("=")
        if key == "upperdir":
            found.insert(0, value)
        elif key == "lowerdir":
            found.extend(value.split(":"))
    return tuple(found)


class Found(Enum):
    """What :func:`look` sees at a path."""

    NOTHING = "nothing"
    DIRECTORY = "directory"
    FILE = "file"  # also on the way
    LINK = "link"  # on the way or there: only mounted it tells where it leads


def look(rootfs: Sequence[Mount], path: str) -> Found:
    """What there is at ``path``, seen in the layers without mounting them. Blocks for a few system calls."""
    parts = [part for part in path.split("/") if part]
    for layer in layers(rootfs):
        where = layer
        for part in parts:
            where = f"{where}/{part}"
            try:
                info = os.lstat(where)
            except (FileNotFoundError, NotADirectoryError):
                break
            if stat.S_ISLNK(info.st_mode):
                return Found.LINK
            if not stat.S_ISDIR(info.st_mode):
                whiteout = stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
                return Found.NOTHING if whiteout else Found.FILE
        else:
            return Found.DIRECTORY
    return Found.NOTHING


class ContainerFiles:
    """Reads small files for the spec (passwd, group) without mounting, or mounted where links need it."""

    def __init__(self, rootfs: Sequence[Mount], place: str) -> None:
        self._layered: RootFiles = LayeredRoot(layers(rootfs))
        self._rootfs = rootfs
        self._place = place

    def read(self, path: str) -> bytes | None:
        try:
            return self._layered.read(path)
        except NeedsMount:
            pass
        mount_at(self._rootfs, self._place)
        try:
            return DirectoryRoot(self._place).read(path)
        finally:
            unmount_at(self._place)


async def task_rootfs(
    remap: Remap | None, rootfs: tuple[Mount, ...], place: str, stack: AsyncExitStack
) -> tuple[Mount, ...]:
    """The root file system as the engine is to mount it for a task.

    Where ids are mapped it is mounted here, since it takes a thread that acts as the container's root, and the engine
    gets a bind of it. ``stack`` unmounts it: for when the task has been made.
    """
    if remap is None:
        return rootfs
    await asyncio.to_thread(mount_at, rootfs, place, remap=remap)
    stack.push_async_callback(asyncio.to_thread, unmount_at, place)
    return (Mount("bind", place, options=("rbind", "rw")),)


def mount_at(rootfs: Sequence[Mount], place: str, *, read_only: bool = False, remap: Remap | None = None) -> None:
    """Mounts a snapshot; with ``remap`` as its containers see it. Blocks.

    :raises WharfError: INTERNAL naming what failed.
    """
    private.make_directory(place)
    if remap is not None:
        rootfs = remap.map_mounts(rootfs)
    try:
        for mount in rootfs:
            with as_container_root(remap):
                _mount(mount, os.path.join(place, mount.target.lstrip("/")), read_only=read_only)
    except OSError as error:
        unmount_at(place)
        raise internal(f"mount of the root file system at {place}: {error.strerror}") from error


def unmount_at(place: str) -> None:
    """Unmounts what ``mount_at`` did and removes the directory. Blocks."""
    mounts.unmount_under(place)
    try:
        os.rmdir(place)
    except FileNotFoundError:
        return


def _mount(mount: Mount, target: str, *, read_only: bool) -> None:
    flags, propagation, data = split_options(",".join(mount.options))
    if read_only:
        flags |= linux.MS_RDONLY
    mounts.mount(mount.source, target, mount.type, flags, data)
    if flags & linux.MS_BIND and flags & linux.MS_RDONLY:
        linux.mount(None, target, None, flags | linux.MS_REMOUNT, None)
    if propagation:
        linux.mount(None, target, None, propagation, None)
