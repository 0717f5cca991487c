"""A database on a file system without a free block."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import Kind, WharfError
from engine.supervisor.store.database import Database as Metadata
from server.store.database import Database, Documents

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a tmpfs")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(tmp_path)], check=True, timeout=60)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True, timeout=60)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), open(disk / "filler", "ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))
    free = os.statvfs(disk)
    assert free.f_bavail * free.f_bsize < 1 << 12


def test_a_thousand_changes_on_a_full_disk(disk: Path) -> None:
    """Every block that is given back is taken by another program at once."""

    async def scenario() -> None:
        database = Database(disk / "wharf.db")
        containers = Documents(database, "containers")
        try:
            for number in range(50):
                await containers.put(str(number), None, bytes(8000))
            fill(disk)
            for count in range(1000):
                await containers.put(str(count % 50), None, bytes([count % 256]) * 8000, frees=True)
                if count % 100 == 0:
                    fill(disk)
            for number in range(50):
                await containers.delete(str(number))
            assert await containers.all() == []
            fill(disk)
            with pytest.raises(WharfError, match="write metadata: no space left on device") as caught:
                await containers.put("large", None, bytes(20 << 20))
            assert caught.value.kind is Kind.RESOURCE_EXHAUSTED
            os.unlink(disk / "filler")
            await containers.put("large", None, bytes(5 << 20))
        finally:
            database.close()

    asyncio.run(scenario())


def test_the_supervisors_metadata_on_a_full_disk(disk: Path) -> None:
    async def scenario() -> None:
        database = Metadata(str(disk / "meta.db"), migrations=("CREATE TABLE x (id INTEGER PRIMARY KEY, data BLOB);",))

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO x (data) VALUES (zeroblob(4000))")

        def remove(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM x WHERE id = (SELECT min(id) FROM x)")

        try:
            for _ in range(400):
                await database.write(insert)
            fill(disk)
            for _ in range(400):
                await database.write(remove, frees=True)
                await database.write(insert)
            fill(disk)
            for _ in range(400):
                await database.write(remove, frees=True)
        finally:
            await database.close()

    asyncio.run(scenario())
