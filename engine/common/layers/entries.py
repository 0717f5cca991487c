"""Creates files from an archive's entries. Runs in a thread whose root is the target (see ``extract``)."""

import errno
import json
import os
import stat
from collections.abc import Sequence

from engine.common.errors import Kind, WharfError, invalid
from engine.common.layers import header as tar
from engine.common.layers.header import Header
from engine.common.layers.target import Options, Whiteouts
from engine.common.layers.target_paths import TargetPaths, is_whiteout, set_opaque
from engine.common.layers.tarread import TarReader
from engine.common.system.fds import pwrite_all

_WHITEOUT = ".wh."
_META = ".wh..wh."
_OPAQUE = ".wh..wh..opq"
#: Attributes that control overlayfs: from an archive they could make a layer expose other layers' files.
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: The largest time that utimensat(2) accepts on the usual file systems (ext4 with 256-byte inodes: 1901 to 2446).
_TIME_MAX = (1 << 63) - 1


def _clean(name: str, what: str = "entry name") -> str:
    """The name relative to the root, "" for the root itself.

    :raises WharfError: INVALID_ARGUMENT, in the sentence of dockerd 28 and newer, if the name leads out of the root.
    """
    if ".." not in name and "//" not in name and "./" not in name and not name.startswith("/"):
        return "" if name == "." else name.rstrip("/")
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise invalid(f"invalid {what} {json.dumps(name)}")
            parts.pop()
        elif part and part != ".":
            parts.append(part)
    return "/".join(parts)


