"""A user's cgroup as a slice of systemd (the systemd driver). All functions block.

systemd resets what others write into the files of its cgroups, so the limits are properties of a transient unit, which
disappears when it is stopped (org.freedesktop.systemd1(5)).
"""

import logging
import time
from collections.abc import Callable, Sequence

from engine.common import timeouts
from engine.common.errors import WharfError
from engine.common.system.run import run_sync
from server.shares.cgroups import Limits

log = logging.getLogger(__name__)

timeouts.define("systemd.slice", 10.0)  # one call of systemd's manager, or one of its jobs

_NAME, _PATH, _MANAGER = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)
_UNLIMITED = 2**64 - 1
# Seconds between two looks at a cgroup that systemd makes or removes.
_PAUSE = 0.01


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


def make(name: str, limits: Limits, exists: Callable[[], bool]) -> None:
    """Starts a slice with limits, or changes the limits of one that runs. ``exists``: whether its cgroup exists.

    :raises OSError: there is no busctl. :raises WharfError: systemd refuses, or doesn't answer.
    """
    values = properties(limits)
    words = [str(len(values)), *(word for key, value in values for word in (key, "t", str(value)))]
    if not exists():
        try:
            _call("StartTransientUnit", "ssa(sv)a(sa(sv))", [name, "replace", *words, "0"])
        except WharfError as error:
            log.debug("%s is not started: %s", name, error)  # it is loaded already
        else:
            # The call only queues a job.
            _wait(exists)
            return
    _call("SetUnitProperties", "sba(sv)", [name, "true", *words])


def remove(name: str, exists: Callable[[], bool]) -> bool:
    """Stops a slice that has no containers. Returns False if it could not be stopped."""
    try:
        _call("StopUnit", "ss", [name, "replace"])
    except (OSError, WharfError) as error:
        log.warning("%s is not removed: %s", name, error)
        return False
    # A start of a container before the job is done would use a slice that loses its limits.
    return _wait(lambda: not exists())


def _wait(done: Callable[[], bool]) -> bool:
    end = time.monotonic() + timeouts.seconds("systemd.slice")
    while not (found := done()) and time.monotonic() < end:
        time.sleep(_PAUSE)
    return found


def _call(method: str, signature: str, words: Sequence[str]) -> None:
    argv = ["busctl", "--quiet", "call", _NAME, _PATH, _MANAGER, method, signature, *words]
    run_sync(argv, deadline=timeouts.seconds("systemd.slice"), check=True)
