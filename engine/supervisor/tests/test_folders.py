"""The directories of snapshots after a supervisor was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.common.system import linux, mounts
from engine.supervisor.snapshots.folders import Folders

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts")]


def test_a_leftover_test_mount_is_unmounted(tmp_path: Path) -> None:
    """The supervisor was killed between mount and umount of its overlayfs test: the next one starts."""
    folders = Folders(str(tmp_path))
    merged = os.path.join(folders.root, "check-abc", "merged")
    os.makedirs(merged)
    linux.mount("tmpfs", merged, "tmpfs", 0, "")
    try:
        folders.tidy()
        assert os.listdir(folders.root) == []
    finally:
        mounts.unmount_under(str(tmp_path))
