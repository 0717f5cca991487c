"""Selects the files of a source that an operation names, and computes their checksums.

Every look-up is relative to a descriptor of the source's root. Symbolic links are followed only where Docker follows
them (the named source itself and its parent directories), and never out of the root.
"""

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.common.errors import WharfError, invalid, not_found
from engine.common.files.paths import open_inside, resolve, stat_inside
from engine.common.layers.pack import Node, walk
from server.builder.dockerfile.ignore import Ignore, component

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_HASH = 1 << 20


def missing(source: str) -> WharfError:
    """The error for a missing source, in BuildKit's words."""
    return not_found(f'"{posixpath.normpath("/" + source.strip("/"))}": not found')


@dataclass(frozen=True, slots=True)
class Picked:
    """A source that was found. ``path`` is relative to the root (``""`` is the root itself), links resolved.

    ``shown`` is the source as named: its last part is the name in the target, all of it with ``--parents``.
    """

    path: str
    shown: str
    stat: os.stat_result

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)


def pick(root: int, sources: Sequence[str], *, may_match_nothing: bool = False) -> list[Picked]:
    """Return the sources in order, with wildcards expanded (sorted).

    Raises NOT_FOUND with BuildKit's sentence for a source that matches nothing.
    """
    found: list[Picked] = []
    for source in sources:
        clean = posixpath.normpath("/" + source).lstrip("/")
        if any(char in clean for char in "*?["):
            names = sorted(_glob(root, "", clean.split("/")))
            if not names and not may_match_nothing:
                raise missing(source)
        else:
            names = [clean]
        for name in names:
            path = resolve(root, name)
            try:
                found.append(Picked(path, _insert_pivot(source, name), stat_inside(root, path)))
            except (FileNotFoundError, NotADirectoryError):
                raise missing(source) from None
    return found


def _insert_pivot(source: str, name: str) -> str:
    """Insert the ``/./`` of the source into the name; ``--parents`` keeps the path after it."""
    before, pivot, _ = source.partition("/./")
    above = [part for part in posixpath.normpath("/" + before).split("/") if part]
    if not pivot or not above:
        return name
    parts = name.split("/")
    return "/".join((*parts[: len(above)], ".", *parts[len(above) :]))


def _glob(root: int, above: str, parts: Sequence[str]) -> Iterator[str]:
    part, rest = parts[0], parts[1:]
    base = resolve(root, above)
    if not any(char in part for char in "*?[\\"):
        path = f"{above}/{part}" if above else part
        if rest:
            yield from _glob(root, path, rest)
        else:
            try:
                stat_inside(root, f"{base}/{part}")
            except (FileNotFoundError, NotADirectoryError):
                return
            yield path
        return
    expression = component(part)
    try:
        fd = open_inside(root, base, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        names = [name for name in os.listdir(fd) if expression.fullmatch(name)]
    finally:
        os.close(fd)
    for name in names:
        path = f"{above}/{name}" if above else name
        if rest:
            yield from _glob(root, path, rest)
        else:
            yield path


def files(root: int, picked: Picked, exclude: Ignore) -> Iterator[tuple[str, Node]]:
    """Yield a source's files: names relative to it (``""`` for itself), directories first."""
    above, _, name = picked.path.rpartition("/")
    if not picked.is_dir:
        parent = open_inside(root, above, _DIRECTORY)
        try:
            if not (exclude and exclude.ignores(name)):
                yield "", Node(name, parent, name, picked.stat)
        finally:
            os.close(parent)
        return
    fd = open_inside(root, picked.path, _DIRECTORY)
    try:
        yield "", Node("", fd, ".", picked.stat)

        def left_out(node: Node) -> bool:
            if not exclude.ignores(node.path):
                return False
            return not (stat.S_ISDIR(node.stat.st_mode) and exclude.may_contain_kept(node.path))

        for node in walk(fd, skip=left_out if exclude else None):
            if not (exclude and exclude.ignores(node.path)):
                yield node.path, node
    finally:
        os.close(fd)


class Checksums:
    """The digests of file contents, cached while inode, size and times stay the same.

    ``known`` may be kept between builds of one context (inode → size, mtime, ctime, digest).
    """

    def __init__(self, known: dict[int, tuple[int, int, int, str]] | None = None) -> None:
        self.known = {} if known is None else known
        self.hashed = 0
        """The number of files that were read."""

    def content(self, node: Node) -> str:
        """Return the hexadecimal SHA-256 of a regular file."""
        status = node.stat
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        old = self.known.get(status.st_ino)
        if old is not None and old[:3] == stamp:
            return old[3]
        fd = os.open(node.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=node.parent)
        digest = hashlib.sha256()
        try:
            while data := os.read(fd, _HASH):
                digest.update(data)
        finally:
            os.close(fd)
        self.hashed += 1
        text = digest.hexdigest()
        self.known[status.st_ino] = (*stamp, text)
        return text

    def compute(self, root: int, sources: Sequence[Picked], exclude: Ignore, *, owners: bool) -> str:
        """Return one checksum of all files of the sources: names, types, modes and contents, not times.

        ``owners``: include uid and gid (for files of another stage); a context's files belong to root.
        """
        total = hashlib.sha256()
        for picked in sources:
            total.update(b"\0source\0" + os.fsencode(picked.shown))
            for name, node in files(root, picked, exclude):
                total.update(self._line(name, node, owners=owners))
        return total.hexdigest()

    def _line(self, name: str, node: Node, *, owners: bool) -> bytes:
        status = node.stat
        what = ""
        if stat.S_ISREG(status.st_mode):
            what = self.content(node)
        elif stat.S_ISLNK(status.st_mode):
            what = os.readlink(node.name, dir_fd=node.parent)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            what = str(status.st_rdev)
        owner = f"{status.st_uid}:{status.st_gid}" if owners else ""
        xattrs = ""
        if stat.S_ISREG(status.st_mode) and owners:
            xattrs = _capability(node)
        return os.fsencode(f"\0{name}\0{status.st_mode:o}\0{owner}\0{what}\0{xattrs}")


def _capability(node: Node) -> str:
    try:
        fd = os.open(node.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=node.parent)
    except OSError:
        return ""
    try:
        return os.getxattr(fd, "security.capability").hex()
    except OSError:
        return ""
    finally:
        os.close(fd)


def open_root(path: str) -> int:
    """Open a source's root; the caller closes the descriptor."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def read_file(root: str, path: str, *, limit: int) -> bytes | None:
    """Read a small file of a source, links followed within its root; ``None`` if it is missing.

    Raises INVALID_ARGUMENT if it is larger than ``limit`` bytes.
    """
    try:
        fd = open_inside(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise invalid(f"{path} is not a file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise invalid(f"{path} is too large")
    return data
