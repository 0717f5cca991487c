"""The user of a process, from the container's ``/etc/passwd`` and ``/etc/group``."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from engine.common.errors import internal
from engine.common.files import paths
from server.containers.spec.input import RootFiles

MAX_ID = (1 << 31) - 1
#: The largest passwd or group file in bytes.
MAX_FILE = 8 << 20
#: The longest line of these files in bytes, as in the library that dockerd and runc use.
_MAX_LINE = 64 << 10
#: Directories on which the runtime mounts file systems.
_RUNTIME_MOUNTS = frozenset(("dev", "proc", "sys"))


@dataclass(frozen=True, slots=True)
class User:
    """A process's ids. ``additional_gids`` begins with ``gid``, as in dockerd."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = (0,)


class NeedsMount(Exception):
    """A part of the path is a symbolic link: the file can only be read in the mounted file system."""


@dataclass(frozen=True, slots=True)
class DirectoryRoot:
    """Reads files of a mounted root file system. ``root``: its path or a descriptor. See ``RootFiles``."""

    root: str | int

    def read(self, path: str) -> bytes | None:
        try:
            fd = paths.open_file(self.root, path)
        except (FileNotFoundError, NotADirectoryError):
            self._check_link(path)
            return None
        return _read(fd, path)

    def _check_link(self, path: str) -> None:
        """Refuses a link into a mount of the runtime, such as to ``/dev/zero``: the file doesn't exist yet, but the
        runtime would read it.

        :raises OSError: EINVAL.
        """
        with ExitStack() as stack:
            root = self.root
            if isinstance(root, str):
                root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, root)
            first = paths.resolve(root, path).partition("/")[0]
        if first in _RUNTIME_MOUNTS:
            raise OSError(errno.EINVAL, "not a regular file", path)


@dataclass(frozen=True, slots=True)
class LayeredRoot:
    """Reads files of an overlay that isn't mounted. ``layers``: its directories, uppermost first. See ``RootFiles``.

    :raises NeedsMount: from ``read``: a part of the path is a symbolic link.
    """

    layers: tuple[str, ...]

    def read(self, path: str) -> bytes | None:
        parts = [part for part in path.split("/") if part]
        for layer in self.layers:
            found, data = self._read_layer(layer, parts)
            if found:
                return data
        return None

    def _read_layer(self, layer: str, parts: Sequence[str]) -> tuple[bool, bytes | None]:
        """Whether the layer decides (it has the path, or hides the lower layers there), and the content or None."""
        fd = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opaque = False
        try:
            for part in parts[:-1]:
                try:
                    info = os.stat(part, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    return opaque, None
                if stat.S_ISLNK(info.st_mode):
                    raise NeedsMount(part)
                if not stat.S_ISDIR(info.st_mode):
                    return True, None
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = below
                opaque = opaque or _opaque(fd)
            try:
                info = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                return opaque, None
            if stat.S_ISLNK(info.st_mode):
                raise NeedsMount(parts[-1])
            if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                return True, None  # a whiteout
            path = "/" + "/".join(parts)
            if stat.S_ISDIR(info.st_mode):
                raise IsADirectoryError(errno.EISDIR, "is a directory", path)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            return True, _read(os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd), path)
        finally:
            os.close(fd)


def _opaque(fd: int) -> bool:
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            if os.getxattr(f"/proc/self/fd/{fd}", name) == b"y":
                return True
        except OSError:
            continue
    return False


def _read(fd: int, path: str) -> bytes:
    with os.fdopen(fd, "rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise OSError(errno.EFBIG, f"larger than {MAX_FILE} bytes (MAX_FILE)", path)
    return data


def lookup(spec: str, group_add: Sequence[str], files: RootFiles) -> User:
    """Resolves ``user[:group]`` (names or numbers) and ``--group-add``.

    :raises WharfError: INTERNAL, as in dockerd at start: an unknown user or group, or an unreadable file.
    :raises NeedsMount, ProcessLookupError: from ``files``.
    """
    user_text, _, group_text = spec.partition(":")
    uid, gid, name = _user(user_text, files)
    # Read it even if no name needs it: the runtime reads it for every user, and would block on a FIFO.
    with _read_errors(f"unable to find groups for spec {uid if name is None else name}"):
        groups = list(_groups(files))
    extra: list[int] = []
    if group_text:
        gid = _group(group_text, groups)
    elif name is not None:
        extra = [number for _, number, members in groups if name in members]
    extra += _additional(group_add, groups)
    return User(uid, gid, (gid, *extra))


@contextmanager
def _read_errors(prefix: str) -> Iterator[None]:
    """Converts an OSError in the block to dockerd's error, except ProcessLookupError: the process has exited."""
    try:
        yield
    except (ProcessLookupError, NeedsMount):
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        reason = reason[:1].lower() + reason[1:]
        read = f"read {error.filename}: " if error.filename else ""
        raise internal(f"{prefix}: {read}{reason}") from None


def _user(text: str, files: RootFiles) -> tuple[int, int, str | None]:
    """uid, gid and name; a number without an entry has gid 0 and no name."""
    number = 0 if text == "" else _number(text)
    with _read_errors(f"unable to find user {text or 0}"):
        for name, uid, gid in _passwd(files):
            if (name == text) if number is None else (uid == number):
                return uid, gid, name
    if number is None:
        raise internal(f"unable to find user {text}: no matching entries in passwd file")
    _check_range(number)
    return number, 0, None


_Group = tuple[str, int, frozenset[str]]


def _group(text: str, groups: Sequence[_Group]) -> int:
    number = _number(text)
    if number is not None:
        _check_range(number)
        return number
    for name, gid, _ in groups:
        if name == text:
            return gid
    raise internal(f"unable to find group {text}: no matching entries in group file")


def _additional(names: Sequence[str], known: Sequence[_Group]) -> list[int]:
    found: dict[int, None] = {}
    for text in names:
        gid = next((gid for name, gid, _ in known if name == text or str(gid) == text), None)
        if gid is None:
            gid = _number(text)
            if gid is None:
                raise internal(f"unable to find group {text}: no matching entries in group file")
            _check_range(gid)
        found[gid] = None
    return list(found)


def _number(text: str) -> int | None:
    try:
        return int(text) if text.lstrip("+-").isascii() and text.lstrip("+-").isdigit() else None
    except ValueError:
        return None


def _check_range(number: int) -> None:
    if not 0 <= number <= MAX_ID:
        raise internal(f"uids and gids must be in range 0-{MAX_ID}")


def _lines(data: bytes | None) -> Iterator[list[str]]:
    for raw in (data or b"").split(b"\n"):
        if len(raw) >= _MAX_LINE:
            raise OSError(errno.EMSGSIZE, "bufio.Scanner: token too long")
        line = raw.decode(errors="replace").strip()
        if line and not line.startswith("#"):
            yield line.split(":")


def _passwd(files: RootFiles) -> Iterator[tuple[str, int, int]]:
    for fields in _lines(files.read("/etc/passwd")):
        yield fields[0], _int(fields, 2), _int(fields, 3)


def _groups(files: RootFiles) -> Iterator[_Group]:
    for fields in _lines(files.read("/etc/group")):
        members = frozenset(fields[3].split(",")) if len(fields) > 3 and fields[3] else frozenset()
        yield fields[0], _int(fields, 2), members


def _int(fields: Sequence[str], index: int) -> int:
    # A missing field is 0, as in the library that dockerd uses.
    return (_number(fields[index]) or 0) if len(fields) > index else 0
