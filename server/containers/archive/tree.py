"""Files of a container's root: described, packed and extracted, confined to the root.

``root`` is a descriptor of the container's root directory: a mounted snapshot, or a process's root. Paths are resolved
as by a process inside; processes inside may change the files at the same time. All functions block.
"""

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from engine.common.errors import Kind, WharfError, internal, invalid, not_found
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
_KERNEL_FILE_SYSTEMS = frozenset(
    (0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202, 0x73636673, 0x64626720, 0x74726163, 0xCAFE4A11)
)


@dataclass(frozen=True, slots=True)
class PathStat:
    """A file as the API describes it. ``mode``: Go's bits (``os.FileMode``). ``mtime_ns``: ns since the epoch.
    ``link_target``: the absolute path in the root that a symbolic link resolves to."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """An open file of a root. ``name``: its name in an archive. ``node.parent``: a descriptor of the directory itself,
    or of the directory that contains the file."""

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
    """The normalized absolute path.

    :raises WharfError: INVALID_ARGUMENT: it contains a NUL.
    """
    if "\0" in path:
        raise invalid(f"lstat /{path.lstrip('/')}: invalid argument")
    return posixpath.normpath("/" + path.lstrip("/"))


def _trailing(path: str) -> str:
    """The end of the path that requires a directory: ``/``, ``/.`` or ``""``."""
    return "/." if path.endswith("/.") else "/" if path.endswith("/") else ""


def _refused(error: OSError, path: str, clean: str) -> WharfError:
    if isinstance(error, FileNotFoundError):
        return not_found(path)
    sentence = f"lstat {clean.rstrip('/')}{_trailing(path)}: {(error.strerror or '').lower()}"
    if isinstance(error, PermissionError):
        return WharfError(Kind.PERMISSION_DENIED, sentence)
    return invalid(sentence) if error.errno == errno.ENAMETOOLONG else internal(sentence)


@contextmanager
def opened(root: int, path: str) -> Iterator[Entry]:
    """Opens one file. Follows symbolic links in the parents, and the file's own only if the path ends in a slash.

    :raises WharfError: NOT_FOUND with the path as its message. In dockerd's words and kinds: INTERNAL: a file is used
    as a directory; INVALID_ARGUMENT: the name is too long or contains a NUL. PERMISSION_DENIED: FUSE or NFS refuses it.
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
    """The name of a path in its archive: the last part; ``.`` for the content of a directory."""
    if posixpath.basename(path.rstrip("/")) == ".":
        return "."
    return posixpath.basename(posixpath.normpath("/" + path)) or "/"


def stat_path(root: int, path: str) -> PathStat:
    """The description of a file. Errors as :func:`opened`."""
    with opened(root, path) as entry:
        return entry.path_stat()


def pack(
    root: int,
    path: str,
    out: Callable[[bytes], object],
    maps: IdMaps | None = None,
    *,
    on_stat: Callable[[PathStat], object],
) -> None:
    """Writes the file or directory as a tar to ``out``, with the name of :func:`base_name`. ``maps``: the tar has the
    owners that a process inside sees. ``on_stat`` is called with the description before the first byte. Errors as
    :func:`opened`."""
    with opened(root, path) as entry:
        on_stat(entry.path_stat())
        writer = TarWriter(out)
        packer = Packer(writer, owner=maps.to_container if maps is not None else None)
        name = entry.name
        packer.add(entry.node, "./" if name == "." else name)
        if entry.is_dir:
            top = entry.node
            from_root = os.path.samestat(top.stat, os.fstat(root))
            for node in walk(top.parent, skip=_skip_kernel_files(top.stat.st_dev, from_root=from_root)):
                packer.add(node, f"{name.rstrip('/')}/{node.path}")
        writer.close()


def _skip_kernel_files(start: int, *, from_root: bool) -> Callable[[Node], bool]:
    """A filter that skips files below mounts of the kernel's file systems such as proc: these mounts become empty
    directories.

    ``start``: the device number of the first directory. ``from_root``: it is the root; a tmpfs on ``/dev`` is skipped
    then.
    """
    known = {start: False}

    def skip(node: Node) -> bool:
        found = known.get(node.stat.st_dev)
        if found is not None:
            return found
        if known.get(os.fstat(node.parent).st_dev):
            return True
        # The first file with a new device number is a mountpoint.
        kind = linux.filesystem_type(f"/proc/self/fd/{node.parent}/{node.name}")
        is_dev = from_root and node.path == "dev" and kind == linux.TMPFS_MAGIC
        known[node.stat.st_dev] = kind in _KERNEL_FILE_SYSTEMS or is_dev
        return False

    return skip


def extraction_point(root: int, path: str) -> str:
    """The path of a directory of the root, with symbolic links resolved.

    :raises WharfError: NOT_FOUND with the path as its message; INVALID_ARGUMENT: not a directory; INTERNAL, as in
        dockerd: not a directory, and the path ends in a slash.
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
    """Extracts a tar archive into the directory ``point`` (:func:`extraction_point`). ``owner``: the (uid, gid) of all
    files, None: the archive's. ``maps``: translates the archive's ids to the host's.

    :raises WharfError: INVALID_ARGUMENT: a malformed archive.
    """

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
    """Writes the whole root as a tar to ``out``, for ``docker export``."""
    root = os.open(root_path, _ROOT)
    try:
        writer = TarWriter(out)
        packer = Packer(writer)
        for node in walk(root):
            packer.add(node, node.path)
        writer.close()
    finally:
        os.close(root)
