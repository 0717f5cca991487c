"""Writes a tree as an archive: exported and copied files, layers, build outputs.

The tree may belong to a running container and change during the walk: every step uses the fd of the directory that it
reads and follows no link, so that nothing outside is read; files that vanish meanwhile are left out.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine.common.layers import header as tar
from engine.common.layers.header import Header, type_of
from engine.common.layers.tarwrite import TarWriter

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)


@dataclass(frozen=True, slots=True)
class Node:
    """A file of a walk. ``path`` is relative to the walk's root, "" for the root itself; ``parent`` is an fd of the
    directory that contains ``name``, valid during the step."""

    path: str
    parent: int
    name: str
    stat: os.stat_result


def walk(root: int, *, skip: Callable[[Node], bool] | None = None) -> Iterator[Node]:
    """Walks depth first, directories before their content, names in byte order. ``skip`` excludes a subtree."""
    yield from _walk(root, "", skip)


def _walk(directory: int, path: str, skip: Callable[[Node], bool] | None) -> Iterator[Node]:
    for name in sorted(os.listdir(directory), key=os.fsencode):
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        node = Node(f"{path}/{name}" if path else name, directory, name, status)
        if skip is not None and skip(node):
            continue
        yield node
        if stat.S_ISDIR(status.st_mode):
            try:
                below = os.open(name, _DIRECTORY, dir_fd=directory)
            except OSError as error:
                if error.errno in _GONE:
                    continue
                raise
            try:
                yield from _walk(below, node.path, skip)
            finally:
                os.close(below)


def layer_xattr(key: str) -> bool:
    """Whether an archive carries the attribute: users' attributes and file capabilities, but not those that the host's
    security module or overlayfs added."""
    return key == "security.capability" or (key.startswith("user.") and not key.startswith("user.overlay."))


class Packer:
    """Adds nodes to a writer, with times in whole seconds; detects hard links by their inode."""

    def __init__(
        self,
        writer: TarWriter,
        *,
        owner: Callable[[int, int], tuple[int, int]] | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        """``mtime_ns``: the time of every entry, instead of the file's own."""
        self._writer = writer
        self._mtime_ns = mtime_ns
        self._owner = owner
        self._seen: dict[tuple[int, int], str] = {}

    def header(self, node: Node, name: str) -> Header | None:
        """The header of a node under another name; None for a socket."""
        status = node.stat
        kind = type_of(status.st_mode)
        if kind is None:
            return None
        mtime = status.st_mtime_ns if self._mtime_ns is None else self._mtime_ns
        mtime -= mtime % 1_000_000_000  # as in Docker's archives: a fraction would need another header
        uid, gid = status.st_uid, status.st_gid
        if self._owner is not None:
            uid, gid = self._owner(uid, gid)
        return Header(
            name=name,
            type=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=uid,
            gid=gid,
            size=status.st_size if kind == tar.REGULAR else 0,
            mtime_ns=mtime,
            devmajor=os.major(status.st_rdev) if kind in (tar.CHAR, tar.BLOCK) else 0,
            devminor=os.minor(status.st_rdev) if kind in (tar.CHAR, tar.BLOCK) else 0,
        )

    def add(self, node: Node, name: str) -> None:
        """Adds the node under ``name``; leaves it out if it has vanished."""
        entry = self.header(node, name)
        if entry is None:
            return
        try:
            self.add_as(node, entry)
        except OSError as error:
            # A socket has replaced the file (ENXIO), or another file has replaced the link (readlink(2)).
            no_link = entry.type == tar.SYMLINK and error.errno == errno.EINVAL
            if error.errno not in (*_GONE, errno.ENXIO) and not no_link:
                raise

    def add_as(self, node: Node, entry: Header) -> None:
        """Adds the node under the caller's header. Raises OSError if it has vanished."""
        if entry.type == tar.SYMLINK:
            entry.linkname = os.readlink(node.name, dir_fd=node.parent)
        elif entry.type != tar.DIRECTORY and node.stat.st_nlink > 1:
            inode = node.stat.st_dev, node.stat.st_ino
            if inode in self._seen:
                entry.type, entry.size, entry.linkname = tar.HARDLINK, 0, self._seen[inode]
                self._writer.add(entry)
                return
        if entry.type == tar.REGULAR:
            fd = os.open(node.name, _FILE, dir_fd=node.parent)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    return  # another file has replaced it since the stat
                entry.size = status.st_size
                entry.xattrs = _xattrs(fd)
                self._writer.add_file(entry, fd)
            finally:
                os.close(fd)
        elif entry.type == tar.DIRECTORY:
            fd = os.open(node.name, _DIRECTORY, dir_fd=node.parent)
            try:
                entry.xattrs = _xattrs(fd)
            finally:
                os.close(fd)
            self._writer.add(entry)
        else:
            self._writer.add(entry)
        if node.stat.st_nlink > 1 and entry.type != tar.DIRECTORY:
            self._seen[node.stat.st_dev, node.stat.st_ino] = entry.name


def _xattrs(fd: int) -> dict[str, bytes]:
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {key: os.getxattr(fd, key) for key in names if layer_xattr(key)}


def pack_tree(
    root: str, writer: TarWriter, *, prefix: str = "", include_root: bool = False, mtime_ns: int | None = None
) -> None:
    """Writes the tree below ``root``, names relative to it after ``prefix``. Does not close the writer.

    ``mtime_ns``: the time of every entry, instead of the file's own.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        packer = Packer(writer, mtime_ns=mtime_ns)
        if include_root:
            packer.add(Node("", fd, ".", os.fstat(fd)), prefix.rstrip("/") or "./")
        for node in walk(fd):
            packer.add(node, prefix + node.path)
    finally:
        os.close(fd)
