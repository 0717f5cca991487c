"""System calls that Python lacks, and the cgroups of a container."""

import contextlib
import ctypes
import fcntl
import os
import signal
import stat
from collections.abc import Collection, Iterator, Sequence

from engine.shim import syscalls

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TIOCGPTPEER = 0x5441  # asm-generic/ioctls.h
_NULL_DEVICE = os.makedev(1, 3)  # Documentation/admin-guide/devices.txt
_PF_EXITING = 4  # include/linux/sched.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_libc.malloc_trim.argtypes = [ctypes.c_size_t]

V1_ROOT = "/sys/fs/cgroup"


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f"prctl {option}")


def sealed_null() -> int:
    """A descriptor of ``/dev/null`` on a read-only mount of its own: it reads and writes as usual, but its user can't
    change the owner and mode of the host's device. (crun makes an exec's user the owner of its streams.) Linux before
    5.12 and hosts that allow no mounts give the plain device."""
    try:
        tree = syscalls.open_tree(syscalls.AT_FDCWD, os.devnull, syscalls.OPEN_TREE_CLONE)
        try:
            syscalls.set_mount_attributes(tree, syscalls.MOUNT_ATTR_RDONLY)
            return os.open(f"/proc/self/fd/{tree}", os.O_RDWR | os.O_CLOEXEC)
        finally:
            os.close(tree)
    except OSError:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def return_null(pid: int) -> None:
    """Makes root the owner of the ``/dev/null`` of a container that is created but not started.

    A container without input has its own ``/dev/null`` as stdin, and crun makes the user the owner of its streams: that
    user could then change the device's mode for the whole container, and for the host if ``/dev`` is the host's. runc
    excludes the device.
    """
    with contextlib.suppress(OSError):
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
            null = syscalls.openat2(root, "dev/null", os.O_PATH, resolve)
        finally:
            os.close(root)
        try:
            found = os.fstat(null)
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL_DEVICE and (found.st_uid or found.st_gid):
                os.chown(f"/proc/self/fd/{null}", 0, 0)
        finally:
            os.close(null)


def open_terminal(master: int) -> int:
    """Opens the slave of a pty, which may be in a mount namespace that this process can't see (``ioctl_tty(2)``,
    TIOCGPTPEER).

    :raises OSError: Linux before 4.13.
    """
    return fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def become_subreaper() -> None:
    """Makes orphaned descendants children of this process: so the container's processes become its children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """Sets the name that ``ps`` shows (15 bytes)."""
    with open("/proc/self/comm", "wb", buffering=0) as file:
        file.write(name.encode()[:15])


@contextlib.contextmanager
def oom_score_adj(value: object) -> Iterator[None]:
    """Children started inside inherit ``value`` (None: this process's). Restoring the previous value is always allowed;
    a lower value needs CAP_SYS_RESOURCE and is ignored without it."""
    if not isinstance(value, int):
        yield
        return
    with open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
        before = file.read(16)
        with contextlib.suppress(PermissionError):
            file.write(b"%d" % value)
        try:
            yield
        finally:
            file.write(before)


def trim_memory() -> None:
    """Returns freed heap to the kernel (after a burst of output)."""
    _libc.malloc_trim(0)


def is_exiting(pid: int) -> bool:
    """Whether the process has exited or is exiting, which is visible before the kernel closes its descriptors."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read(4096)
    except (FileNotFoundError, ProcessLookupError):
        return True
    return bool(int(stat[stat.rindex(b")") + 2 :].split()[6]) & _PF_EXITING)


def start_time(pid: int) -> int:
    """The start time of ``pid`` in clock ticks since boot: with the pid it identifies the process uniquely.

    :raises ProcessLookupError: there is no such process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read(4096)
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    # The command's name may contain blanks and parentheses: count fields from the last parenthesis.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def alive(pid: int, started: int) -> bool:
    """Whether the process with this pid and start time still exists (a zombie doesn't count)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096)
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = fields[fields.rindex(b")") + 2 :]
    values = fields.split()
    return int(values[19]) == started and values[0] not in {b"Z", b"X"}


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


def cgroup_directories(pid: int) -> dict[str, str]:
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


def own_cgroups(pid: int) -> dict[str, str]:
    """``cgroup_directories`` of ``pid``, without the cgroups that this process is in; empty if it has exited."""
    try:
        ours = cgroup_directories(os.getpid())
        theirs = cgroup_directories(pid)
    except OSError:
        return {}
    return {controller: directory for controller, directory in theirs.items() if directory != ours.get(controller)}


def cgroup_pids(directory: str) -> list[int]:
    """All processes in a cgroup and its descendants."""
    pids: list[int] = []
    for place, _directories, files in os.walk(directory):
        if "cgroup.procs" in files:
            try:
                with open(os.path.join(place, "cgroup.procs")) as file:
                    pids.extend(int(line) for line in file)
            except OSError:
                continue
    return sorted(set(pids) - {0})


def kill_runtime(pid: int, argv: Sequence[str]) -> None:
    """Kills a child that runs ``argv``, its descendants, and orphaned forks of it (crun's process in the container has
    this process as its parent), which have the same command line. Stops each process first, so that none forks
    meanwhile."""
    line = b"".join(os.fsencode(word) + b"\0" for word in argv)
    found, fresh = {pid}, {pid}
    while fresh:
        for one in fresh:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGSTOP)
        fresh = {child for child in _processes_of(found, line) if child not in found}
        found |= fresh
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def _processes_of(parents: Collection[int], line: bytes) -> Iterator[int]:
    """The children of these processes, and all children with this command line."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if parent in parents or file.read(len(line) + 1) == line:
                        yield int(name)


def kill_and_remove_cgroups(path: str) -> bool:
    """Kills the processes in a container's cgroups at ``path`` in all hierarchies, and removes the cgroups. Returns
    whether all are removed (a killed process stays in its cgroup until it has exited)."""
    gone = True
    for point in {point for point, _root in _mounts().values()}:
        for pid in cgroup_pids(point + path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for place, _directories, _files in os.walk(point + path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(place)
        gone = gone and not os.path.isdir(point + path)
    return gone


def leave_service_cgroup() -> None:
    """Moves this process out of a systemd unit's cgroup, so that stopping the unit doesn't kill every container.

    Called once, in the zygote: shims inherit the cgroup, and a migration per shim would cost milliseconds. Does nothing
    outside of a systemd unit.
    """
    try:
        directories = cgroup_directories(os.getpid())
        mounts = _mounts()
    except OSError:
        return
    for controller in ("", "name=systemd"):
        directory = directories.get(controller)
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
