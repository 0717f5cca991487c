"""Mounts, lists mounts (``/proc/self/mountinfo``) and unmounts."""

import errno
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.common.system import linux

_CLONE_FS = 0x200
#: mount(2) accepts one page of options.
_PAGE = 4096
#: The kernel's ``OVL_MAX_STACK``.
MAX_LOWER_LAYERS = 500
# The options of overlayfs that are paths.
_PATHS = frozenset(("lowerdir", "upperdir", "workdir"))
# A flag of mount(2) belongs to the mount, to the file system or (read-only) to both.
_ATTRIBUTES = {
    linux.MS_RDONLY: linux.MOUNT_ATTR_RDONLY,
    linux.MS_NOSUID: linux.MOUNT_ATTR_NOSUID,
    linux.MS_NODEV: linux.MOUNT_ATTR_NODEV,
    linux.MS_NOEXEC: linux.MOUNT_ATTR_NOEXEC,
    linux.MS_NOATIME: linux.MOUNT_ATTR_NOATIME,
    linux.MS_STRICTATIME: linux.MOUNT_ATTR_STRICTATIME,
    linux.MS_NODIRATIME: linux.MOUNT_ATTR_NODIRATIME,
}
_SUPERBLOCK = {linux.MS_RDONLY: "ro", linux.MS_SYNCHRONOUS: "sync", linux.MS_DIRSYNC: "dirsync"}


@dataclass(frozen=True, slots=True)
class MountInfo:
    """One line of mountinfo; see proc_pid_mountinfo(5)."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    mountpoint: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]  # "shared:7", "master:3", "unbindable"; empty: private
    fstype: str
    source: str
    super_options: tuple[str, ...]


def _unescape(field: bytes) -> str:
    # The kernel writes space, tab, newline and backslash as \ooo.
    if b"\\" in field:
        for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
            field = field.replace(code, char)
    return os.fsdecode(field)


def _parse_line(line: bytes) -> MountInfo:
    left, _, right = line.partition(b" - ")
    ids = left.split(b" ")
    kind = right.split(b" ")
    return MountInfo(
        mount_id=int(ids[0]),
        parent_id=int(ids[1]),
        device=ids[2].decode(),
        root=_unescape(ids[3]),
        mountpoint=_unescape(ids[4]),
        options=tuple(ids[5].decode().split(",")),
        propagation=tuple(field.decode() for field in ids[6:]),
        fstype=_unescape(kind[0]),
        source=_unescape(kind[1]),
        super_options=tuple(os.fsdecode(kind[2]).split(",")) if len(kind) > 2 else (),
    )


def parse(data: bytes) -> Iterator[MountInfo]:
    """Parses mountinfo's text, in the kernel's order (a later mount covers an earlier one)."""
    for line in data.splitlines():
        if line:
            yield _parse_line(line)


def _read(pid: int | str = "self") -> bytes:
    # The kernel keeps the list consistent only within one read(2), so use a large buffer.
    fd = os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 1 << 20):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def mounts(pid: int | str = "self") -> list[MountInfo]:
    """All mounts of a process's mount namespace."""
    return list(parse(_read(pid)))


def mounts_under(path: str, pid: int | str = "self") -> list[MountInfo]:
    """The mounts at ``path`` or below it, in the order of their creation. ``pid``: as for ``mounts``."""
    root = os.path.realpath(path)
    prefix = root.rstrip("/") + "/"
    # Search the bytes first: hosts with hundreds of containers have thousands of lines.
    needle = re.split(rb"[ \t\n\\]", os.fsencode(root), maxsplit=1)[0]
    lines = (line for line in _read(pid).splitlines() if needle in line)
    found = [_parse_line(line) for line in lines]
    return [m for m in found if m.mountpoint == root or m.mountpoint.startswith(prefix)]


class MountTable:
    """A snapshot of all mounts, for lookups of many paths; read at the first lookup."""

    def __init__(self) -> None:
        self._by_point: dict[str, MountInfo] = {}

    def mount_of(self, path: str) -> MountInfo | None:
        """The mount that contains ``path`` (links resolved): the longest mount point above it, the latest if
        stacked."""
        if not self._by_point:
            self._by_point = {info.mountpoint: info for info in parse(_read())}
        at = os.path.realpath(path)
        while at not in self._by_point:
            if at == "/":
                return None
            at = os.path.dirname(at)
        return self._by_point[at]


