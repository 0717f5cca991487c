"""Subordinate ids of the host (`/etc/subuid`, `/etc/subgid`) for engines with `--userns-remap`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

USER = "daemon"
#: Outside the ranges that hosts assign to users.
FIRST, COUNT = 1_700_000_000, 65_536


@contextlib.contextmanager
def subordinate_ids() -> Iterator[None]:
    """Assign the ids from FIRST to the user `daemon` in the host's files, and restore the files afterwards."""
    before: dict[Path, bytes | None] = {}
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        before[path] = path.read_bytes() if path.exists() else None
        lines = [line for line in (before[path] or b"").decode().splitlines() if not line.startswith(f"{USER}:")]
        path.write_text("\n".join([*lines, f"{USER}:{FIRST}:{COUNT}", ""]))
    try:
        yield
    finally:
        for path, content in before.items():
            path.unlink() if content is None else path.write_bytes(content)
