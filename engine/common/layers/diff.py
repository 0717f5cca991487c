"""Writes the difference of two trees as a layer.

Two functions give the same layer: ``write_upper`` translates an overlay's upper directory, which is the difference;
``write_changes`` compares two complete trees. Both write parents before children, names in byte order, deletions as
whiteouts.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from engine.common.errors import Kind, WharfError
from engine.common.layers.blob import LayerWriter, Written
from engine.common.layers.compression import Compression
from engine.common.layers.header import Header
from engine.common.layers.pack import Node, Packer, layer_xattr, walk

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPAQUE = "trusted.overlay.opaque"


class ChangeKind(Enum):
    """dockerd's numbers (``GET /containers/{id}/changes``)."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Change:
    path: str  # relative to the root
    kind: ChangeKind


def write_upper(
    upper: str,
    out: Callable[[bytes], object],
    *,
    compression: Compression = Compression.GZIP,
    hashed: Callable[[], str] | None = None,
) -> Written:
    """Writes an overlay's upper directory as a layer. Blocks. ``hashed`` as for ``LayerWriter``.

    :raises WharfError: FAILED_PRECONDITION if the directory has entries that only the mounted overlay can interpret
        (a renamed directory, metadata-only copies): mount both sides and use ``write_changes``.
    """
    layer = LayerWriter(out, compression, hashed=hashed)
    packer = Packer(layer.tar)
    fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for node in walk(fd):
            if stat.S_ISCHR(node.stat.st_mode) and node.stat.st_rdev == 0:
                layer.tar.add(_whiteout(node.path))
                continue
            marks = _overlay_marks(node)
            if marks & {"redirect", "metacopy"}:
                raise WharfError(Kind.FAILED_PRECONDITION, f"{node.path}: can't be read without the lower layers")
            packer.add(node, node.path)
            if "opaque" in marks:
                layer.tar.add(Header(name=f"{node.path}/.wh..wh..opq", mode=0))
    finally:
        os.close(fd)
    return layer.finish()


def _whiteout(path: str) -> Header:
    parent, _, name = path.rpartition("/")
    return Header(name=f"{parent}/.wh.{name}" if parent else f".wh.{name}", mode=0)


def _overlay_marks(node: Node) -> set[str]:
    if not stat.S_ISDIR(node.stat.st_mode) and not stat.S_ISREG(node.stat.st_mode):
        return set()
    try:
        flags = _DIRECTORY if stat.S_ISDIR(node.stat.st_mode) else _FILE
        fd = os.open(node.name, flags, dir_fd=node.parent)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return set()
        raise
    try:
        marks = {key.removeprefix("trusted.overlay.") for key in os.listxattr(fd) if key.startswith("trusted.overlay.")}
        if "opaque" in marks and os.getxattr(fd, _OPAQUE) != b"y":
            marks.discard("opaque")
        return marks
    finally:
        os.close(fd)


def write_changes(
    left: str | None, right: str, out: Callable[[bytes], object], *, compression: Compression = Compression.GZIP
) -> Written:
    """Writes the layer that turns ``left`` (None: an empty tree) into ``right``. Blocks."""
    layer = LayerWriter(out, compression)
    packer = Packer(layer.tar)
    with _opened(right) as right_fd:
        if left is None:
            for node in walk(right_fd):
                packer.add(node, node.path)
            return layer.finish()
        with _opened(left) as left_fd:
            # Paths already written. A layer's reader expects the parents of a changed file before it.
            written: set[str] = set()
            for change, changed, parents in _compare(left_fd, right_fd):
                for parent in parents:
                    if parent.path not in written:
                        written.add(parent.path)
                        packer.add(parent, parent.path)
                if change.kind is ChangeKind.DELETED:
                    layer.tar.add(_whiteout(change.path))
                elif changed is not None and changed.path not in written:
                    written.add(changed.path)
                    packer.add(changed, changed.path)
    return layer.finish()


def changes(left: str | None, right: str) -> Iterator[Change]:
    """Yields the differences in the order of the walk."""
    with _opened(right) as right_fd:
        if left is None:
            for node in walk(right_fd):
                yield Change(node.path, ChangeKind.ADDED)
            return
        with _opened(left) as left_fd:
            for change, _, _ in _compare(left_fd, right_fd):
                yield change


class _opened:
    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


