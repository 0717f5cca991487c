"""A user's cgroup as a slice of systemd (the systemd driver). All functions block.

systemd resets what others write into the files of its cgroups, so the limits are properties of a transient unit, which
disappears when it is stopped (org.freedesktop.systemd1(5)).
"""

import logging
import subprocess
from collections.abc import Sequence

from engine.common import timeouts
from engine.common.errors import WharfError
from engine.common.system.run import run_sync
from server.shares.cgroups import Limits

log = logging.getLogger(__name__)

timeouts.define("systemd.slice", 10.0)  # one call of systemd's manager

_NAME, _PATH, _MANAGER = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)
_UNLIMITED = 2**64 - 1


def properties(limits: Limits) -> list[tuple[str, int]]:
    """The properties of a slice, systemd.resource-control(5); the largest number stands for no limit."""
    values = (
        # Microseconds of CPU time in a second.
        ("CPUQuotaPerSecUSec", None if limits.cpus is None else round(limits.cpus * 1_000_000)),
        ("CPUWeight", limits.cpu_weight),
        ("MemoryMax", limits.memory),
        ("MemorySwapMax", limits.memory),
        ("TasksMax", limits.pids),
        ("IOWeight", limits.io_weight),
    )
    return [(name, _UNLIMITED if value is None else value) for name, value in values]


def make(name: str, limits: Limits, *, exists: bool) -> None:
    """Starts a slice with limits, or changes the limits of one that exists.

    :raises OSError: there is no busctl. :raises WharfError: systemd refuses, or doesn't answer.
    """
    values = properties(limits)
    words = [str(len(values)), *(word for key, value in values for word in (key, "t", str(value)))]
    if exists:
        _call("SetUnitProperties", "sba(sv)", [name, "true", *words])
    else:
        _call("StartTransientUnit", "ssa(sv)a(sa(sv))", [name, "replace", *words, "0"])


def remove(name: str) -> None:
    """Stops a slice that has no containers. An error is logged."""
    try:
        _call("StopUnit", "ss", [name, "replace"])
    except (OSError, WharfError, subprocess.SubprocessError) as error:
        log.warning("%s is not removed: %s", name, error)


def _call(method: str, signature: str, words: Sequence[str]) -> None:
    argv = ["busctl", "--quiet", "call", _NAME, _PATH, _MANAGER, method, signature, *words]
    run_sync(argv, deadline=timeouts.seconds("systemd.slice"), check=True)
