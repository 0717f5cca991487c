"""Chooses the host's OCI runtime: crun where it works, runc otherwise. Probed once, with the reason."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from engine.common.system import cgroups
from engine.common.system.run import DEFAULT_ENV, run_sync
from engine.shim.runtime.oci import CRUN, RUNC


@dataclass(frozen=True, slots=True)
class Binary:
    """A runtime's program. ``dialect``: the runtime whose command line it accepts."""

    dialect: str
    path: str
    version: str = ""
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """``default`` is None if no runtime works. ``refused``: name → why it can't be used."""

    default: Binary | None
    usable: Mapping[str, Binary] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for ``docker info``: a preferred runtime that can't be used."""
        return tuple(f"WARNING: {name} is not used: {reason}" for name, reason in sorted(self.refused.items()))

    def require(self, preferred: str = "") -> Binary:
        """The preferred runtime if it is usable, else the default. Raises UNAVAILABLE if there is none."""
        if preferred in self.usable:
            return self.usable[preferred]
        if self.default is None:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.refused.items())
            raise WharfError(Kind.UNAVAILABLE, f"no OCI runtime works on this host ({reasons or 'none installed'})")
        return self.default


def dialect_of(path: str) -> str:
    """``crun`` for a program of that name, ``runc`` for all others."""
    return CRUN if "crun" in os.path.basename(path) else RUNC


def describe(path: str) -> Binary:
    """Asks a runtime for its version (empty if the answer can't be parsed).

    :raises WharfError: it can't be run.
    """
    try:
        done = run_sync([path, "--version"], deadline=timeouts.seconds("runtime.probe"))
    except OSError as error:
        raise WharfError(Kind.UNAVAILABLE, f"{path}: {error.strerror}") from None
    if done.status != 0:
        raise WharfError(Kind.UNAVAILABLE, f"{path} --version: exit status {done.status}")
    text = done.stdout.decode(errors="replace")
    version = re.search(r"version (\S+)", text)
    commit = re.search(r"commit: (\S+)", text)
    return Binary(dialect_of(path), path, version[1] if version else "", commit[1] if commit else "")


def crun_refusal(layout: cgroups.CgroupLayout) -> str:
    """Why crun can't work with these control groups, ``""`` if it can.

    It refuses a hybrid layout in which the unified tree has controllers.
    """
    if layout.mode != "hybrid" or layout.unified is None:
        return ""
    try:
        with open(os.path.join(layout.unified, "cgroup.controllers")) as file:
            left = file.read().split()
    except OSError:
        return ""
    if not left:
        return ""
    return f"the hybrid cgroup layout leaves {', '.join(left)} to cgroup v2; mount them as v1 to use it"


@cache
def probe() -> Probe:
    """Probes the host's runtimes. Blocks for some ten milliseconds; callers keep the result."""
    usable: dict[str, Binary] = {}
    refused: dict[str, str] = {}
    for name in (CRUN, RUNC):
        path = shutil.which(name, path=DEFAULT_ENV["PATH"])
        if path is None:
            continue
        try:
            binary = describe(path)
        except WharfError as error:
            refused[name] = error.message
            continue
        reason = crun_refusal(cgroups.host_cgroups()) if name == CRUN else ""
        if reason:
            refused[name] = reason
        else:
            usable[name] = binary
    return Probe(next(iter(usable.values()), None), usable, refused)
