"""OCI runtimes by the names that ``--runtime`` takes, and what the engine is told to use them."""

import os
import shutil
from collections.abc import Mapping

from engine.api.pb import runc_options_pb2
from engine.api.types import AnyValue
from engine.common.errors import WharfError, invalid
from server.config.model import Runtime

SHIM = "io.containerd.runc.v2"


class Runtimes:
    """``default`` is the name that a container without one gets and that inspect shows.

    ``configured`` are the daemon's own; ``runc`` and ``crun`` are known where their programs are.
    """

    def __init__(
        self,
        configured: Mapping[str, Runtime],
        default: str,
        *,
        systemd_cgroup: bool,
        scripts: str,
    ) -> None:
        self.default = default
        self._systemd = systemd_cgroup
        self._scripts = scripts
        self._runtimes: dict[str, Runtime] = {}
        self.reload(configured)

    def reload(self, configured: Mapping[str, Runtime], default: str = "") -> None:
        """Replaces the configured runtimes; "" keeps the default."""
        known = {name: Runtime(path=name) for name in ("runc", "crun") if shutil.which(name)}
        self._runtimes = known | dict(configured)
        self.default = default or self.default

    def names(self) -> list[str]:
        return sorted(self._runtimes)

    def paths(self) -> dict[str, str]:
        """Name → program (or the shim that runs it), for ``docker info``."""
        return {name: runtime.path or runtime.type for name, runtime in self._runtimes.items()}

    def get(self, name: str) -> Runtime:
        """:raises WharfError: INVALID_ARGUMENT ``unknown or invalid runtime name: x``."""
        name = name or self.default
        found = self._runtimes.get(name)
        if found is not None:
            return found
        if name == SHIM:
            return self._runtimes[self.default]
        raise _unknown(name)

    def check(self, name: str) -> None:
        """As ``get``, for create."""
        self.get(name)

    def engine_options(self, name: str, *, owner: tuple[int, int] | None = None) -> tuple[str, AnyValue | None]:
        """Name and options of the runtime in the engine's API. ``owner``: whose (uid, gid) the task's pipes are.

        :raises WharfError: INVALID_ARGUMENT.
        """
        runtime = self.get(name)
        if runtime.type and runtime.type != SHIM:
            if runtime.options:
                raise invalid(f"runtime {name}: options of {runtime.type} can't be passed on")
            return runtime.type, None
        program = self._wrapper(name, runtime) if runtime.args else runtime.path
        options = runc_options_pb2.Options(binary_name=program, systemd_cgroup=self._systemd)
        if owner is not None:
            options.io_uid, options.io_gid = owner
        return SHIM, AnyValue.pack(options)

    def _wrapper(self, name: str, runtime: Runtime) -> str:
        """A program that puts the configured arguments before those of the engine, which can't pass any."""
        os.makedirs(self._scripts, mode=0o700, exist_ok=True)
        path = f"{self._scripts}/{name}"
        words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in (runtime.path, *runtime.args))
        text = f'#!/bin/sh\nexec {words} "$@"\n'
        try:
            with open(path) as file:
                if file.read() == text:
                    return path
        except FileNotFoundError:
            pass
        with open(path + ".new", "w", opener=lambda p, flags: os.open(p, flags, 0o700)) as file:
            file.write(text)
        os.replace(path + ".new", path)
        return path


def _unknown(name: str) -> WharfError:
    return invalid(f"unknown or invalid runtime name: {name}")