def mount_of(path: str) -> MountInfo | None:
    """:meth:`MountTable.mount_of` with the current mounts."""
    return MountTable().mount_of(path)


def is_mountpoint(path: str) -> bool:
    """Whether something is mounted at exactly ``path``; detects binds too, unlike os.path.ismount."""
    real = os.path.realpath(path)
    return any(m.mountpoint == real for m in mounts_under(real))


def mount(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    """mount(2), also with options longer than a page: overlays of many layers.

    The paths in long options are given relative to the directory above all layers. If they are still too long, the
    layers are added one at a time, which needs Linux 6.7 (``lowerdir+``, filesystems/overlayfs). The working directory
    belongs to the process, so a dedicated thread leaves the shared one (``CLONE_FS``) first.

    :raises OSError: of mount(2), with the target's path; EINVAL when the options are long and have no directories, or
        have more layers than overlayfs supports.
    """
    if len(os.fsencode(data)) < _PAGE:
        linux.mount(source, target, fstype, flags, data or None)
        return
    options = [option.partition("=") for option in data.split(",")]
    paths = [path for key, _, value in options if key in _PATHS for path in value.split(":")]
    if not paths:
        raise OSError(errno.EINVAL, f"mount options are longer than a page ({_PAGE} bytes)", target)
    layers = [path for key, _, value in options if key == "lowerdir" for path in value.split(":")]
    if len(layers) > MAX_LOWER_LAYERS:
        raise OSError(errno.EINVAL, f"{len(layers)} lower layers, overlayfs takes {MAX_LOWER_LAYERS}", target)
    common = os.path.commonpath(paths)
    target = os.path.abspath(target)
    short = [
        (key, sign, ":".join(os.path.relpath(path, common) for path in value.split(":")) if key in _PATHS else value)
        for key, sign, value in options
    ]
    failure: list[BaseException] = []

    def work() -> None:
        try:
            linux.unshare(_CLONE_FS)
            os.chdir(common)
            joined = ",".join(map("".join, short))
            if len(os.fsencode(joined)) < _PAGE:
                linux.mount(source, target, fstype, flags, joined)
            else:
                _mount_by_layer(source, target, fstype, flags, [(key, value) for key, _, value in short])
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="mount")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def _mount_by_layer(source: str, target: str, fstype: str, flags: int, options: Sequence[tuple[str, str]]) -> None:
    """Mounts an overlay with one ``lowerdir+`` per layer, so that no string grows with their number.

    :raises OSError: ENOSYS or EINVAL also where the kernel is too old for it.
    """
    attributes = sum(attribute for flag, attribute in _ATTRIBUTES.items() if flags & flag)
    context = tree = -1
    try:
        context = linux.fsopen(fstype)
        linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "source", source)
        for flag, name in _SUPERBLOCK.items():
            if flags & flag:
                linux.fsconfig(context, linux.FSCONFIG_SET_FLAG, name)
        for key, value in options:
            if key == "lowerdir":
                for path in value.split(":"):
                    linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "lowerdir+", path)
            elif value:
                linux.fsconfig(context, linux.FSCONFIG_SET_STRING, key, value)
            else:
                linux.fsconfig(context, linux.FSCONFIG_SET_FLAG, key)
        linux.fsconfig(context, linux.FSCONFIG_CMD_CREATE)
        tree = linux.fsmount(context, attributes)
        linux.move_mount(tree, "", linux.AT_FDCWD, target, linux.MOVE_MOUNT_F_EMPTY_PATH)
    except OSError as error:
        # fsconfig's error has no path: add it.
        raise OSError(error.errno, error.strerror, target) from error
    finally:
        for fd in (tree, context):
            if fd >= 0:
                os.close(fd)


def unmount_under(path: str) -> int:
    """Unmounts everything at ``path`` and below, newest first; returns the number of unmounted ones.

    Detaches (``MNT_DETACH``): a busy mount leaves the tree at once and ends with its last user. Mounts that vanish
    meanwhile are no error.
    """
    count = 0
    for info in reversed(mounts_under(path)):
        try:
            linux.umount(info.mountpoint, linux.MNT_DETACH | linux.UMOUNT_NOFOLLOW)
            count += 1
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
    return count
