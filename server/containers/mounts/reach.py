"""Binds of a user: sources that the user itself may reach, decided by the kernel under the user's credentials.

The source is opened (``O_PATH``) by a thread that has the user's file system ids and groups and no capability; the
descriptor is mounted, so that nobody can exchange the path in between. The container opens the file as the user again:
its root has the user's uid on the host, its processes have the user's groups that ``--group-add`` names, and other ids
in it are subordinate ones (``server/containers/host/owners.py``). So a file of another user can be mounted, but not
read. The source is opened anew at each start, with the credentials that
the client had at create.

Not followed are magic links, which would lead to this daemon's own descriptors, and not mounted is ``/proc``, also
below another directory: it shows the host's processes, and this daemon to its own threads (``docker cp``).
"""

import errno
import os
from collections.abc import Sequence
from functools import partial

from engine.common.errors import Kind, WharfError, internal
from engine.common.system import linux, mounts
from engine.common.system.credentials import Credentials, run_as
from server.access.refusal import refused
from server.containers.mounts.mountspec import MountError
from server.containers.plan import ContainerPlan, MountPoint

_PROC_MAGIC = 0x9FA0


def credentials_of(ids: Sequence[int]) -> Credentials | None:
    """The credentials in a container's record: uid, gid, supplementary groups."""
    return Credentials(ids[0], ids[1], tuple(ids[2:])) if ids else None


def exists(ids: Sequence[int], path: str) -> bool:
    """Whether the user may reach ``path``. Blocks."""
    credentials = credentials_of(ids)
    if credentials is None:
        return False
    try:
        os.close(run_as(credentials, partial(_open, path)))
    except OSError:
        return False
    return True


def open_source(container: ContainerPlan, point: MountPoint) -> int:
    """A descriptor (``O_PATH``) of the source of a user's bind; a missing directory is made if ``create_source``.
    Blocks.

    :raises WharfError: PERMISSION_DENIED: the user may not reach it; INVALID_ARGUMENT: it doesn't exist.
    """
    credentials = credentials_of(container.credentials)
    path = point.source
    if credentials is None:
        raise refused(f"the bind of {path} by a client that has no uid")
    try:
        fd = _opened(credentials, path, make=point.create_source)
    except FileNotFoundError:
        raise MountError("bind", f"bind source path does not exist: {path}") from None
    except OSError as error:
        reason = "it leads through a magic link" if error.errno == errno.ELOOP else (error.strerror or "").lower()
        if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP):
            raise WharfError(Kind.PERMISSION_DENIED, f"bind source path {path}: {reason}") from None
        raise internal(f"error while creating mount source path '{path}': {reason}") from error
    if linux.filesystem_type(f"/proc/self/fd/{fd}") == _PROC_MAGIC:
        os.close(fd)
        raise refused(f"the bind of {path}: it is a proc file system")
    return fd


def hide_proc(path: str, pid: str = "self") -> None:
    """Unmounts the proc file systems below the bind of a user at ``path``. ``pid``: of the process or thread
    (``thread-self``) in whose mount namespace the bind is. Blocks."""
    for info in reversed(mounts.mounts_under(path, pid)):
        if info.fstype == "proc":
            linux.umount(info.mountpoint, linux.MNT_DETACH)


def _opened(credentials: Credentials, path: str, *, make: bool) -> int:
    try:
        return run_as(credentials, partial(_open, path))
    except FileNotFoundError:
        if not make:
            raise
        run_as(credentials, partial(os.makedirs, path, mode=0o755, exist_ok=True))
        return run_as(credentials, partial(_open, path))


def _open(path: str) -> int:
    return linux.openat2(linux.AT_FDCWD, path, os.O_PATH, 0, linux.RESOLVE_NO_MAGICLINKS)
