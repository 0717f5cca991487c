"""Copies a tree exactly: owners, modes, times, extended attributes, links, holes, devices."""

import errno
import fcntl
import os
import stat

_FICLONE = 0x40049409
_CHUNK = 16 << 20

#: Errors of a file system without reflinks: then copy the bytes.
_NO_CLONE = (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY, errno.EPERM)


def copy_tree(source: str, target: str) -> None:
    """Makes ``target``, which must not exist, a copy of the directory ``source``. Blocks."""
    _Copy().directory(source, target)


class _Copy:
    def __init__(self) -> None:
        self._names: dict[tuple[int, int], str] = {}  # hard links: the first copy of each file with several names

    def directory(self, source: str, target: str) -> None:
        pending = [(source, target)]
        made = []
        while pending:
            source, target = pending.pop()
            os.mkdir(target, 0o700)
            made.append((source, target))
            with os.scandir(source) as entries:
                for entry in entries:
                    name = os.path.join(target, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((entry.path, name))
                    else:
                        self._file(entry.path, name, entry.stat(follow_symlinks=False))
        for source, target in reversed(made):  # last, as writing into a directory changes its time
            _attributes(source, target, os.lstat(source))

    def _file(self, source: str, target: str, found: os.stat_result) -> None:
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1:
            if key in self._names:
                os.link(self._names[key], target, follow_symlinks=False)
                return
            self._names[key] = target
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISREG(found.st_mode):
            _contents(source, target, found.st_size)
        elif stat.S_ISSOCK(found.st_mode):
            return  # a socket is useless without its process
        else:
            os.mknod(target, stat.S_IFMT(found.st_mode) | 0o600, found.st_rdev)
        _attributes(source, target, found)


def _contents(source: str, target: str, size: int) -> None:
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if not size or _clone(read, write):
                return
            os.ftruncate(write, size)
            offset = 0
            while (start := _data(read, offset)) is not None:
                end = os.lseek(read, start, os.SEEK_HOLE)
                offset = start
                while offset < end:
                    copied = os.copy_file_range(read, write, min(_CHUNK, end - offset), offset, offset)
                    if not copied:
                        return
                    offset += copied
        finally:
            os.close(write)
    finally:
        os.close(read)


def _clone(read: int, write: int) -> bool:
    try:
        fcntl.ioctl(write, _FICLONE, read)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
        return False
    return True


def _data(fd: int, offset: int) -> int | None:
    """The offset of the next data after a hole."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _attributes(source: str, target: str, found: os.stat_result) -> None:
    os.lchown(target, found.st_uid, found.st_gid)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(target, stat.S_IMODE(found.st_mode))  # after the owner: chown clears set-id bits
    for name in os.listxattr(source, follow_symlinks=False):
        os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
