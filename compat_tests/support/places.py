"""Names, folders, bridges and subnets for the engines that tests start: unique, and free on this host.

Everything carries the pid of the test run, so that a later run can see whose it was and sweep what a killed run left.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import re
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compat_tests.support.traces import CGROUPS, PREFIX, Footprint, ip_json, links, mounts_under

_serial = itertools.count(1)
# Ranges of addresses that are this process's for as long as it lives: each by a name that only one can have.
_given: dict[int, socket.socket] = {}


@dataclass(frozen=True, slots=True)
class Place:
    """What one engine may use of the host."""

    name: str
    root: Path
    bridge: str  # <= 15 characters, the kernel's bound
    bip: str  # the bridge's address with its prefix length
    pool: str  # where user-defined networks are taken from
    cgroup: str

    @property
    def socket(self) -> Path:
        return self.root / "docker.sock"

    @property
    def cgroup_parent(self) -> str:
        """In the form that the host's cgroup driver wants."""
        return f"{self.cgroup}.slice" if systemd_cgroups() else f"/{self.cgroup}"

    @property
    def footprint(self) -> Footprint:
        return Footprint(self.root.name, self.root, self.bridge, self.cgroup)


def systemd_cgroups() -> bool:
    """Whether engines use systemd's cgroup driver here: cgroup v2 and systemd as the init."""
    return (CGROUPS / "cgroup.controllers").exists() and Path("/run/systemd/system").exists()


def take(name: str) -> Place:
    """A new place; the folder exists, nothing else does."""
    serial, pid = next(_serial), os.getpid()
    root = Path(tempfile.gettempdir()) / f"{PREFIX}{pid}-{serial}-{name}"
    root.mkdir(mode=0o711)
    network = _free_network(pid, serial)
    first, second = network.subnets(prefixlen_diff=1)
    return Place(
        name=name,
        root=root,
        bridge=f"wt{pid}n{serial}",
        bip=f"{first.network_address + 1}/24",
        pool=f"base={second},size=26",
        cgroup=f"wharftest{pid}n{serial}",
    )


def _free_network(pid: int, serial: int) -> ipaddress.IPv4Network:
    """A /20 of 10.128.0.0/9 that no route of this host touches, spread by pid so that parallel runs differ."""
    used = [ipaddress.IPv4Network("0.0.0.0/32")]
    for route in ip_json("-4", "route", "show", "table", "all"):
        with contextlib.suppress(ValueError):
            destination = ipaddress.IPv4Network(str(route.get("dst")), strict=False)
            if destination.prefixlen:
                used.append(destination)
    space = list(ipaddress.IPv4Network("10.128.0.0/9").subnets(new_prefix=20))
    for step in range(len(space)):
        index = (pid * 257 + serial + step) % len(space)
        network = space[index]
        if not any(network.overlaps(other) for other in used) and _claim(index):
            return network
    raise RuntimeError("no free /20 in 10.128.0.0/9 on this host")


def _claim(index: int) -> bool:
    """Whether the range is ours now: another run may have just taken it, and no bridge shows it yet."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0{PREFIX}network-{index}")
    except OSError:
        name.close()
        return False
    _given[index] = name
    return True


def _alive(pid: int) -> bool:
    """Whether the test run with this pid may still be at work: any live Python under that number counts as one."""
    try:
        return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def sweep() -> list[str]:
    """Removes what test runs left that were killed; returns what was found, one line for each thing."""
    swept: list[str] = []
    marks: dict[tuple[int, int], str] = {}
    for root in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if found := re.fullmatch(rf"{PREFIX}(\d+)-(\d+)-.*", root.name):
            marks[int(found[1]), int(found[2])] = root.name
    for name in links():
        if found := re.fullmatch(r"wt(\d+)n(\d+)", name):
            marks.setdefault((int(found[1]), int(found[2])), f"{PREFIX}{found[1]}-{found[2]}-unknown")
    for hierarchy in [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())] if CGROUPS.is_dir() else []:
        for path in hierarchy.glob("wharftest*n*"):
            if found := re.fullmatch(r"wharftest(\d+)n(\d+)(\.slice)?", path.name):
                marks.setdefault((int(found[1]), int(found[2])), f"{PREFIX}{found[1]}-{found[2]}-unknown")
    for (pid, serial), mark in sorted(marks.items()):
        if _alive(pid):
            continue
        root = Path(tempfile.gettempdir()) / mark
        footprint = Footprint(mark, root, f"wt{pid}n{serial}", f"wharftest{pid}n{serial}")
        swept += [f"{mark}: {line}" for line in footprint.left()] or [f"{mark}: files"]
        footprint.remove()
        clear(root)
    return swept


def clear(root: Path) -> None:
    """Deletes an engine's folder once nothing is mounted in it: never a file through a mount."""
    if root.exists() and not mounts_under(root):
        shutil.rmtree(root, ignore_errors=True)
