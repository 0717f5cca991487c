"""Limits on directories: XFS's project quotas (``quotactl(2)``, ``xfs_quota(8)``).

Files created in a directory inherit its project, and the file system counts the blocks of each project. Only XFS
mounted with ``pquota`` is supported, as in Docker.
"""

import ctypes
import errno
import fcntl
import os
import secrets
import struct
from collections.abc import Sequence

from engine.common.system import linux

_XFS_MAGIC = 0x58465342
_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_PROJECT_INHERIT = 0x200
_FSXATTR = struct.Struct("=IIIII8s")  # flags, extent size, extents, project, copy-on-write extent size
_SYS_QUOTACTL_FD = 443
_PROJECT = 2  # PRJQUOTA
_GET_QUOTA, _SET_LIMITS, _GET_STATE = 0x5803, 0x5804, 0x5805  # Q_XGETQUOTA, Q_XSETQLIM, Q_XGETQSTAT
_ENFORCED = 1 << 5  # FS_QUOTA_PDQ_ENFD
#: struct fs_disk_quota: version, flags, fields, id, limits and counts of blocks and inodes, the rest unused here.
_DISK_QUOTA = struct.Struct("=bbHIQQQQQQ56s")
_BLOCK = 512
_PROJECT_FLAG = 2
_SOFT, _HARD = 1 << 2, 1 << 3

_libc = ctypes.CDLL(None, use_errno=True)


def _call(fd: int, command: int, number: int, data: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(data, len(data))
    result = _libc.syscall(
        ctypes.c_long(_SYS_QUOTACTL_FD),
        ctypes.c_uint(fd),
        ctypes.c_uint(command << 8 | _PROJECT),
        ctypes.c_uint(number),
        buffer,
    )
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return buffer.raw


def supported(directory: str) -> bool:
    """Whether directories below this one can have a limit."""
    if linux.filesystem_type(directory) != _XFS_MAGIC:
        return False
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        (flags,) = struct.unpack_from("=xxH", _call(fd, _GET_STATE, 0, bytes(256)))
    except OSError:
        return False
    finally:
        os.close(fd)
    return bool(flags & _ENFORCED)


def limit(directories: Sequence[str], size: int) -> None:
    """Limits these directories, which are still empty, to ``size`` bytes together.

    :raises OSError: the file system doesn't support it.
    """
    fds: list[int] = []
    try:
        for path in directories:
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))  # noqa: PERF401 - closed if one fails
        number = _unused(fds[0])
        blocks = size // _BLOCK
        quota = (1, _PROJECT_FLAG, _SOFT | _HARD, number, blocks, blocks, 0, 0, 0, 0, bytes(56))
        _call(fds[0], _SET_LIMITS, number, _DISK_QUOTA.pack(*quota))
        for fd in fds:
            flags, extent, extents, _, copied, rest = _FSXATTR.unpack(fcntl.ioctl(fd, _FSGETXATTR, bytes(28)))
            fcntl.ioctl(fd, _FSSETXATTR, _FSXATTR.pack(flags | _PROJECT_INHERIT, extent, extents, number, copied, rest))
    finally:
        for fd in fds:
            os.close(fd)


def _unused(fd: int) -> int:
    """A project id that has no files."""
    while True:
        number = secrets.randbelow((1 << 31) - (1 << 16)) + (1 << 16)
        try:
            found = _DISK_QUOTA.unpack(_call(fd, _GET_QUOTA, number, bytes(_DISK_QUOTA.size)))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return number
        if not found[9]:
            return number
