"""The content hash of a context's files as BuildKit computes it (BuildKit: cache/contenthash).

Of a file: its tar header without name and times, then the content. Of a directory: its own header's hash, then the
sorted names of its entries with their hashes. The owner is always root, as in the copy.
"""

import hashlib
import os
import stat
from collections.abc import Sequence

from engine.common.files.paths import open_inside, resolve
from server.builder.operations.selection import open_root

_PIECE = 1 << 20
_KINDS = {
    stat.S_IFREG: "0",
    stat.S_IFLNK: "2",
    stat.S_IFCHR: "3",
    stat.S_IFBLK: "4",
    stat.S_IFDIR: "5",
    stat.S_IFIFO: "6",
}
_EMPTY = "sha256:" + hashlib.sha256().hexdigest()


def content_digest(root: str, paths: Sequence[str]) -> str:
    """Return the digest of several paths of a context, links followed; empty if one is missing. Blocks."""
    fd = open_root(root)
    try:
        found = [_hash_path(fd, path) for path in _topmost(paths)]
    finally:
        os.close(fd)
    if "" in found:
        return ""
    return "sha256:" + hashlib.sha256("\0".join(found).encode()).hexdigest()


def _topmost(paths: Sequence[str]) -> list[str]:
    """Drop paths that are below another path."""
    every = sorted(set(paths))
    if len(every) == 1:
        return every
    return [path for path in every if not any(path != top and path.startswith(top.rstrip("/") + "/") for top in every)]


def _hash_path(root: int, path: str) -> str:
    inner = resolve(root, path)
    if not inner:
        return _directory(root, _EMPTY)
    above, _, name = inner.rpartition("/")
    try:
        parent = open_inside(root, above, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        return _entry(parent, name)
    except FileNotFoundError:
        return ""
    finally:
        os.close(parent)


def _entry(parent: int, name: str) -> str:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return _file(parent, name, status)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        return _directory(fd, "sha256:" + hashlib.sha256(_header(status, "")).hexdigest())
    finally:
        os.close(fd)


def _directory(fd: int, own: str) -> str:
    total = hashlib.sha256(b"\0" + own.encode())
    for name in sorted(os.listdir(fd), key=os.fsencode):
        total.update(b"\0" + os.fsencode(name) + _entry(fd, name).encode())
    return "sha256:" + total.hexdigest()


def _file(parent: int, name: str, status: os.stat_result) -> str:
    link = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else ""
    total = hashlib.sha256(_header(status, link))
    if stat.S_ISREG(status.st_mode):
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            while data := os.read(fd, _PIECE):
                total.update(data)
        finally:
            os.close(fd)
    return "sha256:" + total.hexdigest()


def _header(status: os.stat_result, link: str) -> bytes:
    regular, device = stat.S_ISREG(status.st_mode), stat.S_IFMT(status.st_mode) in (stat.S_IFCHR, stat.S_IFBLK)
    fields = (
        ("name", ""),
        ("mode", str(0o777 if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode))),
        ("uid", "0"),
        ("gid", "0"),
        ("size", str(status.st_size if regular else 0)),
        ("typeflag", _KINDS.get(stat.S_IFMT(status.st_mode), "0")),
        ("linkname", link),
        ("uname", ""),
        ("gname", ""),
        ("devmajor", str(os.major(status.st_rdev) if device else 0)),
        ("devminor", str(os.minor(status.st_rdev) if device else 0)),
    )
    return b"".join(os.fsencode(name + value) for name, value in fields)
