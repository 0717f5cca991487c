"""``mounts`` of the spec, in dockerd's order."""

import posixpath
from collections.abc import Callable, Sequence

from engine.common.errors import internal, invalid
from engine.common.system import mounts as system_mounts
from engine.common.system.mounts import MountInfo
from server.containers.spec.host import HostFacts
from server.containers.spec.input import BindMount, SpecInput, TmpfsMount

Json = dict[str, object]

INIT_PATH = "/sbin/docker-init"
_SHARED = ("shared", "rshared")
_SLAVE = ("slave", "rslave")
#: The propagation modes that have an effect on a new tmpfs: as a slave without a master it is private.
_TMPFS_PROPAGATION = frozenset((*_SHARED, "unbindable", "runbindable"))
#: Mountpoints that stay writable with a read-only root: file systems of the runtime in memory.
_ALWAYS_WRITABLE = frozenset(("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"))

#: Options of tmpfs(5) and mount(8) by kind; of several options of one kind the last one is used.
_FLAG_KINDS = {
    **dict.fromkeys(("ro", "rw"), "write"),
    **dict.fromkeys(("suid", "nosuid"), "suid"),
    **dict.fromkeys(("dev", "nodev"), "dev"),
    **dict.fromkeys(("exec", "noexec"), "exec"),
    **dict.fromkeys(("sync", "async"), "sync"),
    **dict.fromkeys(("dirsync",), "dirsync"),
    **dict.fromkeys(("remount",), "remount"),
    **dict.fromkeys(("mand", "nomand"), "mand"),
    **dict.fromkeys(("atime", "noatime"), "atime"),
    **dict.fromkeys(("diratime", "nodiratime"), "diratime"),
    **dict.fromkeys(("relatime", "norelatime"), "relatime"),
    **dict.fromkeys(("strictatime", "nostrictatime"), "strictatime"),
    **dict.fromkeys(("bind", "rbind"), "bind"),
    **dict.fromkeys(("unbindable", "runbindable", "private", "rprivate", "shared", "rshared"), "propagation"),
    **dict.fromkeys(("slave", "rslave"), "propagation"),
}
#: The files in /proc on which runc allows mounts (for lxcfs). crun allows all.
_PROC_FILES = frozenset(
    (
        *("/proc/cpuinfo", "/proc/diskstats", "/proc/loadavg", "/proc/meminfo", "/proc/net/dev", "/proc/slabinfo"),
        *("/proc/stat", "/proc/swaps", "/proc/uptime"),
        *("/proc/sys/crypto/fips_enabled", "/proc/sys/kernel/ns_last_pid"),
    )
)
_TMPFS_KEYS = frozenset(("mode", "size", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"))


def merge_tmpfs_options(options: Sequence[str]) -> list[str]:
    """The last option of each kind, in order.

    :raises WharfError: INTERNAL: an unknown option.
    """
    merged: dict[str, str] = {}
    for option in options:
        if option == "defaults":
            continue
        key, found, value = option.partition("=")
        kind = _FLAG_KINDS.get(option)
        if kind is None:
            if not found or key not in _TMPFS_KEYS or not value:
                raise internal(f'invalid tmpfs option "{key}"')
            kind = key + "="
        merged.pop(kind, None)
        merged[kind] = option
    return list(merged.values())


def check_tmpfs_options(options: str) -> None:
    """:raises WharfError: INTERNAL: an unknown option in a list such as ``size=1m,exec``."""
    merge_tmpfs_options([word for word in options.split(",") if word])


def _mount(destination: str, kind: str, source: str, *options: str) -> Json:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def defaults(inp: SpecInput) -> list[Json]:
    """``/proc``, ``/dev`` and ``/sys`` as Docker mounts them."""
    quiet = ("nosuid", "noexec", "nodev")
    sysfs_ro = () if inp.host.privileged else ("ro",)
    cgroup_ro = () if inp.host.privileged or inp.writable_cgroups else ("ro",)
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    return [
        _mount("/proc", "proc", "proc", *quiet),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *pts),
        _mount("/sys", "sysfs", "sysfs", *quiet, *sysfs_ro),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", *cgroup_ro, *quiet),
        _mount("/dev/mqueue", "mqueue", "mqueue", *quiet),
        _mount("/dev/shm", "tmpfs", "shm", *quiet, "mode=1777", f"size={inp.host.shm_size}"),
    ]


def _propagation_of(source: str, find: Callable[[str], MountInfo | None]) -> tuple[str, tuple[str, ...]]:
    """The mountpoint of the mount with ``source``, and the names of its optional fields (``shared``, ``master``)."""
    info = find(source)
    if info is None:
        raise internal(f"Could not find source mount of {source}")
    return info.mountpoint, tuple(field.split(":")[0] for field in info.propagation)


def _check_propagation(mount: BindMount, find: Callable[[str], MountInfo | None]) -> bool:
    """Whether the source's mount has the bind's propagation. False only if the propagation is implied.

    :raises WharfError: INTERNAL, with dockerd's sentence: it doesn't have a requested propagation.
    """
    mountpoint, fields = _propagation_of(mount.source, find)
    if mount.propagation in _SHARED and "shared" not in fields:
        raise internal(f"path {mount.source} is mounted on {mountpoint} but it is not a shared mount")
    if mount.propagation in _SLAVE and "shared" not in fields and "master" not in fields:
        if mount.implied:
            return False
        raise internal(f"path {mount.source} is mounted on {mountpoint} but it is not a shared or slave mount")
    return True


def _bind(mount: BindMount, host: HostFacts) -> Json:
    options = ["rbind" if mount.recursive else "bind"]
    if not mount.writable:
        recursive = not mount.read_only_non_recursive
        if mount.read_only_non_recursive and mount.read_only_force_recursive:
            raise invalid("mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive")
        if recursive and not host.recursive_readonly:
            if mount.read_only_force_recursive:
                raise invalid("recursively read-only mounts are not supported by this kernel or runtime")
            recursive = False
        options.append("rro" if recursive else "ro")
    if mount.propagation:
        # A bind without submounts has no recursive propagation: crun would treat "rprivate" as "rbind".
        options.append(mount.propagation if mount.recursive else mount.propagation.removeprefix("r"))
    return _mount(mount.destination, "bind", mount.source, *options)


def _tmpfs(mount: TmpfsMount) -> Json:
    words = [word for word in mount.options.split(",") if word]
    options = merge_tmpfs_options(["noexec", "nosuid", "nodev", "rprivate", *words])
    return _mount(mount.destination, "tmpfs", "tmpfs", *options)


def _check_proc(mount: BindMount | TmpfsMount, find: Callable[[str], MountInfo | None]) -> None:
    path = posixpath.normpath(mount.destination)
    if path == "/proc":
        found = find(mount.source) if isinstance(mount, BindMount) else None
        if found is None or found.fstype != "proc":
            raise internal('"/proc" cannot be mounted because it is not of type proc')
    elif path.startswith("/proc/") and path not in _PROC_FILES:
        raise internal(f'"{path}" cannot be mounted because it is inside /proc')


def _depth(mount: BindMount | TmpfsMount) -> int:
    return posixpath.normpath(mount.destination).count("/")


def plan(
    inp: SpecInput, host: HostFacts, *, find: Callable[[str], MountInfo | None] | None = None
) -> tuple[list[Json], str]:
    """All mounts, and ``linux.rootfsPropagation`` ("": the runtime's default).

    ``find`` returns the mount of a path; it is called only for shared and slave binds and for ``/proc``.

    :raises WharfError: INTERNAL: the source's mount doesn't have the propagation, or a mount is inside ``/proc``.
    """
    # MountTable reads the table once for all mounts.
    find = find or system_mounts.MountTable().mount_of
    requested: list[BindMount | TmpfsMount] = []
    shm = inp.shm_path or ("/dev/shm" if inp.namespaces.ipc == "host" else "")
    destinations = {posixpath.normpath(mount.destination) for mount in inp.mounts}
    if shm and "/dev/shm" not in destinations:
        requested.append(BindMount(shm, "/dev/shm", propagation="rprivate"))
    requested += inp.mounts
    destinations = {posixpath.normpath(mount.destination) for mount in requested}
    result = [
        mount
        for mount in defaults(inp)
        if mount["destination"] not in destinations
        and not ("/dev" in destinations and str(mount["destination"]).startswith("/dev/"))
    ]
    if inp.init and inp.namespaces.pid == "private":
        result.append(_mount(INIT_PATH, "bind", host.init_path, "bind", "ro"))
    if inp.host.readonly_rootfs:
        for mount in result:
            options = mount["options"]
            assert isinstance(options, list)
            if mount["destination"] not in _ALWAYS_WRITABLE and not {"ro", "rro"} & set(options):
                options.append("ro")
    root = ""
    # Parents before the mounts below them; sorted() keeps the order of mounts of the same depth.
    for entry in sorted(requested, key=_depth):
        _check_proc(entry, find)
        if isinstance(entry, TmpfsMount):
            tmpfs = _tmpfs(entry)
            result.append(tmpfs)
            # crun applies the root's propagation after all mounts: its default, rprivate, would change the tmpfs's.
            if not root and _TMPFS_PROPAGATION.intersection(tmpfs["options"]):  # type: ignore[arg-type]
                root = "private"
            continue
        if entry.propagation in _SHARED + _SLAVE and _check_propagation(entry, find):
            if entry.propagation in _SHARED:
                root = "shared"
            elif root != "shared":
                root = "rslave"
        result.append(_bind(entry, host))
    if root == "private":
        # As the root isn't rprivate, the runtime's bind mounts of the host's cgroups would propagate to the host.
        for mount in result:
            options = mount["options"]
            assert isinstance(options, list)
            if not any(_FLAG_KINDS.get(option) == "propagation" for option in options):
                options.append("private")
    return result, root
