"""Removes a container from the OCI runtime after its exit, and the cgroups of one that the runtime could not create."""

import json
import os
import time
from collections.abc import Callable

from engine.shim.kernel import cgroups
from engine.shim.loop import Loop
from engine.shim.protocol import RequestError
from engine.shim.runtime.runner import Runner

#: Seconds that a killed process may take to leave its cgroup, and between two checks.
_PATIENCE, _PAUSE = 5.0, 0.02


class Removal:
    """The removal of the container whose bundle is ``bundle``, in the runtime and with its cgroup."""

    def __init__(self, loop: Loop, runner: Runner, bundle: str) -> None:
        self._loop = loop
        self._runner = runner
        self._bundle = bundle
        self._waiting: list[Callable[[], None]] = []
        self.done = False

    def when_done(self, callback: Callable[[], None]) -> None:
        """Calls back when the removal, which may not have started, has completed."""
        self._waiting.append(callback)

    def start(self, container: str, *, create_failed: bool = False) -> None:
        """Starts the removal right after the exit, so that Delete need not wait for it. An error of the runtime is
        ignored: a container that could not be created is unknown to it."""

        def deleted(_error: RequestError | None) -> None:
            if create_failed:
                # crun leaves the cgroup of a container that it could not create.
                remove_cgroups(self._loop, self._bundle, self._completed)
            else:
                self._completed()

        runtime = self._runner.runtime
        try:
            self._runner.call("delete", lambda log: runtime.delete(container, force=True, log=log), deleted)
        except RequestError as error:
            deleted(error)

    def _completed(self) -> None:
        self.done = True
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


def remove_cgroups(loop: Loop, bundle: str, on_removed: Callable[[], None]) -> None:
    """Kills the processes in the cgroups of the bundle's specification and removes the cgroups. Calls ``on_removed``
    when they are removed, or after ``_PATIENCE`` seconds."""
    path = _cgroups_path(bundle)
    end = time.monotonic() + _PATIENCE

    def check() -> None:
        if not path or cgroups.kill_and_remove(path) or time.monotonic() > end:
            on_removed()
        else:
            loop.call_later(_PAUSE, check)

    check()


def _cgroups_path(bundle: str) -> str:
    """The path in every hierarchy; "" if systemd creates the cgroup, which it removes with the last process."""
    try:
        with open(os.path.join(bundle, "config.json")) as file:
            path = json.load(file)["linux"]["cgroupsPath"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    path = os.path.normpath(path) if isinstance(path, str) else ""
    return path if path.startswith("/") and path.strip("/") else ""  # never the root of a hierarchy
