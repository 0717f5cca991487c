"""The features of an OCI runtime (``runc features``; features.md of the runtime specification)."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Mapping

import orjson

from engine.common import timeouts
from engine.common.errors import WharfError
from engine.common.system.run import DEFAULT_ENV, run_sync

_KEY = "org.opencontainers.runtime-spec.features"


class Features:
    """Runs each program once, and again when its file has changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Mapping[str, str]]] = {}

    async def get(self, program: str) -> Mapping[str, str]:
        """Return ``status`` of a runtime in ``GET /info``; empty for one without this command."""
        path = shutil.which(program, path=DEFAULT_ENV["PATH"])
        if path is None:
            return {}
        changed = os.stat(path).st_mtime_ns
        known = self._known.get(path)
        if known is None or known[0] != changed:
            known = self._known[path] = (changed, await asyncio.to_thread(_read_features, path))
        return known[1]


def _read_features(path: str) -> Mapping[str, str]:
    try:
        done = run_sync([path, "features"], deadline=timeouts.seconds("runtime.probe"))
        if done.status != 0:
            return {}
        # One line, as in dockerd.
        return {_KEY: orjson.dumps(orjson.loads(done.stdout)).decode()}
    except (OSError, subprocess.SubprocessError, WharfError, orjson.JSONDecodeError):
        return {}
