"""The cgroups of a container and of the shims, in version 1, version 2 and mixed hierarchies."""

import contextlib
import os
import signal


def _mounts() -> dict[str, tuple[str, str]]:
    """Controller (``""`` for v2) → (mount point, path of the mount's root in the hierarchy)."""
    found: dict[str, tuple[str, str]] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            kind, _source, options = right.split(None, 2)
            if kind not in {"cgroup", "cgroup2"}:
                continue
            fields = left.split()
            place = (fields[4], fields[3])
            names = [""] if kind == "cgroup2" else options.strip().split(",")
            for name in names:
                found.setdefault(name, place)
    return found


def directories(pid: int) -> dict[str, str]:
    """The directories of the cgroups of ``pid``: v1 controller, ``name=…`` or ``""`` (v2) → directory.

    :raises OSError: the process has exited.
    """
    with open(f"/proc/{pid}/cgroup") as file:
        lines = file.read().splitlines()
    mounts = _mounts()
    found: dict[str, str] = {}
    for line in lines:
        _number, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller not in mounts:
                continue
            point, root = mounts[controller]
            if root != "/" and (path == root or path.startswith(root + "/")):
                path = path[len(root) :]
            found[controller] = point + path if path != "/" else point
    return found


def own_directories(pid: int) -> dict[str, str]:
    """``directories`` of ``pid``, without the cgroups that this process is in; empty if it has exited."""
    try:
        ours = directories(os.getpid())
        theirs = directories(pid)
    except OSError:
        return {}
    return {controller: directory for controller, directory in theirs.items() if directory != ours.get(controller)}


def usage(places: dict[str, str]) -> dict[str, object]:
    """What a container has used, from its ``directories``: ``cpu_ns``, and ``memory``, the most bytes at a time. What
    can't be read is absent."""
    found: dict[str, object] = {}
    for controller, file, key, factor in (
        ("cpuacct", "cpuacct.usage", "cpu_ns", 1),
        ("memory", "memory.max_usage_in_bytes", "memory", 1),
        ("", "cpu.stat", "cpu_ns", 1000),  # begins with usage_usec
        ("", "memory.peak", "memory", 1),
    ):
        if key in found or controller not in places:
            continue
        with contextlib.suppress(OSError, ValueError, IndexError), open(os.path.join(places[controller], file)) as data:
            found[key] = int(data.readline().split()[-1]) * factor
    return found


def pids(directory: str) -> list[int]:
    """All processes in a cgroup and its descendants."""
    found: list[int] = []
    for place, _directories, files in os.walk(directory):
        if "cgroup.procs" in files:
            try:
                with open(os.path.join(place, "cgroup.procs")) as file:
                    found.extend(int(line) for line in file)
            except OSError:
                continue
    return sorted(set(found) - {0})


def kill_and_remove(path: str) -> bool:
    """Kills the processes in a container's cgroups at ``path`` in all hierarchies, and removes the cgroups. Returns
    whether all are removed (a killed process stays in its cgroup until it has exited)."""
    removed = True
    for point in {point for point, _root in _mounts().values()}:
        for pid in pids(point + path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for place, _directories, _files in os.walk(point + path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(place)
        removed = removed and not os.path.isdir(point + path)
    return removed


def leave_service() -> None:
    """Moves this process out of a systemd unit's cgroup, so that stopping the unit doesn't kill every container.

    Called once, in the zygote: shims inherit the cgroup, and a migration per shim would cost milliseconds. Does nothing
    outside of a systemd unit.
    """
    try:
        own = directories(os.getpid())
        mounts = _mounts()
    except OSError:
        return
    for controller in ("", "name=systemd"):
        directory = own.get(controller)
        if directory is None or not any(part.endswith(".service") for part in directory.split("/")):
            continue
        place = os.path.join(mounts[controller][0], "wharf-shims")
        try:
            os.makedirs(place, exist_ok=True)
            with open(os.path.join(place, "cgroup.procs"), "w") as file:
                file.write(str(os.getpid()))
        except OSError:
            # A read-only or delegated tree: the unit's KillMode=process protects the shims then.
            continue
