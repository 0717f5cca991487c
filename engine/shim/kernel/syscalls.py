"""The system calls of the shim that Python's ``os`` lacks; their numbers are the same on every architecture.

``engine.common.system.linux`` has these and many more, for the daemons: the shim imports the standard library and its
own package only, as what the zygote loads is memory of each shim.
"""

import ctypes
import errno
import os

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
MOUNT_ATTR_RDONLY = 0x1
OPEN_TREE_CLONE = 0x1
RESOLVE_NO_SYMLINKS = 0x4
RESOLVE_IN_ROOT = 0x10
PR_SET_CHILD_SUBREAPER = 36

_SYS_OPEN_TREE = 428
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442
#: openat2(2) asks for another try when a rename raced with ``..`` (EAGAIN) or a signal came (EINTR).
_ATTEMPTS = 32

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _check(result: int, path: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def prctl(option: int, value: int) -> None:
    """prctl(2) for the calling process."""
    _check(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2): a close-on-exec descriptor of a mount, or with ``OPEN_TREE_CLONE`` of a detached copy of it."""
    return _check(
        _libc.syscall(
            ctypes.c_long(_SYS_OPEN_TREE),
            ctypes.c_int(dirfd),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.c_uint(flags | os.O_CLOEXEC),
        ),
        path,
    )


def set_mount_attributes(mount: int, attributes: int) -> None:
    """mount_setattr(2) (Linux 5.12) on the mount behind a descriptor."""
    attr = _MountAttr(attributes, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(mount),
        ctypes.c_char_p(b""),
        ctypes.c_uint(AT_EMPTY_PATH),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )
    _check(result, f"/proc/self/fd/{mount}")


def openat2(dirfd: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2): a close-on-exec descriptor of ``path`` below ``dirfd``. ``resolve`` confines the resolution.

    :raises OSError: EXDEV or ELOOP: the path leaves its bounds.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    for attempt in range(_ATTEMPTS):
        result = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(dirfd),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        again = result == -1 and ctypes.get_errno() in (errno.EAGAIN, errno.EINTR)
        if not again or attempt == _ATTEMPTS - 1:
            break
    return _check(result, path)
