"""The metadata database on a full disk."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.supervisor.store.database import Database

pytestmark = pytest.mark.root  # the directory of a database is made root's


def test_a_full_disk_is_resource_exhausted(tmp_path: Path) -> None:
    """Also if the metadata, not a blob, meets the full disk first; smaller writes succeed."""

    def written(size: int) -> int:
        async def run() -> int:
            database = Database(str(tmp_path / "meta.db"))

            def bound(connection: sqlite3.Connection) -> None:
                connection.execute("CREATE TABLE IF NOT EXISTS x (data BLOB)")

            def write(connection: sqlite3.Connection) -> int:
                (pages,) = connection.execute("PRAGMA page_count").fetchone()
                connection.execute(f"PRAGMA max_page_count={pages + 100}")
                connection.execute("INSERT INTO x VALUES (zeroblob(?))", (size,))
                return size

            def freed(connection: sqlite3.Connection) -> None:
                connection.execute("DELETE FROM x")

            try:
                await database.write(bound)
                assert database.reserve.held
                return await database.write(write)
            finally:
                # The reserve is for writes that free space.
                assert database.reserve.held
                await database.write(freed, frees=True)
                await database.close()

        return asyncio.run(run())

    with pytest.raises(WharfError, match="write metadata: no space left on device") as caught:
        written(10_000_000)
    assert caught.value.kind is Kind.RESOURCE_EXHAUSTED
    assert written(1000) == 1000
