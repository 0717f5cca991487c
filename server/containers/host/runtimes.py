"""OCI runtimes by the names of ``--runtime``, and their names and options in the engine's API."""

import os
import shutil
from collections.abc import Mapping

from engine.api.pb import runc_options_pb2
from engine.api.types import AnyValue
from engine.common.errors import WharfError, invalid
from server.config.types import Runtime

SHIM = "io.containerd.runc.v2"


class Runtimes:
    """The runtimes of the daemon's configuration, and ``runc`` and ``crun`` if their programs are in the PATH.

    :param configured: the runtimes of the configuration, by name.
    :param default: the name of the runtime of containers that set none.
    :param scripts: a directory for wrappers of runtimes with arguments.
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
        """Replaces the configured runtimes, and the default unless it is ""."""
        known = {name: Runtime(path=name) for name in ("runc", "crun") if shutil.which(name)}
        self._runtimes = known | dict(configured)
        self.default = default or self.default

    def names(self) -> list[str]:
        return sorted(self._runtimes)

    def paths(self) -> dict[str, str]:
        """Name → program, or name of the shim, for ``docker info``."""
        return {name: runtime.path or runtime.type for name, runtime in self._runtimes.items()}

    def get(self, name: str) -> Runtime:
        """The runtime ``name``; "" is the default.

        :raises WharfError: INVALID_ARGUMENT ``unknown or invalid runtime name: x``.
        """
        name = name or self.default
        found = self._runtimes.get(name)
        if found is not None:
            return found
        if name == SHIM:
            return self._runtimes[self.default]
        raise _unknown(name)

    def check(self, name: str) -> None:
        """:raises WharfError: as ``get``."""
        self.get(name)

    def engine_options(self, name: str, *, owner: tuple[int, int] | None = None) -> tuple[str, AnyValue | None]:
        """The runtime's name and options in the engine's API. ``owner``: the (uid, gid) of the task's pipes, None:
        root.

        :raises WharfError: INVALID_ARGUMENT: an unknown runtime, or one whose options can't be passed on.
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
        """The path of a script that runs the runtime with its configured arguments, which the engine's API can't
        pass."""
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
