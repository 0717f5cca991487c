"""Writes the layer of ``COPY``, ``ADD`` and ``WORKDIR``.

The layer is written directly, without a writable mount. The parent is only read, so that existing directories keep
their modes, and so that links in the target's path are followed.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from engine.common.errors import invalid
from engine.common.files.paths import resolve, stat_inside
from engine.common.layers import header as tar
from engine.common.layers.blob import LayerWriter, Written
from engine.common.layers.compression import Compression
from engine.common.layers.header import Header
from engine.common.layers.pack import Packer
from server.builder.dockerfile.ignore import Ignore
from server.builder.operations.selection import Picked, files
from server.builder.plan.steps import Copy

_CLAUSE = re.compile(r"^([ugoa]*)([+\-=])([rwxXst]*)$")


def apply_chmod(text: str, old: int, *, directory: bool) -> int:
    """Apply ``--chmod``: octal, or symbolic clauses as of chmod(1). Raises INVALID_ARGUMENT."""
    if not text:
        return old
    if re.fullmatch(r"0?[0-7]{1,4}", text):
        return int(text, 8)
    mode = old
    for clause in text.split(","):
        match = _CLAUSE.match(clause)
        if match is None:
            raise invalid(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
        who, how, what = match[1] or "a", match[2], match[3]
        mode = _clause(mode, "ugo" if "a" in who else who, how, what, directory=directory)
    return mode


def _clause(mode: int, who: str, how: str, what: str, *, directory: bool) -> int:
    bits = 0
    for letter in what:
        if letter == "X":
            bits |= 1 if directory or mode & 0o111 else 0
        elif letter in "rwx":
            bits |= {"r": 4, "w": 2, "x": 1}[letter]
    selected = cleared = 0
    for person, shift, special in (("u", 6, stat.S_ISUID), ("g", 3, stat.S_ISGID), ("o", 0, 0)):
        if person in who:
            selected |= bits << shift
            cleared |= 7 << shift
            if "s" in what:
                selected |= special
    if "t" in what:
        selected |= stat.S_ISVTX
    if how == "+":
        return mode | selected
    if how == "-":
        return mode & ~selected
    return mode & ~cleared | selected


@dataclass(slots=True)
class Placement:
    """Resolves paths in the parent's root. ``root`` is ``None`` for an empty parent or ``--link``."""

    root: int | None
    made: set[str] = field(default_factory=set)
    """Directories that this layer has created."""

    def real(self, path: str, *, last: bool = True) -> str:
        """Return the relative path in the image with the parent's links followed."""
        if path.rpartition("/")[0] in self.made:
            return path  # the parent has no such entry
        if self.root is None:
            return os.path.normpath("/" + path).lstrip("/")
        return resolve(self.root, path, last=last)

    def kind(self, path: str) -> int:
        """Return the file type at a path (``S_IFMT``), 0 if nothing exists."""
        if path in self.made or not path:
            return stat.S_IFDIR
        if self.root is None or path.rpartition("/")[0] in self.made:
            return 0
        try:
            return stat.S_IFMT(stat_inside(self.root, path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return 0


@dataclass(frozen=True, slots=True)
class Source:
    """Files to copy: an open root, the selected files, and whether their owners are kept."""

    root: int
    picked: Sequence[Picked]
    keep_owner: bool
    keep_top: bool = False
    """Copy the directory itself, as with ``--parents``. Otherwise only its content: the target directory is then
    created as a missing one, except for its time."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file with known content: a here-document, or a download (``path`` on disk)."""

    name: str
    content: bytes = b""
    path: str = ""
    mode: int = 0o644
    mtime_ns: int = 0


Content = Callable[[Callable[[bytes | memoryview], object]], None]
"""Passes the content of an entry on, in pieces."""


class CopyLayer:
    """Writes one layer. ``now_ns``: the time of entries that have no time; ``clamp_ns``: the latest time of any."""

    def __init__(
        self,
        out: Callable[[bytes], object],
        placement: Placement,
        *,
        owner: tuple[int, int] | None,
        chmod: str,
        now_ns: int,
        clamp_ns: int | None = None,
        compression: Compression = Compression.GZIP,
    ) -> None:
        self._layer = LayerWriter(out, compression)
        self._placement, self._owner, self._chmod = placement, owner, chmod
        self._now_ns, self._clamp_ns = now_ns, clamp_ns
        self._packer = Packer(self._layer.tar)

    def finish(self) -> Written:
        """Finish the layer."""
        return self._layer.finish()

    def _time(self, ns: int) -> int:
        return ns if self._clamp_ns is None else min(ns, self._clamp_ns)

    def directories(self, path: str) -> None:
        """Create a directory and its missing parents."""
        if path in self._placement.made:
            return
        parts = path.split("/") if path else []
        for count in range(1, len(parts) + 1):
            here = "/".join(parts[:count])
            kind = self._placement.kind(here)
            if kind == stat.S_IFDIR:
                continue
            if kind:
                raise invalid(f"cannot copy to non-directory: /{here}")
            uid, gid = self._owner or (0, 0)
            entry = Header(here, tar.DIRECTORY, 0o755, uid, gid, mtime_ns=self._time(self._now_ns))
            self._layer.tar.add(entry)
            self._placement.made.add(here)

    def file_content(self, file: FileContent, target: str) -> None:
        """Write a file of known content."""
        self.directories(os.path.dirname(target))
        if self._placement.kind(target) == stat.S_IFDIR:
            raise invalid(f"cannot overwrite directory /{target} with a file")
        uid, gid = self._owner or (0, 0)
        mode = apply_chmod(self._chmod, file.mode, directory=False)
        entry = Header(target, tar.REGULAR, mode, uid, gid, mtime_ns=self._time(file.mtime_ns or self._now_ns))
        if not file.path:
            self._layer.tar.add(entry, file.content)
            return
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            entry.size = os.fstat(fd).st_size
            self._layer.tar.add_file(entry, fd)
        finally:
            os.close(fd)

    def source(self, source: Source, picked: Picked, target: str, exclude: Ignore) -> None:
        """Copy one source to exactly ``target`` (of a directory, its content)."""
        if not picked.is_dir and self._placement.kind(target) == stat.S_IFDIR:
            raise invalid(f"cannot overwrite directory /{target} with a file")
        for name, node in files(source.root, picked, exclude):
            path = "/".join(part for part in (target, name) if part)
            directory = stat.S_ISDIR(node.stat.st_mode)
            if name:
                path = self._placement.real(path, last=directory)
            if not path:
                continue
            if not name and directory and not picked.path and not source.keep_owner:
                # The context's root directory is not copied: its target is created as a missing directory.
                self.directories(path)
                continue
            self.directories(os.path.dirname(path))
            present = self._placement.kind(path)
            if directory and present == stat.S_IFDIR:
                continue
            if present and directory:
                raise invalid(f"cannot copy to non-directory: /{path}")
            if present == stat.S_IFDIR:
                raise invalid(f"cannot overwrite directory /{path} with a file")
            entry = self._packer.header(node, path)
            if entry is None:
                continue
            top = not name and directory and not source.keep_top
            if self._owner is not None:
                entry.uid, entry.gid = self._owner
            elif top or not source.keep_owner:
                entry.uid = entry.gid = 0
            if top:
                entry.mode = 0o755
            elif entry.type != tar.SYMLINK:
                entry.mode = apply_chmod(self._chmod, entry.mode, directory=directory)
            entry.mtime_ns = self._time(entry.mtime_ns)
            try:
                self._packer.add_as(node, entry)
            except FileNotFoundError:
                continue
            if directory:
                self._placement.made.add(path)

    def entries(self, found: Iterator[tuple[Header, Content]], target: str) -> None:
        """Extract an archive into a directory, entry by entry; names can't leave the directory."""
        self.directories(target)
        for entry, content in found:
            name = os.path.normpath("/" + entry.name).lstrip("/")
            path = self._placement.real("/".join(part for part in (target, name) if part), last=entry.is_dir)
            if not path:
                continue
            self.directories(os.path.dirname(path))
            if entry.is_dir and self._placement.kind(path) == stat.S_IFDIR:
                continue
            entry.name = path
            if entry.type == tar.HARDLINK:
                linked = os.path.normpath("/" + entry.linkname).lstrip("/")
                entry.linkname = "/".join(part for part in (target, linked) if part)
            if self._owner is not None:
                entry.uid, entry.gid = self._owner
            entry.mtime_ns = self._time(entry.mtime_ns)
            self._layer.tar.begin(entry)
            content(lambda piece: self._layer.tar.data(bytes(piece)))
            self._layer.tar.end(entry.size)
            if entry.is_dir:
                self._placement.made.add(path)


def targets(operation: Copy, placement: Placement, names: Sequence[tuple[str, bool]]) -> list[str | None]:
    """Return the target path of each source; ``None`` for a file that a later source overwrites. ``names``: each
    source's name, and whether it is a directory (whose content is copied).

    Docker's rules: a target that ends in ``/`` or is a directory holds files under their own names; otherwise it is the
    file's new name, and of several files BuildKit keeps the last. ``--parents`` keeps the path after ``/./``. Raises
    INVALID_ARGUMENT for a directory on a file, and, as the classic builder, for several sources of one target file.
    """
    base = placement.real(operation.target)
    into = operation.target.endswith("/")
    if len(names) > 1 and not into and not operation.may_match_nothing:
        name = "ADD" if operation.add else "COPY"
        raise invalid(
            f"When using {name} with more than one source file, the destination must be a directory and end with a /"
        )
    into = into or placement.kind(base) == stat.S_IFDIR
    found: list[str] = []
    for name, directory in names:
        if operation.parents:
            kept = name.split("/./", 1)[-1].lstrip("/")
            found.append("/".join(part for part in (base, kept) if part))
        elif directory:
            if found and not into:
                raise invalid(f"cannot copy to non-directory: /{base}")
            found.append(base)
            into = True
        elif into:
            found.append("/".join(part for part in (base, os.path.basename(name)) if part))
        else:
            found.append(base)
    last = {target: number for number, target in enumerate(found)}
    # An archive's entries have other paths than its own name.
    kept_all = operation.unpack
    return [
        target if directory or kept_all or last[target] == number else None
        for number, (target, (_, directory)) in enumerate(zip(found, names, strict=True))
    ]
