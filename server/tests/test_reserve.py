"""A database on a file system without free blocks."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.supervisor.store.database import Database as Metadata
from server.store.database import Database, Documents

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a tmpfs")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(tmp_path)], check=True, timeout=60)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True, timeout=60)


@pytest.fixture
def small_blocks(tmp_path: Path) -> Iterator[Path]:
    """An ext4 with blocks smaller than a memory page, as mkfs creates it on a small disk."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(40 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", "1024", str(image)], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True, timeout=60)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True, timeout=60)


OPEN = """
import asyncio, contextlib, os, sys
from pathlib import Path
from engine.common.errors import WharfError
from engine.supervisor.store.database import Database as Metadata
from engine.common.system.sqlite import LazyDatabase
from server.store.database import Database, Documents

async def main(folder, size):
    database = Database(Path(folder, "server", "wharf.db"))
    documents = Documents(database, "containers")
    assert len(await documents.all()) == (0 if size else 1)
    with contextlib.suppress(WharfError) if not size else contextlib.nullcontext():
        await documents.put("one", None, bytes(size))
    metadata = Metadata(os.path.join(folder, "engine", "meta.db"), migrations=("CREATE TABLE x (data BLOB);",))
    (count,) = metadata.read(lambda one: one.execute("SELECT count(*) FROM x").fetchone())
    assert (count == 0) is (size > 0)
    with contextlib.suppress(WharfError) if not size else contextlib.nullcontext():
        await metadata.write(lambda one: one.execute("INSERT INTO x VALUES (zeroblob(?))", (size,)) and None)
    lazy = LazyDatabase(os.path.join(folder, "lazy", "x.db"), "CREATE TABLE IF NOT EXISTS x (data BLOB);")
    await lazy.do(lambda one: one.execute("SELECT count(*) FROM x").fetchone())
    print("opened", flush=True)
    os._exit(0)  # a process that is killed removes no file

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def opened(folder: Path, size: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder), str(size)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "opened\n"), done.stderr


def test_databases_open_on_a_full_disk_with_small_blocks(small_blocks: Path) -> None:
    """Opening and reading need no free block."""
    opened(small_blocks, 100)
    for folder in ("server", "engine"):
        os.unlink(small_blocks / folder / "reserve")
    for free in (0, 9, 20, 33):
        for index in small_blocks.glob("*/*-shm"):
            index.unlink()  # SQLite does so before it creates it again: another program may have taken the space
        with contextlib.suppress(OSError), open(small_blocks / "filler", "ab", buffering=0) as file:
            while True:
                file.write(bytes(1 << 10))
        os.truncate(small_blocks / "filler", os.stat(small_blocks / "filler").st_size - free * 1024)
        opened(small_blocks, 0)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), open(disk / "filler", "ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))
    free = os.statvfs(disk)
    assert free.f_bavail * free.f_bsize < 1 << 12


def test_a_thousand_changes_on_a_full_disk(disk: Path) -> None:
    """Another program takes every released block at once."""

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
