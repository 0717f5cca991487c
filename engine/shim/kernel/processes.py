"""Processes: this one's attributes, the identity of others, and the killing of a runtime with its descendants."""

import contextlib
import os
import signal
from collections.abc import Collection, Iterator, Sequence

from engine.shim.kernel import syscalls

_PF_EXITING = 4  # include/linux/sched.h


def become_subreaper() -> None:
    """Makes orphaned descendants children of this process: so the container's processes become its children."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)


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


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of ``/proc/<pid>/stat`` from the third one, the state, on.

    :raises ProcessLookupError: there is no such process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096)
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    # The command's name may contain blanks and parentheses: count fields from the last parenthesis.
    return text[text.rindex(b")") + 2 :].split()


def is_exiting(pid: int) -> bool:
    """Whether the process has exited or is exiting, which is visible before the kernel closes its descriptors."""
    try:
        return bool(int(_stat_fields(pid)[6]) & _PF_EXITING)
    except ProcessLookupError:
        return True


def start_time(pid: int) -> int:
    """The start time of ``pid`` in clock ticks since boot: with the pid it identifies the process uniquely.

    :raises ProcessLookupError: there is no such process.
    """
    return int(_stat_fields(pid)[19])


def alive(pid: int, started: int) -> bool:
    """Whether the process with this pid and start time still exists (a zombie doesn't count)."""
    try:
        fields = _stat_fields(pid)
    except ProcessLookupError:
        return False
    return int(fields[19]) == started and fields[0] not in {b"Z", b"X"}


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
