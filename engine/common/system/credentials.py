"""Threads that use files as another user: with that user's permissions only, or with all privileges of root.

``run_as`` runs a function in a thread of its own, whose credentials end with it. A process has its credentials per
thread in the kernel; the wrappers of the C library change those of all threads, so this module makes the system calls
itself.
"""

import ctypes
import os
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# setgroups(2); most architectures have the number of asm-generic/unistd.h.
_SYS_SETGROUPS = {"x86_64": 116, "s390x": 206, "ppc64le": 81}.get(platform.machine(), 159)
_CAP_VERSION = 0x20080522


@dataclass(frozen=True, slots=True)
class Credentials:
    """The uid, the gid and the supplementary groups of a process, in the host's user namespace."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def run_as(credentials: Credentials, function: Callable[[], T]) -> T:
    """The result of ``function``, which opens and creates files as the user: with its file system ids and groups, and
    without any capability. Blocks.

    The function must not follow magic links (``RESOLVE_NO_MAGICLINKS``): the kernel lets the threads of a process open
    the process's own ``/proc/self/fd`` whatever their ids.

    :raises OSError: the credentials can't be set. Also whatever ``function`` raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            become(credentials)
            results.append(function())
        except BaseException as error:  # raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=work, name="as-user", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


#: The number of CAP_SYS_CHROOT (include/uapi/linux/capability.h).
CAP_SYS_CHROOT = 18


def become(credentials: Credentials, *, keep: Sequence[int] = ()) -> None:
    """The calling thread opens and creates files as ``run_as`` describes from now on, for the rest of its life.

    ``keep``: numbers, below 32, of capabilities that the thread keeps.
    :raises OSError: the credentials can't be set.
    """
    groups = (ctypes.c_uint32 * len(credentials.groups))(*credentials.groups)
    _check(_libc.syscall(ctypes.c_long(_SYS_SETGROUPS), ctypes.c_size_t(len(groups)), groups))
    # These two return the former id, also if they fail: a second call returns the present one.
    for call, id in ((_libc.setfsgid, credentials.gid), (_libc.setfsuid, credentials.uid)):
        call(ctypes.c_uint(id))
        if ctypes.c_uint(call(ctypes.c_uint(0xFFFFFFFF))).value != id:
            raise OSError(1, f"the file system id {id} can't be set")
    header, data = _CapHeader(_CAP_VERSION, 0), (_CapData * 2)()
    data[0].effective = data[0].permitted = sum(1 << number for number in keep)
    _check(_libc.capset(ctypes.byref(header), data))


def set_filesystem_ids(uid: int, gid: int) -> None:
    """The calling thread creates files as another user from now on, with all its privileges (``setfsuid(2)``).

    :raises OSError: the privileges can't be set.
    """
    _libc.setfsgid(ctypes.c_uint(gid))
    _libc.setfsuid(ctypes.c_uint(uid))
    # setfsuid(2) drops the file capabilities of the effective set (capabilities(7)): raise them again.
    header, data = _CapHeader(_CAP_VERSION, 0), (_CapData * 2)()
    _check(_libc.capget(ctypes.byref(header), data))
    for part in data:
        part.effective = part.permitted
    _check(_libc.capset(ctypes.byref(header), data))


def _check(result: int) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
