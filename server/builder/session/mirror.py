"""A directory that is kept equal to a client's tree: the build context, transferred as differences.

The mirror is kept between builds, so that only files with changed metadata are requested again (as BuildKit's
``fsutil`` with its shared key). The client's description is hostile input: every operation is relative to a directory
that was opened without following links, so a symbolic link in the tree can't lead a later entry out of it.
"""

import os
import shutil
import stat
from collections.abc import Iterator

from engine.common.errors import invalid
from engine.common.files.writing import write_all
from server.builder.session.stat import Entry, entry_from_stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise invalid(f"invalid path in build context: {path!r}")
    return parts


class Mirror:
    """One synchronisation of ``root``, for one thread at a time.

    Call :meth:`add` for each entry in the sender's order (a directory before its entries), :meth:`data` for requested
    content, and :meth:`finish` at the end. If :meth:`finish` is not called, the next synchronisation repairs the tree:
    it compares entries with the disk.
    """

    def __init__(self, root: str) -> None:
        os.makedirs(root, mode=0o700, exist_ok=True)
        self.root = root
        self._old = {entry.path: entry for entry in walk(root)}
        self._seen: set[str] = set()
        self._directories: list[Entry] = []
        self._links: list[Entry] = []
        self._wanted: dict[int, Entry] = {}
        self._open: dict[int, tuple[int, Entry]] = {}
        self._rootfd = os.open(root, _DIRECTORY)
        self._parent: tuple[str, int] = ("", self._rootfd)
        self.changed = 0
        """The number of entries created or rewritten."""

    def _enter(self, directory: str) -> int:
        """Return the descriptor of a directory of the tree; it is cached for the next entry of the same directory."""
        name, fd = self._parent
        if name == directory:
            return fd
        fresh = self._rootfd
        for part in directory.split("/") if directory else ():
            try:
                deeper = os.open(part, _DIRECTORY, dir_fd=fresh)
            except OSError as error:
                raise invalid(f"invalid build context: {directory!r} is not a directory") from error
            finally:
                if fresh != self._rootfd:
                    os.close(fresh)
            fresh = deeper
        if fd != self._rootfd:
            os.close(fd)
        self._parent = (directory, fresh)
        return fresh

    def add(self, number: int, entry: Entry) -> bool:
        """Create an entry from its metadata; return whether its content must be requested.

        Raises INVALID_ARGUMENT for a path outside the tree.
        """
        *above, name = _parts(entry.path)
        parent = self._enter("/".join(above))
        self._seen.add(entry.path)
        old = self._old.get(entry.path)
        if stat.S_ISREG(entry.mode) and entry.linkname:
            self._links.append(entry)
            return False
        if old is not None and _same(old, entry):
            if stat.S_ISDIR(entry.mode):
                self._directories.append(entry)
            return False
        self.changed += 1
        keep = old is not None and stat.S_ISDIR(old.mode) and stat.S_ISDIR(entry.mode)
        if old is not None and not keep:
            self._remove(parent, name)
        if stat.S_ISDIR(entry.mode):
            if not keep:
                os.mkdir(name, 0o700, dir_fd=parent)
            self._directories.append(entry)
            return False
        if stat.S_ISREG(entry.mode):
            if entry.size == 0:
                self._apply_metadata(os.open(name, _NEW_FILE, 0o600, dir_fd=parent), entry)
                return False
            self._wanted[number] = entry
            return True
        if stat.S_ISLNK(entry.mode):
            os.symlink(entry.linkname, name, dir_fd=parent)
        else:
            os.mknod(name, entry.mode, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)
            os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=parent)
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        return False

    def data(self, number: int, chunk: bytes) -> bool:
        """Append to an entry's content; an empty chunk ends it. Return whether it ended.

        Raises INVALID_ARGUMENT for content that was not requested.
        """
        if number not in self._open:
            self._begin(number)
        fd, entry = self._open[number]
        if chunk:
            write_all(fd, chunk)
            return False
        del self._open[number]
        self._apply_metadata(fd, entry)
        return True

    def _begin(self, number: int) -> None:
        """Open a file when its first bytes arrive: the requests of a large context are sent before its content."""
        entry = self._wanted.pop(number, None)
        if entry is None:
            raise invalid(f"build context: the content of entry {number} was not requested")
        above, _, name = entry.path.rpartition("/")
        self._open[number] = (os.open(name, _NEW_FILE, 0o600, dir_fd=self._enter(above)), entry)

    @staticmethod
    def _apply_metadata(fd: int, entry: Entry) -> None:
        try:
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, stat.S_IMODE(entry.mode))
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _remove(self, parent: int, name: str) -> None:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)

    def finish(self) -> None:
        """Create links, remove stale entries, and set the directories' times."""
        for entry in self._links:
            self._link(entry)
        for path in sorted(self._old.keys() - self._seen, reverse=True):
            *above, name = path.split("/")
            try:
                self._remove(self._enter("/".join(above)), name)
                self.changed += 1
            except (FileNotFoundError, NotADirectoryError):
                continue
            except Exception:
                # The parent was replaced by another type of file, which removed everything below it.
                if os.path.lexists(os.path.join(self.root, path)) and not self._above_is_link(path):
                    raise
        for entry in reversed(self._directories):
            fd = self._enter(entry.path)
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, stat.S_IMODE(entry.mode))
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        self.close()

    def _above_is_link(self, path: str) -> bool:
        above = os.path.dirname(path)
        while above:
            if os.path.islink(os.path.join(self.root, above)):
                return True
            above = os.path.dirname(above)
        return False

    def _link(self, entry: Entry) -> None:
        *above, name = _parts(entry.path)
        *source_above, source = _parts(entry.linkname)
        # Open outside the cache, which holds one directory, as two are needed at once.
        source_parent = os.dup(self._enter("/".join(source_above)))
        try:
            parent = self._enter("/".join(above))
            target = os.stat(source, dir_fd=source_parent, follow_symlinks=False)
            try:
                present = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                present = None
            if present is not None:
                if present.st_ino == target.st_ino:
                    return
                self._remove(parent, name)
            self.changed += 1
            os.link(source, name, src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as error:
            raise invalid(f"build context: {entry.path!r} links to a missing {entry.linkname!r}") from error
        finally:
            os.close(source_parent)

    def close(self) -> None:
        """Close every descriptor. Idempotent."""
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()
        if self._rootfd >= 0:
            if self._parent[1] != self._rootfd:
                os.close(self._parent[1])
            os.close(self._rootfd)
            self._rootfd = -1


def _same(old: Entry, new: Entry) -> bool:
    return (
        old.mode == new.mode
        and (old.uid, old.gid) == (new.uid, new.gid)
        and old.linkname == new.linkname
        and (old.devmajor, old.devminor) == (new.devmajor, new.devminor)
        and (stat.S_ISDIR(new.mode) or (old.size, old.mtime_ns) == (new.size, new.mtime_ns))
    )


def walk(root: str) -> Iterator[Entry]:
    """Yield the entries below ``root`` in the sender's order: names sorted, a directory before its entries."""
    stack = [("", root)]
    while stack:
        prefix, directory = stack.pop()
        with os.scandir(directory) as scan:
            found = sorted(scan, key=lambda item: item.name)
        below = []
        for item in found:
            path = prefix + item.name
            st = item.stat(follow_symlinks=False)
            link = os.readlink(item.path) if item.is_symlink() else ""
            entry = entry_from_stat(path, st, linkname=link)
            if stat.S_ISDIR(st.st_mode):
                below.append((path + "/", item.path))
            yield entry
        stack.extend(reversed(below))