class Extractor:
    """Extracts one archive into the thread's root."""

    def __init__(self, whiteouts: Whiteouts, lowers: Sequence[int], options: Options) -> None:
        """``lowers``: descriptors of the layers below an overlay's upper directory, the nearest first."""
        self._mark = whiteouts is Whiteouts.OVERLAY
        self._delete = whiteouts is Whiteouts.APPLY
        self._options = options
        self._base = options.into.strip("/")
        self._paths = TargetPaths(
            mark=self._mark, lowers=lowers, base=self._base, no_overwrite_kind=options.no_overwrite_kind
        )
        # A directory's set-group-id bit or default ACL changes the owner and mode of files created in it; until one
        # occurs, owner 0:0 and the mode given at creation are exact. A target that is not a fresh layer may have both.
        self._restate = not self._mark
        # directories: set at the end, since creating files in them changes their times
        self._times: dict[str, tuple[int, int]] = {}
        self._made: set[str] = set()  # plain mode: paths that this archive created; its whiteouts don't remove them

    def run(self, reader: TarReader) -> int:
        """Extracts every entry; returns their number."""
        count = 0
        if self._base:
            os.chdir("/" + self._base)
        entry: Header | None = None
        try:
            for entry in reader:
                count += 1
                self._one(entry, reader)
            entry = None
            self._finish()
        except OSError as error:
            raise _error_of(error, entry) from None
        except (ValueError, OverflowError):  # a number out of range, a NUL in an attribute's name
            raise invalid(f"archive/tar: invalid tar header ({entry.name if entry else ''!r})") from None
        return count

    def _one(self, entry: Header, reader: TarReader) -> None:
        options = self._options
        if options.map_name is not None:
            mapped = options.map_name(entry.name)
            if mapped is None:
                return
            entry.name = mapped
        name = _clean(entry.name)
        if _WHITEOUT in name and (self._mark or self._delete):
            base = name[name.rfind("/") + 1 :]
            if base.startswith(_WHITEOUT):
                self._whiteout(name[: -len(base)].rstrip("/"), base)
                return
        if options.owner is not None:
            entry.uid, entry.gid = options.owner
        if options.map_owner is not None:
            entry.uid, entry.gid = options.map_owner(entry.uid, entry.gid)
        kind = entry.type
        if kind == tar.REGULAR:
            self._regular(name, entry, reader)
            return
        if kind == tar.DIRECTORY:
            self._directory(name, entry)
            return
        self._usable(name, entry)
        if kind == tar.SYMLINK:
            self._paths.make(name, lambda path: os.symlink(entry.linkname, path))
        elif kind == tar.HARDLINK:
            self._hardlink(name, _clean(entry.linkname, "hardlink target"))
            return
        elif kind in (tar.CHAR, tar.BLOCK, tar.FIFO):
            self._node(name, entry)
        else:
            raise invalid(f"unhandled tar header type {kind[0]} for {entry.name!r}")
        self._attributes(name, entry)

    # kinds of entries

    def _usable(self, name: str, entry: Header) -> None:
        if not name:
            raise invalid(f"invalid tar entry: {entry.name!r} is not a directory")

    def _regular(self, name: str, entry: Header, reader: TarReader) -> None:
        mode = entry.mode
        try:
            fd = os.open(name, _CREATE, mode)
        except OSError:
            self._usable(name, entry)
            fd = self._paths.make(name, lambda path: os.open(path, _CREATE, mode))
        try:
            if entry.sparse is not None:
                _write_sparse(fd, entry, reader)
            elif entry.size:
                reader.send(fd)
            if self._restate or entry.uid or entry.gid:
                os.fchown(fd, entry.uid, entry.gid)
                if self._restate or mode & 0o7000:
                    os.fchmod(fd, mode)
            elif mode & 0o7000:
                os.fchmod(fd, mode)
            if entry.xattrs:
                self._xattrs(name, entry)
            os.utime(fd, ns=_times(entry))
        finally:
            os.close(fd)
        if self._delete:
            self._made.add(name)

    def _directory(self, name: str, entry: Header) -> None:
        if not name and not (self._mark or self._delete):
            return  # the archive doesn't change the target itself
        path = name or "."
        mode = entry.mode
        if name:
            try:
                os.mkdir(name, mode)
            except OSError:
                self._directory_again(name, mode)
        if self._restate or entry.uid or entry.gid or not name:
            os.chown(path, entry.uid, entry.gid)
            os.chmod(path, mode)
        elif mode & 0o7000:
            os.chmod(path, mode)
        if mode & stat.S_ISGID:
            self._restate = True
        if entry.xattrs:
            self._xattrs(path, entry)
            if "system.posix_acl_default" in entry.xattrs:
                self._restate = True
        self._times[path] = _times(entry)
        if self._delete:
            self._made.add(name)

    def _directory_again(self, name: str, mode: int) -> None:
        """Handles a failed mkdir: the parent is missing, or the name exists."""
        was_white = False
        for _ in range(3):
            try:
                os.mkdir(name, mode)
                if was_white:
                    set_opaque(name)
                return
            except FileNotFoundError:
                self._paths.ensure(os.path.dirname(name))
            except FileExistsError:
                found = os.lstat(name)
                if stat.S_ISDIR(found.st_mode):
                    if not self._mark:
                        os.chmod(name, mode)
                    else:
                        self._restated_mode(name, mode)
                    return
                if self._options.follow_dir_links and stat.S_ISLNK(found.st_mode) and os.path.isdir(name):
                    return
                if self._options.no_overwrite_kind:
                    raise invalid(f"cannot overwrite non-directory {name!r} with directory") from None
                was_white = self._mark and is_whiteout(found)
                os.unlink(name)
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), name)

    def _restated_mode(self, name: str, mode: int) -> None:
        os.chown(name, 0, 0)
        os.chmod(name, mode)

    def _hardlink(self, name: str, source: str) -> None:
        if source == name:
            raise invalid(f"invalid hardlink {name!r} -> {source!r}")

        def link(path: str) -> None:
            try:
                os.link(source, path, follow_symlinks=False)
            except FileNotFoundError:
                # A parent is missing, or the source is in a lower layer: then copy it up.
                if not self._paths.lowers or os.path.lexists(source):
                    raise
                self._paths.ensure(os.path.dirname(source))
                if not self._paths.lowers.copy_up(source):
                    raise
                os.link(source, path, follow_symlinks=False)

        self._paths.make(name, link)
        if self._delete:
            self._made.add(name)

    def _node(self, name: str, entry: Header) -> None:
        kind = {tar.CHAR: stat.S_IFCHR, tar.BLOCK: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}[entry.type]
        if not (0 <= entry.devmajor < 1 << 32 and 0 <= entry.devminor < 1 << 32):
            raise invalid("archive/tar: invalid tar header")
        device = os.makedev(entry.devmajor, entry.devminor) if kind != stat.S_IFIFO else 0
        self._paths.make(name, lambda path: os.mknod(path, kind | entry.mode, device))

    def _attributes(self, name: str, entry: Header) -> None:
        """Sets owner, mode, extended attributes and times of a link or a device."""
        if self._restate or entry.uid or entry.gid:
            os.chown(name, entry.uid, entry.gid, follow_symlinks=False)
        if entry.type != tar.SYMLINK and (self._restate or entry.mode & 0o7000):
            os.chmod(name, entry.mode)
        if entry.xattrs:
            self._xattrs(name, entry)
        os.utime(name, ns=_times(entry), follow_symlinks=False)
        if self._delete:
            self._made.add(name)

    def _xattrs(self, path: str, entry: Header) -> None:
        for key, value in entry.xattrs.items():
            if key.startswith(_OVERLAY_XATTRS):
                continue
            try:
                os.setxattr(path, key, value, follow_symlinks=False)
            except OSError as error:
                # Some file systems, and symlinks, don't support all attributes; containerd ignores these errors too.
                if error.errno != errno.ENOTSUP and not (error.errno == errno.EPERM and key.startswith("user.")):
                    raise

    # whiteouts

    def _whiteout(self, parent: str, base: str) -> None:
        if base == _OPAQUE:
            self._opaque(parent)
            return
        if base.startswith(_META):
            return  # AUFS metadata
        hidden = base[len(_WHITEOUT) :]
        if hidden in ("", ".", ".."):
            raise invalid(f"invalid whiteout name: {base}")
        path = f"{parent}/{hidden}" if parent else hidden
        if self._mark:
            try:
                os.mknod(path, stat.S_IFCHR, 0)
            except FileNotFoundError:
                self._paths.ensure(parent)
                os.mknod(path, stat.S_IFCHR, 0)
            except FileExistsError:
                # This layer adds the name itself: a whiteout hides only the layers below.
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    set_opaque(path)
        else:
            self._remove_below(path)

    def _opaque(self, parent: str) -> None:
        if self._mark:
            try:
                set_opaque(parent or ".")
            except FileNotFoundError:
                self._paths.ensure(parent)
                set_opaque(parent or ".")
            return
        try:
            names = os.listdir(parent or ".")
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            self._remove_below(f"{parent}/{name}" if parent else name)

    def _remove_below(self, path: str) -> bool:
        """Plain mode: removes what this archive did not create. Returns True if nothing remains."""
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        if not stat.S_ISDIR(found.st_mode):
            if path in self._made:
                return False
            os.unlink(path)
            return True
        gone = [self._remove_below(f"{path}/{name}") for name in os.listdir(path)]
        if path in self._made or not all(gone):
            return False
        os.rmdir(path)
        return True

    def _finish(self) -> None:
        for path in reversed(self._times):
            try:
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    os.utime(path, ns=self._times[path], follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry replaced it


def _times(entry: Header) -> tuple[int, int]:
    mtime = entry.mtime_ns
    if not 0 <= mtime <= _TIME_MAX:
        mtime = max(-_TIME_MAX, min(mtime, _TIME_MAX))
    return (mtime, mtime)


def _write_sparse(fd: int, entry: Header, reader: TarReader) -> None:
    for offset, length in entry.sparse or ():
        at = offset
        left = length
        while left:
            data = reader.read(min(left, 1 << 20))
            pwrite_all(fd, data, at)
            at += len(data)
            left -= len(data)
    os.ftruncate(fd, entry.size)


def _error_of(error: OSError, entry: Header | None) -> WharfError:
    """The error for the entry at which the kernel refused: of the disk, of the archive, or an internal one."""
    name = entry.name if entry is not None else str(error.filename or "")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    bad = error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.ENOENT)
    kind = Kind.RESOURCE_EXHAUSTED if full else Kind.INVALID_ARGUMENT if bad else Kind.INTERNAL
    return WharfError(kind, f"/{name.strip('/')}: {(error.strerror or str(error)).lower()}")
