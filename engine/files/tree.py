"""Files of a root, seen from outside it: looked up, packed and extracted, confined to the root.

``root`` is a directory that is the container's ``/``: a mounted snapshot, or ``/proc/<pid>/root``. A path is taken as
a process inside would take it. All functions block.
"""

import os
import posixpath
import stat
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import internal, invalid, not_found
from engine.files.gomode import to_go
from engine.files.paths import resolve
from engine.layers.extract import Options, Target, apply
from engine.layers.pack import Node, Packer, walk
from engine.layers.tarwrite import TarWriter
from engine.system import linux
from engine.system.ids import IdMaps

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW = _ROOT | os.O_NOFOLLOW
#: statfs(2)'s types: proc, sysfs, cgroup, cgroup2, devpts, mqueue, securityfs, debugfs, tracefs, bpf.
_KERNEL = frozenset(
    (0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202, 0x73636673, 0x64626720, 0x74726163, 0xCAFE4A11)
)


@dataclass(frozen=True, slots=True)
class PathStat:
    """One file. ``mode`` has Go's bits (``os.FileMode``), ``mtime_ns`` is since the epoch, ``link_target`` is the
    absolute path that a link leads to, inside the root."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str = ""


def _found(root: int, path: str) -> tuple[str, os.stat_result]:
    """Where a path is: links above its last part are followed, the last one only before a slash."""
    clean = posixpath.normpath("/" + path)
    follow = path.endswith(("/", "/."))
    real = resolve(root, clean, last=follow)
    try:
        return real, os.stat(real or ".", dir_fd=root, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        raise not_found(path) from None


def base_name(path: str) -> str:
    """The name that a copied path has in its archive: its last part, ``.`` for a directory's content."""
    if posixpath.basename(path.rstrip("/")) == ".":
        return "."
    return posixpath.basename(posixpath.normpath("/" + path)) or "/"


def look(root_path: str, path: str) -> PathStat:
    """Raises NOT_FOUND with the path as its message."""
    root = os.open(root_path, _ROOT)
    try:
        real, status = _found(root, path)
        target = ""
        if stat.S_ISLNK(status.st_mode):
            target = "/" + resolve(root, real)
        return PathStat(base_name(path), status.st_size, to_go(status.st_mode), status.st_mtime_ns, target)
    finally:
        os.close(root)


def pack(root_path: str, path: str, out: Callable[[bytes], object], maps: IdMaps | None = None) -> None:
    """The file or directory as a tar, under :func:`base_name`; with ``maps``, the owners are told as a process inside
    knows them. Raises NOT_FOUND with the path as its message."""
    root = os.open(root_path, _ROOT)
    try:
        real, status = _found(root, path)
        writer = TarWriter(out)
        packer = Packer(writer, owner=maps.to_container if maps is not None else None)
        name = base_name(path)
        above, _, last = real.rpartition("/")
        parent = os.open(above or ".", _BELOW, dir_fd=root)
        try:
            packer.add(Node("", parent, last or ".", status), "./" if name == "." else name)
        finally:
            os.close(parent)
        if stat.S_ISDIR(status.st_mode):
            below = os.open(real or ".", _BELOW, dir_fd=root)
            try:
                for node in walk(below, skip=_kernels(os.fstat(below).st_dev, device=not real)):
                    packer.add(node, f"{name.rstrip('/')}/{node.path}")
            finally:
                os.close(below)
        writer.close()
    finally:
        os.close(root)


def _kernels(start: int, *, device: bool) -> Callable[[Node], bool]:
    """What is below the kernel's own file systems is no file of the container: they are shown as empty directories.

    ``start``: the device that the walk begins on. ``device``: it begins at the root, whose ``/dev`` is one of them.
    """
    known = {start: False}

    def skip(node: Node) -> bool:
        found = known.get(node.stat.st_dev)
        if found is not None:
            return found
        if known.get(os.fstat(node.parent).st_dev):
            return True
        # The first that is seen of a device is its mount point.
        kind = linux.filesystem_type(f"/proc/self/fd/{node.parent}/{node.name}")
        known[node.stat.st_dev] = kind in _KERNEL or (device and node.path == "dev" and kind == linux.TMPFS_MAGIC)
        return False

    return skip


def extraction_point(root_path: str, path: str) -> str:
    """The directory inside the root that a path leads to, links followed.

    Raises NOT_FOUND with the path as its message, INVALID_ARGUMENT for what is no directory.
    """
    root = os.open(root_path, _ROOT)
    try:
        real = resolve(root, posixpath.normpath("/" + path))
        try:
            status = os.stat(real or ".", dir_fd=root, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(path) from None
        if not stat.S_ISDIR(status.st_mode):
            raise invalid("extraction point is not a directory")
        return "/" + real
    finally:
        os.close(root)


def extract(
    root_path: str,
    point: str,
    read: Callable[[int], bytes],
    *,
    no_overwrite_kind: bool,
    owner: tuple[int, int] | None,
    maps: IdMaps | None = None,
    cancelled: Callable[[], bool],
) -> None:
    """Extracts an archive into an :func:`extraction_point`; everything becomes the ``owner``'s (uid, gid), if there is
    one. ``maps``: how ids inside the root are those outside. Raises INVALID_ARGUMENT for a bad archive."""

    def to_host(uid: int, gid: int) -> tuple[int, int]:
        assert maps is not None
        try:
            return maps.to_host(uid, gid)
        except ValueError as error:
            raise internal(str(error)) from None

    apply(
        read,
        Target(root_path),
        diff_id="-",
        options=Options(
            owner=owner,
            map_owner=to_host if maps is not None else None,
            into=point,
            no_overwrite_kind=no_overwrite_kind,
        ),
        cancelled=cancelled,
    )


def pack_root(root_path: str, out: Callable[[bytes], object]) -> None:
    """The whole root as a tar, as ``docker export`` gives it."""
    root = os.open(root_path, _ROOT)
    try:
        writer = TarWriter(out)
        packer = Packer(writer)
        for node in walk(root):
            packer.add(node, node.path)
        writer.close()
    finally:
        os.close(root)
