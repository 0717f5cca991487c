"""The store: durable writes, batches whose writes fail independently, stepwise migrations."""

import asyncio
import sqlite3
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from engine.common.errors import Kind, WharfError
from server.store.database import MIGRATIONS, Database, Documents, NewerDatabase


def test_documents_are_durable_and_names_unique(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "wharf.db"

    async def fill() -> None:
        database = Database(path)
        try:
            containers = Documents(database, "containers")
            await containers.put("b", "web", b"1")
            await containers.put("b", "web", b"2")
            await containers.put("c", None, b"3")
            await containers.put("d", None, b"4")
            with pytest.raises(sqlite3.IntegrityError):
                await containers.put("e", "web", b"5")
            await containers.delete("d")
            await containers.delete("nothing")
        finally:
            database.close()

    async def check() -> None:
        database = Database(path)
        try:
            containers = Documents(database, "containers")
            assert await containers.all() == [("b", "web", b"2"), ("c", None, b"3")]
            assert await containers.get("b") == b"2"
            assert await containers.get("d") is None
        finally:
            database.close()

    asyncio.run(fill())
    assert path.stat().st_mode & 0o777 == 0o600
    asyncio.run(check())


def test_concurrent_writes_fail_independently(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database(tmp_path / "wharf.db")

        def insert(number: int) -> Coroutine[Any, Any, None]:
            def work(connection: sqlite3.Connection) -> None:
                connection.execute("INSERT INTO volumes VALUES (?, NULL, '')", (str(number),))
                if number % 10 == 3:
                    raise ValueError(number)

            return database.write(work)

        try:
            results = await asyncio.gather(*(insert(n) for n in range(200)), return_exceptions=True)
            failed = [n for n, result in enumerate(results) if isinstance(result, ValueError)]
            assert failed == [n for n in range(200) if n % 10 == 3]
            count = await database.read(lambda c: c.execute("SELECT count(*) FROM volumes").fetchone()[0])
            assert count == 180
        finally:
            database.close()

    asyncio.run(scenario())


def test_a_cancelled_write_is_committed(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database(tmp_path / "wharf.db")
        try:
            task = asyncio.ensure_future(Documents(database, "settings").put("id", None, b"x"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # A later write is queued after the first.
            await database.write(lambda c: None)
            assert await Documents(database, "settings").get("id") == b"x"
        finally:
            database.close()

    asyncio.run(scenario())


def test_migrations_run_once_and_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wharf.db"
    steps = [*MIGRATIONS, ["CREATE TABLE later (x)"]]
    Database(path).close()
    Database(path, steps).close()
    Database(path, steps).close()
    with pytest.raises(NewerDatabase):
        Database(path)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "wharf.db"
    with pytest.raises(sqlite3.Error):
        Database(path, [["CREATE TABLE a (x)", "nonsense"]])
    Database(path).close()


def test_a_full_database_accepts_writes_that_free_space(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database(tmp_path / "wharf.db")
        volumes = Documents(database, "volumes")
        try:
            await volumes.put("first", None, b"1")
            assert database.reserve.held

            def limit(connection: sqlite3.Connection) -> None:
                (pages,) = connection.execute("PRAGMA page_count").fetchone()
                connection.execute(f"PRAGMA max_page_count={pages + 10}")

            await database.write(limit)
            big = volumes.put("big", None, bytes(1 << 20))
            results = await asyncio.gather(big, volumes.delete("first"), return_exceptions=True)
            assert isinstance(results[0], WharfError)
            assert (results[0].kind, results[0].message) == (
                Kind.RESOURCE_EXHAUSTED,
                "write metadata: no space left on device",
            )
            assert results[1] is None
            assert await volumes.all() == []
            # The next commit recreates the reserve.
            await volumes.put("small", None, b"1", frees=True)
            assert database.reserve.held
        finally:
            database.close()

    asyncio.run(scenario())
