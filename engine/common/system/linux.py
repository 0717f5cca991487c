"""System calls that Python's ``os`` lacks. No other module uses ctypes for system calls.

Every wrapper turns errno into ``OSError(errno, strerror, path)``. Constants are the kernel's own numbers
(``<linux/mount.h>``, ``<linux/openat2.h>``, ``<linux/sched.h>``). ctypes releases the GIL during each call.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

# mount(2)
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000

# umount2(2)
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

# namespaces: unshare(2), setns(2)
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWNET = 0x40000000

# openat2(2)
RESOLVE_NO_MAGICLINKS = 0x2
RESOLVE_NO_SYMLINKS = 0x4
RESOLVE_BENEATH = 0x8
RESOLVE_IN_ROOT = 0x10

# mount_setattr(2), open_tree(2), move_mount(2)
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

# fsopen(2), fsconfig(2), fsmount(2)
FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

# prctl(2)
PR_SET_NAME = 15
PR_CAPBSET_READ = 23

# statfs(2), f_type
TMPFS_MAGIC = 0x01021994

# System calls added since 5.0 have the same numbers on every architecture.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442
#: openat2(2) asks for another try when a rename raced with ``..`` (EAGAIN) or a signal came (EINTR).
_ATTEMPTS = 32

_libc = ctypes.CDLL(None, use_errno=True)
_c_ulong, _c_int, _c_char_p, _c_uint = ctypes.c_ulong, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
_libc.mount.argtypes = (_c_char_p, _c_char_p, _c_char_p, _c_ulong, _c_char_p)
_libc.umount2.argtypes = (_c_char_p, _c_int)
_libc.setns.argtypes = (_c_int, _c_int)
_libc.unshare.argtypes = (_c_int,)
_libc.prctl.argtypes = (_c_int, _c_ulong, _c_ulong, _c_ulong, _c_ulong)
_libc.inotify_init1.argtypes = (_c_int,)
_libc.inotify_add_watch.argtypes = (_c_int, _c_char_p, ctypes.c_uint32)
_libc.inotify_rm_watch.argtypes = (_c_int, _c_int)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _StatFs(ctypes.Structure):
    # Only f_type is read; the padding covers every architecture's struct.
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_char * 248))


_libc.statfs.argtypes = (_c_char_p, ctypes.POINTER(_StatFs))


def _encode(text: str | None) -> bytes | None:
    return None if text is None else _path(text)


def _path(text: str) -> bytes:
    """:raises OSError: EINVAL: the text has a NUL, where the kernel would end the string."""
    data = os.fsencode(text)
    if b"\0" in data:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), text)
    return data


def _check(result: int, path: str | None = None) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def mount(source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). ``data`` is the file system's own options, comma separated."""
    _check(_libc.mount(_encode(source), _encode(target), _encode(fstype), flags, _encode(data)), target)


def syncfs(fd: int) -> None:
    """Writes the file system of ``fd`` to the disk."""
    _check(_libc.syncfs(fd))


def umount(target: str, flags: int = 0) -> None:
    """umount2(2). EINVAL: not a mount point; EBUSY: in use (without ``MNT_DETACH``)."""
    _check(_libc.umount2(_encode(target), flags), target)


def setns(fd: int, nstype: int = 0) -> None:
    """Moves the calling *thread* into the namespace of ``fd`` (or, with a pidfd, into several at once)."""
    _check(_libc.setns(fd, nstype))


def unshare(flags: int) -> None:
    """Moves the calling *thread* into new namespaces."""
    _check(_libc.unshare(flags))


