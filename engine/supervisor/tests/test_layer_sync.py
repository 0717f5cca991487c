"""Layers that may not be on the disk: recorded until their file system is synced, removed after a power failure."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from engine.api.types import SnapshotKind
from engine.common.errors import Kind, WharfError
from engine.supervisor.call import Call
from engine.supervisor.events import EventBus
from engine.supervisor.snapshots import layer_sync
from engine.supervisor.snapshots.copy import CopySnapshotter
from engine.supervisor.snapshots.service import Snapshots
from engine.supervisor.store.database import Database

pytestmark = pytest.mark.root  # the directories of snapshots are made root's

CALL = Call("test")


def unsettled(database: Database) -> list[tuple[int, str]]:
    return database.read(lambda connection: connection.execute("SELECT number, boot FROM unsettled").fetchall())


def open_store(root: Path, *, sync_delay: float = layer_sync.DELAY) -> tuple[Database, Snapshots]:
    database = Database(str(root / "meta.db"))
    bus = EventBus()
    return database, Snapshots(database, bus, [CopySnapshotter(str(root))], str(root), sync_delay=sync_delay)


async def layer(snapshots: Snapshots, name: str, parent: str = "") -> None:
    await snapshots.create(CALL, "native", "building", parent, {}, SnapshotKind.ACTIVE)
    await snapshots.commit(CALL, "native", name, "building", {})


def test_records_are_removed_after_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        database, snapshots = open_store(tmp_path, sync_delay=0.0)
        synced = asyncio.Event()
        loop = asyncio.get_running_loop()

        def sync(path: str) -> None:
            assert path == str(tmp_path)
            loop.call_soon_threadsafe(synced.set)

        monkeypatch.setattr(layer_sync, "sync_file_system", sync)
        try:
            await layer(snapshots, "below")
            await synced.wait()
            await layer(snapshots, "later")  # may race with the sync of the first
            for _ in range(6000):
                if not unsettled(database):
                    break
                await asyncio.sleep(0.01)
            assert not unsettled(database)
        finally:
            await snapshots.close()
            await database.close()

    asyncio.run(main())


def test_unsynced_layers_after_a_power_failure(tmp_path: Path) -> None:
    async def before() -> None:
        database, snapshots = open_store(tmp_path)
        await layer(snapshots, "sound")
        assert [boot for _, boot in unsettled(database)] == [snapshots.layer_sync.boot]

        def settled(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM unsettled")

        await database.write(settled)
        await layer(snapshots, "doubtful", "sound")
        await layer(snapshots, "above", "doubtful")
        await snapshots.create(CALL, "native", "container", "above", {}, SnapshotKind.ACTIVE)

        def power_cut(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE unsettled SET boot = 'an earlier one'")

        await database.write(power_cut)
        await snapshots.close()
        await database.close()

    async def after() -> None:
        database, snapshots = open_store(tmp_path)
        await snapshots.recover()
        names = {info.name for info in await snapshots.list(CALL.namespace, "native", [])}
        assert names == {"sound", "container"}
        assert unsettled(database) == []
        with pytest.raises(WharfError, match="parent snapshot above does not exist") as caught:
            await snapshots.mounts(CALL.namespace, "native", "container")
        assert caught.value.kind is Kind.NOT_FOUND
        await layer(snapshots, "doubtful", "sound")
        await layer(snapshots, "above", "doubtful")
        assert await snapshots.mounts(CALL.namespace, "native", "container")
        await snapshots.close()
        await database.close()

    asyncio.run(before())
    asyncio.run(after())
