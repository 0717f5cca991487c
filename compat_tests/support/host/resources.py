"""Allocates names, directories, bridges and subnets for the engines of tests: unique, and free on this host.

Each contains the pid of the test run, so that a later run can find and sweep the leftovers of a killed run.
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

from compat_tests.support.host.traces import CGROUPS, PREFIX, Footprint, ip_json, links, mounts_under

# The cgroup driver of all engines, instead of the one that they choose: "cgroupfs" or "systemd".
CGROUP_DRIVER = os.environ.get("WHARF_TEST_CGROUP_DRIVER", "")

_serial = itertools.count(1)
# Address ranges that this process has claimed: each by an abstract socket name that only one process can bind.
_claims: dict[int, socket.socket] = {}


@dataclass(frozen=True, slots=True)
class EngineResources:
    """The host resources of one engine."""

    name: str
    root: Path
    bridge: str  # at most 15 characters, the kernel's limit
    bip: str  # the bridge's address with its prefix length
    pool: str  # the source of subnets for user-defined networks
    cgroup: str

    @property
    def socket(self) -> Path:
        return self.root / "docker.sock"

    @property
    def cgroup_parent(self) -> str:
        """Return the cgroup parent in the form of the host's cgroup driver."""
        return f"{self.cgroup}.slice" if systemd_cgroups() else f"/{self.cgroup}"

    @property
    def cgroup_flags(self) -> list[str]:
        """Return the flags of wharfd and of dockerd for the cgroup parent and the chosen driver."""
        driver = ["--exec-opt", f"native.cgroupdriver={CGROUP_DRIVER}"] if CGROUP_DRIVER else []
        return ["--cgroup-parent", self.cgroup_parent, *driver]

    @property
    def footprint(self) -> Footprint:
        return Footprint(self.root.name, self.root, self.bridge, self.cgroup)


def systemd_cgroups() -> bool:
    """Whether engines use systemd's cgroup driver here: cgroup v2, systemd as init, and no driver chosen."""
    if CGROUP_DRIVER:
        return CGROUP_DRIVER == "systemd"
    return (CGROUPS / "cgroup.controllers").exists() and Path("/run/systemd/system").exists()


def allocate(name: str) -> EngineResources:
    """Allocate resources; only the directory exists yet."""
    serial, pid = next(_serial), os.getpid()
    root = Path(tempfile.gettempdir()) / f"{PREFIX}{pid}-{serial}-{name}"
    root.mkdir(mode=0o711)
    network = _free_network(pid, serial)
    first, second = network.subnets(prefixlen_diff=1)
    return EngineResources(
        name=name,
        root=root,
        bridge=f"wt{pid}n{serial}",
        bip=f"{first.network_address + 1}/24",
        pool=f"base={second},size=26",
        cgroup=f"wharftest{pid}n{serial}",
    )


def _free_network(pid: int, serial: int) -> ipaddress.IPv4Network:
    """Return a /20 of 10.128.0.0/9 without a route on this host; offset by pid so that parallel runs differ."""
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
    """Claim a range; ``False`` if another run has claimed it, whose bridge may not exist yet."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0{PREFIX}network-{index}")
    except OSError:
        name.close()
        return False
    _claims[index] = name
    return True


def _alive(pid: int) -> bool:
    """Whether the test run with this pid may be alive: any live Python process of that pid counts."""
    try:
        return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def sweep() -> list[str]:
    """Remove the leftovers of killed test runs; return one line for each."""
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
        swept += [f"{mark}: {line}" for line in footprint.leftovers()] or [f"{mark}: files"]
        footprint.remove()
        clear(root)
    return swept


def clear(root: Path) -> None:
    """Delete an engine's directory, only if nothing is mounted in it."""
    if root.exists() and not mounts_under(root):
        shutil.rmtree(root, ignore_errors=True)
