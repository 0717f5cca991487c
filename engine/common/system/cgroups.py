"""The host's control groups: v1, hybrid or v2, the groups of a process, and the removal of a tree."""

import contextlib
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.common.system import mounts

#: Controllers that a v1 hierarchy may have (``name=`` hierarchies have none).
_V1_CONTROLLERS = frozenset(
    [
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "net_cls",
        "net_prio",
        "blkio",
        "perf_event",
        "hugetlb",
        "pids",
        "rdma",
    ]
)


@dataclass(frozen=True, slots=True)
class CgroupLayout:
    """The mount points of control groups.

    ``v2``: one unified tree at ``unified``. ``v1``: a hierarchy per controller. ``hybrid``: v1 hierarchies and a
    unified tree (which may have controllers that no v1 hierarchy uses). Docker calls hybrid "1". Keys of
    ``mountpoints`` and ``roots`` are v1 controllers and names like ``name=systemd``; in ``roots`` also ``""`` for the
    unified tree.
    """

    mode: str  # "v1" | "hybrid" | "v2" | "none"
    controllers: frozenset[str]
    mountpoints: Mapping[str, str] = field(default_factory=dict)
    roots: Mapping[str, str] = field(default_factory=dict)
    unified: str | None = None

    @property
    def v2(self) -> bool:
        """Whether the unified tree sets limits."""
        return self.mode == "v2"


def host_cgroups(mountinfo: bytes | None = None) -> CgroupLayout:
    """Reads the layout. ``mountinfo``: replaces the text of ``/proc/self/mountinfo`` (tests)."""
    points: dict[str, str] = {}
    roots: dict[str, str] = {}
    unified: str | None = None
    infos = mounts.mounts() if mountinfo is None else mounts.parse(mountinfo)
    for info in infos:
        if info.fstype == "cgroup2" and unified is None:
            unified, roots[""] = info.mountpoint, info.root
        elif info.fstype == "cgroup":
            names = [o for o in info.super_options if o in _V1_CONTROLLERS or o.startswith("name=")]
            for name in names:
                points.setdefault(name, info.mountpoint)
                roots.setdefault(name, info.root)
    v1 = frozenset(points) & _V1_CONTROLLERS
    if v1:
        return CgroupLayout("v1" if unified is None else "hybrid", v1, points, roots, unified)
    if unified is not None:
        return CgroupLayout("v2", _read_controllers(unified), points, roots, unified)
    return CgroupLayout("none", frozenset())


def _read_controllers(directory: str) -> frozenset[str]:
    try:
        with open(os.path.join(directory, "cgroup.controllers")) as file:
            return frozenset(file.read().split())
    except OSError:
        return frozenset()


