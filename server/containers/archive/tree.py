"""Files of a root, seen from outside it: looked up, packed and extracted, confined to the root.

``root`` is a descriptor of the directory that is the container's ``/``: a mounted snapshot, or a process's root. A path
is taken as a process inside would take it, while programs inside may change any part of it. All functions block.
"""

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from engine.common.errors import WharfError, internal, invalid, not_found
from engine.common.files import paths
from engine.common.files.gomode import to_go
from engine.common.ids import IdMaps
from engine.common.layers.extract import apply
from engine.common.layers.pack import Node, Packer, walk
from engine.common.layers.target import Options, Target
from engine.common.layers.tarwrite import TarWriter
from engine.common.system import linux

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
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


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a root, opened: what it is called in an archive, and where its content is read. ``node.parent`` is the
    directory itself if it is one, else the directory that holds it."""

    name: str
    node: Node
    link_target: str

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.node.stat.st_mode)

    def path_stat(self) -> PathStat:
        """The file as the API describes it."""
        status = self.node.stat
        return PathStat(self.name, status.st_size, to_go(status.st_mode), status.st_mtime_ns, self.link_target)


def _clean(path: str) -> str:
    """:raises WharfError: INVALID_ARGUMENT: a NUL."""
    if "\0" in path:
        raise invalid(f"lstat /{path.lstrip('/')}: invalid argument")
    return posixpath.normpath("/" + path.lstrip("/"))


def _trailing(path: str) -> str:
    """The end of a path that asks for a directory: ``/``, ``/.`` or nothing."""
    return "/." if path.endswith("/.") else "/" if path.endswith("/") else ""


def _refused(error: OSError, path: str, clean: str) -> WharfError:
    if isinstance(error, FileNotFoundError):
        return not_found(path)
    sentence = f"lstat {clean.rstrip('/')}{_trailing(path)}: {(error.strerror or '').lower()}"
    return invalid(sentence) if error.errno == errno.ENAMETOOLONG else internal(sentence)


@contextmanager
def opened(root: int, path: str) -> Iterator[Entry]:
    """Opens one file: links above its last part are followed, the last one only before a slash.

    :raises WharfError: NOT_FOUND with the path as its message; else in dockerd's words, INTERNAL as its status is: what
        is no directory stands before a slash; INVALID_ARGUMENT: no file can be called so.
    """
    clean = _clean(path)
    above, _, last = clean.rpartition("/")
    if _trailing(path) or not last:
        above, last = clean, "."
    with ExitStack() as stack:
        try:
            parent = paths.open_inside(root, above, _ROOT)
            stack.callback(os.close, parent)
            fd = os.open(last, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            stack.callback(os.close, fd)
        except OSError as error:
            raise _refused(error, path, clean) from None
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            parent, last = os.open(".", _ROOT, dir_fd=fd), "."
            stack.callback(os.close, parent)
        target = "/" + paths.resolve(root, clean) if stat.S_ISLNK(status.st_mode) else ""
        yield Entry(base_name(path), Node("", parent, last, status), target)


def base_name(path: str) -> str:
    """The name that a copied path has in its archive: its last part, ``.`` for a directory's content."""
    if posixpath.basename(path.rstrip("/")) == ".":
        return "."
    return posixpath.basename(posixpath.normpath("/" + path)) or "/"


def look(root: int, path: str) -> PathStat:
    """Raises NOT_FOUND with the path as its message."""
    with opened(root, path) as entry:
        return entry.path_stat()


def pack(
    root: int,
    path: str,
    out: Callable[[bytes], object],
    maps: IdMaps | None = None,
    *,
    found: Callable[[PathStat], object],
) -> None:
    """The file or directory as a tar, under :func:`base_name`. With ``maps``, owners are those that a process inside
    sees. ``found`` gets the file's description before the first byte. Raises NOT_FOUND with the path as its message."""
    with opened(root, path) as entry:
        found(entry.path_stat())
        writer = TarWriter(out)
        packer = Packer(writer, owner=maps.to_container if maps is not None else None)
        name = entry.name
        packer.add(entry.node, "./" if name == "." else name)
        if entry.is_dir:
            top = entry.node
            whole = os.path.samestat(top.stat, os.fstat(root))
            for node in walk(top.parent, skip=_kernels(top.stat.st_dev, device=whole)):
                packer.add(node, f"{name.rstrip('/')}/{node.path}")
        writer.close()


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


def extraction_point(root: int, path: str) -> str:
    """The directory inside the root that a path leads to, links followed.

    Raises NOT_FOUND with the path as its message, INVALID_ARGUMENT for what is no directory, and INTERNAL, as dockerd
    has it, for what is none before a slash.
    """
    real = paths.resolve(root, _clean(path))
    try:
        status = paths.stat_inside(root, real)
    except OSError as error:
        raise _refused(error, path, f"/{real}") from None
    if not stat.S_ISDIR(status.st_mode):
        if _trailing(path):
            raise internal(f"lstat /{real}{_trailing(path)}: not a directory")
        raise invalid("extraction point is not a directory")
    return "/" + real


def extract(
    root: int,
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
        Target(f"/proc/self/fd/{root}"),
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
