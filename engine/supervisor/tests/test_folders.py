"""The directories of snapshots after a supervisor was killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.api.types import SnapshotKind, Usage
from engine.common.errors import Kind, WharfError
from engine.common.system import linux, mounts
from engine.supervisor.call import Call
from engine.supervisor.events import EventBus
from engine.supervisor.snapshots.copy import CopySnapshotter
from engine.supervisor.snapshots.folders import Folders
from engine.supervisor.snapshots.service import Snapshots
from engine.supervisor.store.database import Database

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


def test_usage_of_a_snapshot_that_is_removed_meanwhile(tmp_path: Path) -> None:
    """Between the look into the database and the measurement the snapshot and its directory are removed."""

    async def main() -> None:
        database = Database(str(tmp_path / "meta.db"))
        loop = asyncio.get_running_loop()

        class Removing(CopySnapshotter):
            def usage(self, number: int, parents: Sequence[int]) -> Usage:
                asyncio.run_coroutine_threadsafe(snapshots.remove("test", "native", "key"), loop).result(30)
                self.discard(number)
                return super().usage(number, parents)

        snapshots = Snapshots(database, EventBus(), [Removing(str(tmp_path))], str(tmp_path))
        try:
            await snapshots.create(Call("test"), "native", "key", "", {}, SnapshotKind.ACTIVE)
            with pytest.raises(WharfError) as caught:
                await snapshots.usage("test", "native", "key")
            assert caught.value.kind is Kind.NOT_FOUND
        finally:
            await snapshots.close()
            await database.close()

    asyncio.run(main())
