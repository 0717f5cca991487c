"""Removes the cgroups of a container that the runtime could not create."""

import json
import os
import time
from collections.abc import Callable

from engine.shim import kernel
from engine.shim.loop import Loop

#: Seconds that a killed process may take to leave its cgroup, and between two checks.
_PATIENCE, _PAUSE = 5.0, 0.02


def remove_cgroups(loop: Loop, bundle: str, then: Callable[[], None]) -> None:
    """Kills the processes in the cgroups of the bundle's specification, removes the cgroups, then calls ``then``."""
    path = _cgroups_path(bundle)
    end = time.monotonic() + _PATIENCE

    def look() -> None:
        if not path or kernel.kill_and_remove_cgroups(path) or time.monotonic() > end:
            then()
        else:
            loop.call_later(_PAUSE, look)

    look()


def _cgroups_path(bundle: str) -> str:
    """ "" if systemd creates the cgroup, which it removes with the last process."""
    try:
        with open(os.path.join(bundle, "config.json")) as file:
            path = json.load(file)["linux"]["cgroupsPath"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    path = os.path.normpath(path) if isinstance(path, str) else ""
    return path if path.startswith("/") and path.strip("/") else ""  # never the root of a hierarchy