@contextmanager
def in_namespace(path: str, nstype: int) -> Iterator[None]:
    """Runs the block inside the namespace at ``path`` and returns to the thread's own afterwards.

    Only for kinds that a thread of a multi-threaded process may join: net, uts, ipc, cgroup. The block must not await.
    If returning fails, the process is aborted: the thread must not continue in the wrong namespace.
    """
    kind = {CLONE_NEWNET: "net", CLONE_NEWUTS: "uts", CLONE_NEWIPC: "ipc", CLONE_NEWCGROUP: "cgroup"}[nstype]
    own = os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(target, nstype)
        finally:
            os.close(target)
        try:
            yield
        finally:
            try:
                setns(own, nstype)
            except OSError:
                os.abort()
    finally:
        os.close(own)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2). Returns what the operation returns."""
    return _check(_libc.prctl(option, arg2, arg3, arg4, arg5))


def prctl_set_name(name: str) -> None:
    """The thread's name in ``ps`` (cut at 15 bytes)."""
    buffer = ctypes.create_string_buffer(os.fsencode(name)[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def capability_in_bounding_set(number: int) -> bool:
    """Whether this process could ever have the capability. OSError EINVAL: the kernel does not know it."""
    return prctl(PR_CAPBSET_READ, number) == 1


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): opens ``path`` below ``dirfd``; ``resolve`` confines the resolution.

    Returns a close-on-exec fd. EXDEV/ELOOP: the path left its bounds. EAGAIN (a rename raced with ``..``) and
    EINTR are retried here, as the man page recommends.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for attempt in range(_ATTEMPTS):
        result = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            _c_int(dirfd),
            _c_char_p(_path(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        again = result == -1 and ctypes.get_errno() in (errno.EAGAIN, errno.EINTR)
        if not again or attempt == _ATTEMPTS - 1:
            break
    return _check(result, path)


def mount_setattr(
    dirfd: int,
    path: str,
    flags: int = 0,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """mount_setattr(2) (5.12): with ``AT_RECURSIVE`` in ``flags`` a whole tree at once."""
    attr = _MountAttr(attr_set, attr_clr, propagation, userns_fd)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        _c_int(dirfd),
        _c_char_p(_path(path)),
        _c_uint(flags),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )
    _check(result, path)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2): an fd of a mount, with ``OPEN_TREE_CLONE`` of a detached copy of it."""
    result = _libc.syscall(
        ctypes.c_long(_SYS_OPEN_TREE),
        _c_int(dirfd),
        _c_char_p(_path(path)),
        _c_uint(flags | OPEN_TREE_CLOEXEC),
    )
    return _check(result, path)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    """move_mount(2): attaches the result of ``open_tree``."""
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOVE_MOUNT),
        _c_int(from_fd),
        _c_char_p(_path(from_path)),
        _c_int(to_fd),
        _c_char_p(_path(to_path)),
        _c_uint(flags),
    )
    _check(result, to_path or from_path)


def fsopen(fstype: str) -> int:
    """fsopen(2) (5.2): an fd that configures a new mount of this file system."""
    return _check(_libc.syscall(ctypes.c_long(_SYS_FSOPEN), _c_char_p(_path(fstype)), _c_uint(FSOPEN_CLOEXEC)))


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """fsconfig(2): sets one option (a string has at most 255 bytes), or ``FSCONFIG_CMD_CREATE``."""
    result = _libc.syscall(
        ctypes.c_long(_SYS_FSCONFIG),
        _c_int(fd),
        _c_uint(command),
        _c_char_p(_encode(key)),
        _c_char_p(_encode(value)),
        _c_int(0),
    )
    _check(result)


def fsmount(fd: int, attributes: int) -> int:
    """fsmount(2): an fd of the detached mount, for ``move_mount``. ``attributes``: ``MOUNT_ATTR_…``."""
    result = _libc.syscall(ctypes.c_long(_SYS_FSMOUNT), _c_int(fd), _c_uint(FSMOUNT_CLOEXEC), _c_uint(attributes))
    return _check(result)


def filesystem_type(path: str) -> int:
    """``f_type`` of statfs(2): the magic number of the file system at ``path``."""
    buffer = _StatFs()
    _check(_libc.statfs(_encode(path), ctypes.byref(buffer)), path)
    return int(buffer.f_type) & 0xFFFFFFFF


def inotify_init(flags: int) -> int:
    return _check(_libc.inotify_init1(flags))


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    return _check(_libc.inotify_add_watch(fd, _encode(path), mask), path)


def inotify_rm_watch(fd: int, watch: int) -> None:
    _check(_libc.inotify_rm_watch(fd, watch))
