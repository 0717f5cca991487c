"""Processes of the host: those of one engine, those that run a command, and what a process uses."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MARK = "WHARF_TEST_ENGINE"


@dataclass(frozen=True, slots=True)
class Process:
    """A live process that carries an engine's mark."""

    pid: int
    comm: str
    argv: tuple[str, ...]
    started: int  # clock ticks since boot; with the pid, it identifies a process

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if start_time(self.pid) == self.started:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def start_time(pid: int) -> int | None:
    """Return the start time in clock ticks, or ``None`` if there is no such process (or only a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def marked_processes(mark: str) -> list[Process]:
    """Return the live processes whose environment has the mark; children of an engine inherit it."""
    variable = f"{MARK}={mark}".encode()
    return _select(lambda folder: variable in (folder / "environ").read_bytes().split(b"\0"))


def daemon_pids(mark: str) -> list[int]:
    """Return the processes of an engine except shims."""
    return [process.pid for process in marked_processes(mark) if process.comm != "wharf-shim"]


def listeners(path: Path) -> list[Process]:
    """Return the processes that listen on this unix socket, or on one below this directory. The name outlives the
    socket's file."""
    sockets = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if fields[3] == "00010000" and len(fields) > 7:  # a listening socket
            name = fields[7]
            if name == str(path) or name.startswith(f"{path}/"):
                sockets.add(f"socket:[{fields[6]}]")
    if not sockets:
        return []
    return _select(
        lambda folder: not sockets.isdisjoint(os.readlink(folder / "fd" / name) for name in os.listdir(folder / "fd"))
    )


def beside(processes: Iterable[Process]) -> list[Process]:
    """Return the processes that share a network namespace with one of these, unless it is that of this process."""
    spaces = {_network(process.pid) for process in processes} - {_network(os.getpid()), 0}
    return _select(lambda folder: _network(int(folder.name)) in spaces) if spaces else []


def _network(pid: int) -> int:
    """Return the number of a process's network namespace; 0 if the process is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def pids_of(program: str, argument: str) -> list[int]:
    """Return the processes whose command ends with this program name and has this argument."""

    def runs(folder: Path) -> bool:
        argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        return argv[0].endswith(program) and argument in argv

    return [process.pid for process in _select(runs)]


def _select(condition: Callable[[Path], bool]) -> list[Process]:
    """Return the live processes whose directory in /proc meets the condition."""
    selected = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):  # it exited meanwhile
            pid, folder = int(entry), Path("/proc", entry)
            started = start_time(pid) if condition(folder) else None
            if started is not None:
                argv = tuple((folder / "cmdline").read_bytes().decode(errors="replace").split("\0"))
                selected.append(Process(pid, (folder / "comm").read_text().strip(), argv, started))
    return selected


def status_value(pid: int, name: str) -> int:
    """Return a number of /proc/PID/status, e.g. of ``VmRSS:`` in KiB; 0 if the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return 0


def resident_memory(pid: int) -> int:
    """Return the resident memory in bytes."""
    return status_value(pid, "VmRSS:") * 1024


def private_memory(pids: Iterable[int]) -> int:
    """Return the private memory of these processes in bytes, without mapped files, whose residency varies."""
    return sum(status_value(pid, name) for pid in pids for name in ("RssAnon:", "RssShmem:")) * 1024


def open_descriptors(pid: int) -> int:
    """Return the number of open descriptors; 0 if the process is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0
