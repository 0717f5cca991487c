"""Mounts a task's root file system from a snapshotter's mounts."""

import os
from collections.abc import Sequence

from engine.api.types import Mount
from engine.common.errors import WharfError, internal, not_implemented
from engine.common.system import linux, mounts

_SET = {
    "bind": linux.MS_BIND,
    "rbind": linux.MS_BIND | linux.MS_REC,
    "ro": linux.MS_RDONLY,
    "nosuid": linux.MS_NOSUID,
    "nodev": linux.MS_NODEV,
    "noexec": linux.MS_NOEXEC,
    "sync": linux.MS_SYNCHRONOUS,
    "dirsync": linux.MS_DIRSYNC,
    "noatime": linux.MS_NOATIME,
    "nodiratime": linux.MS_NODIRATIME,
    "relatime": linux.MS_RELATIME,
    "strictatime": linux.MS_STRICTATIME,
}
_PROPAGATION = {
    "private": linux.MS_PRIVATE,
    "rprivate": linux.MS_PRIVATE | linux.MS_REC,
    "slave": linux.MS_SLAVE,
    "rslave": linux.MS_SLAVE | linux.MS_REC,
    "shared": linux.MS_SHARED,
    "rshared": linux.MS_SHARED | linux.MS_REC,
}
_PLAIN = frozenset(("rw", "defaults", "async", "atime", "dev", "exec", "suid"))


def mount_rootfs(rootfs: Sequence[Mount], target: str) -> None:
    """Mounts in order at ``target``. Blocks; removes all mounts after a failure.

    :raises WharfError: INTERNAL naming the mount; NOT_IMPLEMENTED for loop devices.
    """
    try:
        for mount in rootfs:
            _mount(mount, os.path.join(target, mount.target.lstrip("/")) if mount.target else target)
    except OSError as error:
        mounts.unmount_under(target)
        raise internal(f"failed to mount rootfs component: {error.strerror}: {error.filename or target}") from error
    except WharfError:
        mounts.unmount_under(target)
        raise


def _mount(mount: Mount, target: str) -> None:
    flags, propagation, data = 0, 0, []
    for option in mount.options:
        if option in _SET:
            flags |= _SET[option]
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        elif option == "loop":
            raise not_implemented(f"mount option loop of {mount.source} is not supported")
        elif option not in _PLAIN:
            data.append(option)
    mounts.mount(mount.source, target, mount.type, flags, ",".join(data))
    if flags & linux.MS_BIND and flags & ~(linux.MS_BIND | linux.MS_REC):
        # mount(2) applies other flags to a bind mount only in a remount.
        linux.mount(None, target, None, flags | linux.MS_REMOUNT, None)
    if propagation:
        linux.mount(None, target, None, propagation, None)
