"""The record of a container that its shim stores."""

import json
import os
from collections.abc import Mapping

from engine.shim.container.process import Process
from engine.shim.kernel import processes


def save(path: str, state: Mapping[str, object], init: Process) -> None:
    """Replaces the file atomically.

    :raises OSError: it can't be written.
    """
    try:
        started = processes.start_time(init.pid) if not init.exited else 0
    except ProcessLookupError:
        started = 0
    with open(path + ".tmp", "w") as file:
        json.dump({**state, "init_started": started}, file)
    os.rename(path + ".tmp", path)
