"""Finds what an engine leaves behind on a host: the tests' leak check.

Everything here is read-only except :meth:`Footprint.remove`, which removes the leftovers of one engine. Resources are
attributed by name only (roots below /tmp/wharf-test-*, bridges, a mark in the environment of processes, the cgroup
parent), so a Docker or another test run on the same machine is neither reported nor changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compat_tests.support.host.processes import Process, beside, listeners, marked_processes
from compat_tests.support.polling import until

PREFIX = "wharf-test-"
CGROUPS = Path("/sys/fs/cgroup")


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


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where the traces of one engine would be."""

    mark: str
    root: Path
    bridge: str
    cgroup: str

    def processes(self) -> list[Process]:
        """Return the processes with the mark, those in namespaces of theirs, and those that listen below the root."""
        marked = marked_processes(self.mark)
        return list(dict.fromkeys([*marked, *beside(marked), *listeners(self.root)]))

    def leftovers(self) -> list[str]:
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