def parse_proc_cgroup(text: str) -> dict[str, str]:
    """Parses ``/proc/<pid>/cgroup``: path by controller (or ``name=x``; ``""``: the unified tree)."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name] = path
    return found


def pid_cgroups(pid: int | str) -> dict[str, str]:
    """The groups of a process. FileNotFoundError or ProcessLookupError if it has exited."""
    with open(f"/proc/{pid}/cgroup") as file:
        return parse_proc_cgroup(file.read())


def directories(layout: CgroupLayout, paths: Mapping[str, str]) -> dict[str, str]:
    """Turns the result of ``pid_cgroups`` into directories, for the hierarchies that are mounted here.

    Keys: controllers, ``name=…``, and ``""`` for the unified tree.
    """
    found: dict[str, str] = {}
    for name, path in paths.items():
        point = layout.unified if name == "" else layout.mountpoints.get(name)
        if point is None:
            continue
        root = layout.roots.get(name, "/")
        # Inside a container the mount is only a subtree of the hierarchy: its root is the subtree's path.
        if root != "/" and (path == root or path.startswith(root + "/")):
            path = path[len(root) :]
        # Normalize the path first: ".." must not lead out of the hierarchy.
        found[name] = os.path.normpath(point + os.path.normpath("/" + path.lstrip("/")))
    return found


def container_directories(layout: CgroupLayout, cgroup: str) -> dict[str, str]:
    """The directories of a container whose path in every hierarchy is ``cgroup`` (``/docker/<id>``)."""
    names = [*layout.mountpoints, *([""] if layout.unified else [])]
    return directories(layout, dict.fromkeys(names, cgroup))


def prepare_cpuset(layout: CgroupLayout, cgroup: str) -> None:
    """Creates ``cgroup`` in the v1 cpuset hierarchy, if there is one, with the CPUs and memory nodes of its parent.

    A new group there has none, and no process can enter it (ENOSPC). Runtimes fill the groups that they create, but a
    second runtime that starts meanwhile finds the first one's groups still empty. Blocks.

    :raises OSError: it can't be created.
    """
    above = layout.mountpoints.get("cpuset")
    if above is None:
        return
    for part in cgroup.strip("/").split("/"):
        directory = os.path.join(above, part)
        os.makedirs(directory, exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not _text(directory, name):
                with open(os.path.join(directory, name), "w") as file:
                    file.write(_text(above, name))
        above = directory


def delegate_controllers(layout: CgroupLayout) -> None:
    """Enables all controllers for child groups, if the unified tree here is a subtree, as in a container.

    The kernel enables none for the children of a group that has processes of its own, unless it is the root group. So
    these processes are moved into a child, ``init``, first. Blocks.

    :raises OSError: they can't be moved.
    """
    root = layout.unified
    if not layout.v2 or root is None or not os.path.exists(os.path.join(root, "cgroup.type")):
        return
    below = os.path.join(root, "init")
    for _ in range(10):  # processes may fork meanwhile
        found = [pid for pid in processes(root) if pid]  # 0: a process of another PID namespace
        if not found:
            break
        os.makedirs(below, exist_ok=True)
        for pid in found:
            with contextlib.suppress(ProcessLookupError), open(os.path.join(below, "cgroup.procs"), "w") as file:
                file.write(str(pid))
    for name in sorted(layout.controllers):
        with contextlib.suppress(OSError), open(os.path.join(root, "cgroup.subtree_control"), "w") as file:
            file.write(f"+{name}")


def prepare_move(layout: CgroupLayout) -> None:
    """Makes writes to ``cgroup.procs`` that follow within about 10 ms take 0.1 ms. Blocks. Does nothing on an error.

    Such a write waits for an RCU grace period, which takes 6 to 16 ms, unless another write has just waited for one
    (``cgroup_threadgroup_rwsem`` in kernel/cgroup/cgroup.c, ``rcu_sync_enter``). So a caller that knows that a runtime
    is about to move a process does this beside other work. It moves the calling process into the group that it is in.
    """
    with contextlib.suppress(OSError):
        own = directories(layout, pid_cgroups("self"))
        if own:
            with open(os.path.join(next(iter(own.values())), "cgroup.procs"), "w") as file:
                file.write("0")


def _text(directory: str, name: str) -> str:
    with open(os.path.join(directory, name)) as file:
        return file.read().strip()


def scope_path(name: str) -> str:
    """Converts a systemd scope as runtimes get it, ``a-b.slice:docker:id``, to ``/a.slice/a-b.slice/docker-id.scope``.

    Any other text is returned unchanged.
    """
    parent, colon, unit = name.partition(":")
    if not colon or not parent.endswith(".slice"):
        return name
    parts = parent.removesuffix(".slice").split("-")
    slices = ["-".join(parts[: count + 1]) + ".slice" for count in range(len(parts))] if parent != "-.slice" else []
    return "/" + "/".join([*slices, unit.replace(":", "-", 1) + ".scope"])


def processes(directory: str) -> list[int]:
    """The pids directly in a cgroup. FileNotFoundError if it doesn't exist."""
    with open(os.path.join(directory, "cgroup.procs")) as file:
        return [int(line) for line in file.read().split()]


def remove_tree(directory: str) -> bool:
    """Removes a cgroup and its descendants, deepest first. Returns False if processes are still in it (EBUSY)."""
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return True
    below = [remove_tree(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    if not all(below):
        return False
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True
