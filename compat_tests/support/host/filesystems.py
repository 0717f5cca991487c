"""Small file systems for engines and directories that a test fills."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def tmpfs(path: Path, size: str) -> Iterator[None]:
    """Mount a tmpfs of this size during the block. Its root has the owner of the directory."""
    owner = path.stat()
    options = f"size={size},mode=711,uid={owner.st_uid},gid={owner.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=60)


def free_space(folder: Path) -> int:
    """Return the bytes that are free for unprivileged users."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
