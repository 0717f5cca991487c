"""Finds what an engine leaves behind on a host: the tests' leak check.

Everything here is read-only except :func:`remove`, which removes the leftovers of one test engine. Resources are
attributed by name only (roots below /tmp/wharf-test-*, bridges, a mark in the environment of processes, the cgroup
parent), so a Docker or another test run on the same machine is neither reported nor changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compat_tests.support.patience import FACTOR

PREFIX = "wharf-test-"
MARK = "WHARF_TEST_ENGINE"
CGROUPS = Path("/sys/fs/cgroup")


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


def processes(mark: str) -> list[Process]:
    """Return the live processes whose environment has the mark; children of an engine inherit it."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            pid, folder = int(entry), Path("/proc", entry)
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            started = start_time(pid)
            if started is not None:
                comm = (folder / "comm").read_text().strip()
                argv = tuple((folder / "cmdline").read_bytes().decode(errors="replace").split("\0"))
                found.append(Process(pid, comm, argv, started))
        except OSError:
            continue  # it exited meanwhile
    return found


def listeners(path: Path) -> list[Process]:
    """Return the processes that listen on this unix socket, or on one below this directory: finds processes without an
    engine's mark, such as the proxy, which has an environment of its own. The name outlives the socket's file."""
    wanted = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if fields[3] == "00010000" and len(fields) > 7:  # a listening socket
            name = fields[7]
            if name == str(path) or name.startswith(f"{path}/"):
                wanted.add(f"socket:[{fields[6]}]")
    found = []
    for entry in os.listdir("/proc") if wanted else ():
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            pid, folder = int(entry), Path("/proc", entry)
            held = {os.readlink(folder / "fd" / name) for name in os.listdir(folder / "fd")}
            started = start_time(pid)
            if held & wanted and started is not None:
                argv = tuple((folder / "cmdline").read_bytes().decode(errors="replace").split("\0"))
                found.append(Process(pid, (folder / "comm").read_text().strip(), argv, started))
    return found


def mounts_under(root: Path) -> list[str]:
    """Return mount points at or below a directory, deepest first."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == str(root) or point.startswith(f"{root}/"):
            points.append(point)
    return sorted(points, reverse=True)


def ip_json(*args: str) -> list[dict[str, object]]:
    """Return iproute2's output, parsed from JSON."""
    done = subprocess.run(["ip", "-json", *args], capture_output=True, text=True, timeout=60, check=True)
    answer: list[dict[str, object]] = json.loads(done.stdout or "[]")
    return answer


def links() -> dict[str, str]:
    """Return the interfaces of this network namespace with their bridges."""
    return {str(link["ifname"]): str(link.get("master", "")) for link in ip_json("link", "show")}


def nft(*args: str) -> str:
    """Return nft's output; empty if it fails."""
    return subprocess.run(["nft", *args], capture_output=True, text=True, timeout=60, check=False).stdout


def rules() -> str:
    """Return the whole nftables ruleset, including iptables-nft's."""
    return nft("-n", "list", "ruleset")


def delete_rules(family: str, table: str, word: str) -> None:
    """Delete the rules that name a bridge from a table of another owner."""
    chain = ""
    for line in nft("-n", "-a", "list", "table", family, table).splitlines():
        words = line.split()
        if words[:1] == ["chain"]:
            chain = words[1]
        elif chain and word in line and "# handle " in line:
            nft("delete", "rule", family, table, chain, "handle", line.rpartition("# handle ")[2].strip())


def rules_naming(word: str) -> list[str]:
    """Return the lines of the ruleset that name a bridge."""
    return [line.strip() for line in rules().splitlines() if word in line]


def cgroups_named(name: str) -> list[Path]:
    """Return the cgroup directories of an engine's cgroup parent, in every hierarchy, children first."""
    roots = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())] if CGROUPS.is_dir() else []
    found: list[Path] = []
    for root in roots:
        for top in (root / name, root / f"{name}.slice"):
            if top.is_dir():
                found += [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]
    return found


def until(true: Callable[[], bool], *, seconds: float = 60) -> bool:
    """Poll until the condition is true or the time is up; return the last result."""
    deadline = time.monotonic() + seconds * FACTOR
    pause = 0.01
    while not true():
        if time.monotonic() > deadline:
            return false_or(true)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
    return True


@contextlib.contextmanager
def sampled(look: Callable[[], float], *, pause: float) -> Iterator[list[float]]:
    """Poll a value in a thread during the block; yields the list of samples."""
    samples, over = [look()], threading.Event()

    def watch() -> None:
        while not over.wait(pause):
            samples.append(look())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield samples
    finally:
        over.set()
        watcher.join()


def false_or(true: Callable[[], bool]) -> bool:
    """Poll once more after the deadline: a loaded machine may have slept through it."""
    return bool(true())


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where the traces of one engine would be."""

    mark: str
    root: Path
    bridge: str
    cgroup: str

    def processes(self) -> list[Process]:
        """Return the processes with the mark, and those that listen on a socket below the root."""
        return list(dict.fromkeys([*processes(self.mark), *listeners(self.root)]))

    def left(self) -> list[str]:
        """Return one line for each leftover."""
        lines = [f"process {p.pid} {p.comm} {' '.join(p.argv)[:120]}" for p in self.processes()]
        lines += [f"mount {point}" for point in mounts_under(self.root)]
        lines += [f"link {name}" for name, master in links().items() if self.bridge in (name, master)]
        lines += [f"rule {line}" for line in rules_naming(self.bridge)]
        lines += [f"cgroup {path}" for path in cgroups_named(self.cgroup)]
        return lines

    def remove(self) -> None:
        """Remove all leftovers by force. Changes only names of this footprint."""
        self.end_processes()
        for path in cgroups_named(self.cgroup):
            self._end_members(path)
        until(lambda: self._cgroups_gone(), seconds=30)
        for point in mounts_under(self.root):
            subprocess.run(["umount", "-l", point], capture_output=True, timeout=60, check=False)
        for name, master in links().items():
            if self.bridge in (name, master):
                subprocess.run(["ip", "link", "del", name], capture_output=True, timeout=60, check=False)
        for family, table in tables_naming(self.bridge):
            if self.bridge in table:
                nft("delete", "table", family, table)
            else:
                delete_rules(family, table, self.bridge)

    def end_processes(self) -> None:
        """Send SIGKILL repeatedly, as killed parents may leave children, until no process is left."""

        def gone() -> bool:
            found = self.processes()
            for process in found:
                process.signal(signal.SIGKILL)
            return not found

        until(gone, seconds=30)

    def _end_members(self, cgroup: Path) -> None:
        with contextlib.suppress(OSError):
            for line in (cgroup / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line), signal.SIGKILL)

    def _cgroups_gone(self) -> bool:
        left = cgroups_named(self.cgroup)
        for path in left:
            with contextlib.suppress(OSError):
                frozen = path / "freezer.state"
                if frozen.exists():
                    frozen.write_text("THAWED")
            self._end_members(path)
            with contextlib.suppress(OSError):
                path.rmdir()
        return not cgroups_named(self.cgroup)


def tables_naming(word: str) -> Iterator[tuple[str, str]]:
    """Yield family and name of the nft tables whose name or content names a bridge."""
    for line in nft("list", "tables").splitlines():
        _, family, table = line.split(maxsplit=2)
        if word in nft("-n", "list", "table", family, table):
            yield family, table
