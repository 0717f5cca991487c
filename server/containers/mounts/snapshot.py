"""Access to a snapshot's files by its mounts: in the layers' directories, or mounted by the daemon."""

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
    """The directories of an overlay, uppermost first; else the one directory of the snapshot."""
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


class FileKind(Enum):
    """The result of :func:`file_kind`."""

    MISSING = "missing"
    DIRECTORY = "directory"
    FILE = "file"  # the path, or a part of it, is a file
    LINK = "link"  # the path, or a part of it, is a symbolic link: its target is known only when mounted


def file_kind(rootfs: Sequence[Mount], path: str) -> FileKind:
    """The kind of the file at ``path``, from the layers' directories. Blocks for a few system calls."""
    parts = [part for part in path.split("/") if part]
    for layer in layers(rootfs):
        current = layer
        for part in parts:
            current = f"{current}/{part}"
            try:
                info = os.lstat(current)
            except (FileNotFoundError, NotADirectoryError):
                break
            if stat.S_ISLNK(info.st_mode):
                return FileKind.LINK
            if not stat.S_ISDIR(info.st_mode):
                whiteout = stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
                return FileKind.MISSING if whiteout else FileKind.FILE
        else:
            return FileKind.DIRECTORY
    return FileKind.MISSING


class ContainerFiles:
    """Reads small files for the spec (passwd, group): from the layers' directories, or, if a path has a symbolic link,
    from a temporary mount at ``mountpoint``. See ``RootFiles``."""

    def __init__(self, rootfs: Sequence[Mount], mountpoint: str) -> None:
        self._layered: RootFiles = LayeredRoot(layers(rootfs))
        self._rootfs = rootfs
        self._mountpoint = mountpoint

    def read(self, path: str) -> bytes | None:
        try:
            return self._layered.read(path)
        except NeedsMount:
            pass
        mount_at(self._rootfs, self._mountpoint)
        try:
            return DirectoryRoot(self._mountpoint).read(path)
        finally:
            unmount_at(self._mountpoint)


async def task_rootfs(
    remap: Remap | None, rootfs: tuple[Mount, ...], mountpoint: str, stack: AsyncExitStack
) -> tuple[Mount, ...]:
    """The mounts of the root file system for the engine's task.

    With mapped ids the overlay is mounted here at ``mountpoint``, because the mounting thread must act as the
    container's root, and the engine gets a bind mount of it. ``stack`` unmounts it: close it after the task is created.
    """
    if remap is None:
        return rootfs
    await asyncio.to_thread(mount_at, rootfs, mountpoint, remap=remap)
    stack.push_async_callback(asyncio.to_thread, unmount_at, mountpoint)
    return (Mount("bind", mountpoint, options=("rbind", "rw")),)


def mount_at(rootfs: Sequence[Mount], mountpoint: str, *, read_only: bool = False, remap: Remap | None = None) -> None:
    """Mounts a snapshot at ``mountpoint``, which is made; with ``remap``, with the host's ids. Blocks.

    :raises WharfError: INTERNAL with the kernel's error.
    """
    private.make_directory(mountpoint)
    if remap is not None:
        rootfs = remap.map_mounts(rootfs)
    try:
        for mount in rootfs:
            with as_container_root(remap):
                _mount(mount, os.path.join(mountpoint, mount.target.lstrip("/")), read_only=read_only)
    except OSError as error:
        unmount_at(mountpoint)
        raise internal(f"mount of the root file system at {mountpoint}: {error.strerror}") from error


def unmount_at(mountpoint: str) -> None:
    """Undoes ``mount_at`` and removes the directory. Blocks."""
    mounts.unmount_under(mountpoint)
    try:
        os.rmdir(mountpoint)
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
