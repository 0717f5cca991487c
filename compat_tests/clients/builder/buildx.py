"""Builds by buildx: contexts in directories, and results."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.daemons import Completed
from compat_tests.support.engines import Engine

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
needs_buildx = pytest.mark.skipif(
    not os.path.exists("/usr/libexec/docker/cli-plugins/docker-buildx"), reason="needs buildx"
)


def write_context(path: Path, files: Mapping[str, str]) -> Path:
    """Write the files below a directory; return the directory."""
    for name, text in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return path


def build(engine: Engine, *args: str, check: bool = True, input: bytes | None = None) -> Completed:
    """Run `buildx build` with plain progress output."""
    return engine.docker("buildx", "build", "--progress=plain", *args, check=check, input=input, timeout=110)


def run_output(engine: Engine, image: str, *command: str) -> str:
    """Return the output of a container of the image."""
    return engine.docker("run", "--rm", "--network", "none", image, *command).stdout


def read_oci_archive(path: Path) -> dict[str, Any]:
    """Return an OCI archive's blobs by digest, JSON parsed, and its index under ``""``."""
    found: dict[str, Any] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            if file is None:
                continue
            data = file.read()
            try:
                parsed: Any = json.loads(data)
            except ValueError:
                parsed = data
            found["" if member.name == "index.json" else f"sha256:{member.name.rsplit('/', 1)[-1]}"] = parsed
    return found
