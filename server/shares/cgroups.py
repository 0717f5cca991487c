"""A cgroup with the limits of a role, made by us in each hierarchy (the cgroupfs driver). All functions block.

Files of version 2: Documentation/admin-guide/cgroup-v2.rst of the kernel; of version 1: the files below cgroup-v1.
"""

import contextlib
import errno
import os
from dataclasses import dataclass

from engine.common.system import cgroups
from engine.common.system.cgroups import CgroupLayout
from server.access.policy import Role

#: Microseconds of a period of the CPU's bandwidth control, as runtimes set it.
PERIOD = 100_000
#: The weight of a cgroup without a limit.
WEIGHT = 100
_CONTROLLERS = ("cpu", "memory", "pids", "io")
# v1: cpu.shares of the default weight, and the largest blkio weight.
_SHARES = 1024
_MOST_BLKIO = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a user's cgroup; None: none. ``memory`` in bytes."""

    cpus: float | None = None
    cpu_weight: int | None = None
    memory: int | None = None
    pids: int | None = None
    io_weight: int | None = None

    @classmethod
    def of(cls, role: Role | None) -> "Limits":
        if role is None:
            return cls()
        return cls(role.cpus, role.cpu_weight, role.memory, role.pids, role.io_weight)

    @property
    def quota(self) -> int | None:
        """Microseconds of CPU time in a period."""
        return None if self.cpus is None else max(1000, round(self.cpus * PERIOD))


def make(layout: CgroupLayout, path: str) -> None:
    """Makes a cgroup in the hierarchies with limits; the OCI runtime makes it in the others.

    :raises OSError: it can't be made.
    """
    if layout.v2:
        assert layout.unified is not None
        place = layout.unified
        for part in path.strip("/").split("/"):
            _enable(place)
            place = os.path.join(place, part)
            with contextlib.suppress(FileExistsError):
                os.mkdir(place)
        return
    for name in ("cpu", "memory", "pids", "blkio"):
        if (point := layout.mountpoints.get(name)) is not None:
            os.makedirs(point + path, exist_ok=True)
    cgroups.prepare_cpuset(layout, path)


def exists(layout: CgroupLayout, path: str) -> bool:
    return any(map(os.path.isdir, _places(layout, path)))


def _places(layout: CgroupLayout, path: str) -> set[str]:
    return set(cgroups.container_directories(layout, path).values())


def _enable(place: str) -> None:
    """Enables the controllers of limits for the children of a v2 cgroup. ``limit`` reports those that can't be
    enabled."""
    for name in _CONTROLLERS:
        with contextlib.suppress(OSError), open(os.path.join(place, "cgroup.subtree_control"), "w") as file:
            file.write(f"+{name}")


def limit(layout: CgroupLayout, path: str, limits: Limits) -> list[str]:
    """Writes all limits of a cgroup, and removes those that are None. Returns the names of the role's fields that the
    host can't enforce, each with the reason."""
    return _limit_v2(f"{layout.unified}{path}", limits) if layout.v2 else _limit_v1(layout, path, limits)


def _limit_v2(place: str, limits: Limits) -> list[str]:
    quota = "max" if limits.quota is None else limits.quota
    bytes_, pids = ("max" if value is None else value for value in (limits.memory, limits.pids))
    missing = [
        _write(place, "cpu.max", f"{quota} {PERIOD}", limits.cpus, "cpus"),
        _write(place, "cpu.weight", limits.cpu_weight or WEIGHT, limits.cpu_weight, "cpu_weight"),
        _write(place, "memory.max", bytes_, limits.memory, "memory"),
        # As much swap as memory, as in a container with --memory.
        _write(place, "memory.swap.max", bytes_, None, "memory"),
        _write(place, "pids.max", pids, limits.pids, "pids"),
        # The file exists with an I/O scheduler or a cost model that has weights.
        _write(place, "io.weight", f"default {limits.io_weight or WEIGHT}", limits.io_weight, "io_weight"),
    ]
    return [reason for reason in missing if reason]


def _limit_v1(layout: CgroupLayout, path: str, limits: Limits) -> list[str]:
    cpu, memory, pids, blkio = (
        f"{layout.mountpoints[name]}{path}" if name in layout.mountpoints else ""
        for name in ("cpu", "memory", "pids", "blkio")
    )
    shares = max(2, (limits.cpu_weight or WEIGHT) * _SHARES // WEIGHT)
    weight = min(_MOST_BLKIO, limits.io_weight or WEIGHT)
    # The limit of memory and swap can't be below that of memory, so it is removed first.
    _write(memory, "memory.memsw.limit_in_bytes", -1, None, "memory")
    missing = [
        _write(cpu, "cpu.cfs_period_us", PERIOD, limits.cpus, "cpus"),
        _write(cpu, "cpu.cfs_quota_us", -1 if limits.quota is None else limits.quota, limits.cpus, "cpus"),
        _write(cpu, "cpu.shares", shares, limits.cpu_weight, "cpu_weight"),
        _write(memory, "memory.limit_in_bytes", limits.memory or -1, limits.memory, "memory"),
        _write(memory, "memory.memsw.limit_in_bytes", 2 * limits.memory if limits.memory else -1, None, "memory"),
        _write(pids, "pids.max", limits.pids or "max", limits.pids, "pids"),
        _write(blkio, "blkio.bfq.weight", weight, limits.io_weight, "io_weight"),
    ]
    return [reason for reason in missing if reason]


def _write(place: str, name: str, value: object, wanted: object, field: str) -> str:
    """Writes a file of a cgroup. Returns why a limit that is wanted can't be set; "" else."""
    try:
        if not place:
            raise FileNotFoundError(errno.ENOENT, "the controller is not mounted")
        # Not created: in a cgroup's file system, a missing file is a missing feature (EACCES).
        fd = os.open(os.path.join(place, name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        return "" if wanted is None else f"{field} ({name}: {(error.strerror or str(error)).lower()})"
    return ""


def remove(layout: CgroupLayout, path: str) -> bool:
    """Removes a cgroup and the empty ones of jobs below it. Returns False if a container is still in it."""
    removed = True
    for place in _places(layout, path):
        removed = _remove(place) and removed
    return removed


def _remove(place: str) -> bool:
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(place)):
            if entry.name.startswith("@") and entry.is_dir(follow_symlinks=False):
                _remove(entry.path)
    try:
        os.rmdir(place)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def children(layout: CgroupLayout, path: str) -> set[str]:
    """The names of the cgroups directly below one, in any hierarchy."""
    found: set[str] = set()
    for place in _places(layout, path):
        with contextlib.suppress(OSError):
            found.update(entry.name for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False))
    return found


def has_scope(layout: CgroupLayout, path: str) -> bool:
    """Whether a scope of systemd, a container, is below a slice."""
    return any(
        name.endswith(".scope") for place in _places(layout, path) for _, names, _ in os.walk(place) for name in names
    )
