"""Copies the image's content at a volume's mount point into the volume, if the volume is empty.

Owners, modes, times, extended attributes, links and devices are copied: the volume must equal the image's directory.
"""

import contextlib
import errno
import os
import stat

from engine.common.files.paths import open_inside
from engine.common.files.writing import write_all

_IGNORED = (errno.ENOTSUP, errno.EPERM, errno.ENODATA)


def copy_up(root: str, destination: str, volume: str) -> bool:
    """Copies ``destination`` of the file system at ``root`` into the directory ``volume``. Blocks.

    Returns False if nothing was copied: the volume has content, or the image has no such directory. Links inside the
    image are followed within ``root``, as the container would follow them.

    :raises OSError: reading or writing failed; the files copied so far remain.
    """
    with os.scandir(volume) as entries:
        if any(entries):
            return False
    try:
        fd = open_inside(root, destination, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        target = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _copy_directory(fd, target, {})
            _copy_attributes(fd, target, os.fstat(fd))
        finally:
            os.close(target)
    finally:
        os.close(fd)
    return True


def _copy_directory(source: int, target: int, linked: dict[tuple[int, int], str], where: str = "") -> None:
    with os.scandir(source) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        path = f"{where}{name}"
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below, made = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
            try:
                _copy_directory(below, made, linked, path + "/")
                _copy_attributes(below, made, info)
            finally:
                os.close(below)
                os.close(made)
            continue
        key = (info.st_dev, info.st_ino)
        if info.st_nlink > 1 and key in linked:
            # Paths are relative to the volume's root. They can't contain a link that leads out: this function creates
            # the directories and enters them without following links.
            depth = path.count("/")
            os.link("../" * depth + linked[key], name, src_dir_fd=target, dst_dir_fd=target, follow_symlinks=False)
            continue
        _copy_one(source, target, name, info)
        if info.st_nlink > 1:
            linked[key] = path


def _copy_one(source: int, target: int, name: str, info: os.stat_result) -> None:
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)
        return
    if not stat.S_ISREG(info.st_mode):
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)
        return
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            _copy_content(reading, writing)
            _copy_attributes(reading, writing, info)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_content(reading: int, writing: int) -> None:
    try:
        while os.copy_file_range(reading, writing, 1 << 26):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while data := os.read(reading, 1 << 20):
            write_all(writing, data)


def _copy_attributes(source: int, target: int, info: os.stat_result) -> None:
    os.fchown(target, info.st_uid, info.st_gid)
    for name in os.listxattr(source):
        if name.startswith(("trusted.overlay.", "user.overlay.")):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _IGNORED:
                raise
    # After the owner: chown clears set-id bits.
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    with contextlib.suppress(PermissionError):
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
