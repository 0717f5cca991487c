"""Go's ``os.FileMode`` bits, which the Engine API and BuildKit's transfers carry, and the kernel's ``st_mode``."""

import stat

_DIR = 1 << 31
_SYMLINK = 1 << 27
_DEVICE = 1 << 26
_FIFO = 1 << 25
_SOCKET = 1 << 24
_SETUID = 1 << 23
_SETGID = 1 << 22
_CHARDEV = 1 << 21
_STICKY = 1 << 20

_SPECIAL = ((_SETUID, stat.S_ISUID), (_SETGID, stat.S_ISGID), (_STICKY, stat.S_ISVTX))


def to_unix(mode: int) -> int:
    """Go's file mode → ``st_mode``."""
    if mode & _DIR:
        kind = stat.S_IFDIR
    elif mode & _SYMLINK:
        kind = stat.S_IFLNK
    elif mode & _DEVICE:
        kind = stat.S_IFCHR if mode & _CHARDEV else stat.S_IFBLK
    elif mode & _FIFO:
        kind = stat.S_IFIFO
    elif mode & _SOCKET:
        kind = stat.S_IFSOCK
    else:
        kind = stat.S_IFREG
    special = sum(unix for go, unix in _SPECIAL if mode & go)
    return kind | special | (mode & 0o777)


def to_go(mode: int) -> int:
    """``st_mode`` → Go's file mode."""
    kinds = {
        stat.S_IFDIR: _DIR,
        stat.S_IFLNK: _SYMLINK,
        stat.S_IFCHR: _DEVICE | _CHARDEV,
        stat.S_IFBLK: _DEVICE,
        stat.S_IFIFO: _FIFO,
        stat.S_IFSOCK: _SOCKET,
    }
    special = sum(go for go, unix in _SPECIAL if mode & unix)
    return kinds.get(stat.S_IFMT(mode), 0) | special | (mode & 0o777)