_Step = tuple[Change, Node | None, tuple[Node, ...]]


def _compare(left: int, right: int, path: str = "", parents: tuple[Node, ...] = ()) -> Iterator[_Step]:
    old = _entries(left)
    new = _entries(right)
    for name in sorted(old.keys() | new.keys(), key=os.fsencode):
        here = f"{path}/{name}" if path else name
        if name not in new:
            yield Change(here, ChangeKind.DELETED), None, parents
            continue
        node = Node(here, right, name, new[name])
        if name not in old:
            yield Change(here, ChangeKind.ADDED), node, parents
            if stat.S_ISDIR(node.stat.st_mode):
                yield from _added(node, (*parents, node))
            continue
        before = Node(here, left, name, old[name])
        both_dirs = stat.S_ISDIR(node.stat.st_mode) and stat.S_ISDIR(before.stat.st_mode)
        if not _same(before, node):
            yield Change(here, ChangeKind.MODIFIED), node, parents
        if both_dirs:
            with _below(before) as deeper_left, _below(node) as deeper_right:
                yield from _compare(deeper_left, deeper_right, here, (*parents, node))
        elif stat.S_ISDIR(node.stat.st_mode):
            yield from _added(node, (*parents, node))


def _added(directory: Node, parents: tuple[Node, ...]) -> Iterator[_Step]:
    with _below(directory) as fd:
        for name, status in sorted(_entries(fd).items(), key=lambda item: os.fsencode(item[0])):
            node = Node(f"{directory.path}/{name}", fd, name, status)
            yield Change(node.path, ChangeKind.ADDED), node, parents
            if stat.S_ISDIR(status.st_mode):
                yield from _added(node, (*parents, node))


class _below:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._fd = -1

    def __enter__(self) -> int:
        self._fd = os.open(self._node.name, _DIRECTORY, dir_fd=self._node.parent)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _entries(directory: int) -> dict[str, os.stat_result]:
    found = {}
    for name in os.listdir(directory):
        try:
            found[name] = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
    return found


def _same(a: Node, b: Node) -> bool:
    """Compares as containerd does: metadata first, and the content only where the time can't decide."""
    x, y = a.stat, b.stat
    if (x.st_mode, x.st_uid, x.st_gid) != (y.st_mode, y.st_uid, y.st_gid):
        return False
    if stat.S_ISLNK(x.st_mode):
        return os.readlink(a.name, dir_fd=a.parent) == os.readlink(b.name, dir_fd=b.parent)
    if stat.S_ISCHR(x.st_mode) or stat.S_ISBLK(x.st_mode):
        return x.st_rdev == y.st_rdev
    if stat.S_ISDIR(x.st_mode) or not stat.S_ISREG(x.st_mode):
        return _attributes(a) == _attributes(b)
    if (x.st_dev, x.st_ino) == (y.st_dev, y.st_ino):
        return True
    if x.st_size != y.st_size or _attributes(a) != _attributes(b):
        return False
    whole = x.st_mtime_ns % 1_000_000_000 == 0 or y.st_mtime_ns % 1_000_000_000 == 0
    if whole:
        # Times from an archive have whole seconds: two writes within one second have the same time.
        return x.st_mtime_ns // 1_000_000_000 == y.st_mtime_ns // 1_000_000_000 and _same_content(a, b)
    return x.st_mtime_ns == y.st_mtime_ns


def _attributes(node: Node) -> dict[str, bytes]:
    flags = _DIRECTORY if stat.S_ISDIR(node.stat.st_mode) else _FILE
    if not stat.S_ISDIR(node.stat.st_mode) and not stat.S_ISREG(node.stat.st_mode):
        return {}
    fd = os.open(node.name, flags, dir_fd=node.parent)
    try:
        return {key: os.getxattr(fd, key) for key in os.listxattr(fd) if layer_xattr(key)}
    finally:
        os.close(fd)


def _same_content(a: Node, b: Node) -> bool:
    one = os.open(a.name, _FILE, dir_fd=a.parent)
    try:
        two = os.open(b.name, _FILE, dir_fd=b.parent)
        try:
            while True:
                data = os.read(one, 1 << 20)
                if data != os.read(two, 1 << 20):
                    return False
                if not data:
                    return True
        finally:
            os.close(two)
    finally:
        os.close(one)
