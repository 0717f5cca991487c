"""Queries of the metadata whose cost must not grow with the number of records."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from engine.supervisor.snapshots.parents import PARENTS
from engine.supervisor.store.schema import MIGRATIONS

_INSERT = (
    "INSERT INTO snapshot (namespace, snapshotter, key, kind, parent, created, updated, labels) "
    "VALUES ('moby', 'overlayfs', ?, ?, ?, 1, 1, '{}')"
)


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for migration in MIGRATIONS:
            connection.executescript(migration)
        yield connection


def steps(connection: sqlite3.Connection, query: str, values: dict[str, str]) -> tuple[list[tuple[int]], int]:
    """The rows of a query, and how many instructions of SQLite's machine it takes."""
    count = 0

    def instruction() -> None:
        nonlocal count
        count += 1

    connection.set_progress_handler(instruction, 1)
    try:
        return connection.execute(query, values).fetchall(), count
    finally:
        connection.set_progress_handler(None, 1)


def test_the_ancestors_of_a_snapshot(database: sqlite3.Connection) -> None:
    parents = {"layer1": "", "layer2": "layer1", "init": "layer2", "container": "init"}
    database.executemany(_INSERT, [(key, 3, parent) for key, parent in parents.items()])
    values = {"namespace": "moby", "name": "overlayfs", "key": "container"}
    rows, few = steps(database, PARENTS, values)
    assert rows == [(4,), (3,), (2,), (1,)]
    database.executemany(_INSERT, [(f"container{number}", 2, "init") for number in range(500)])
    found, many = steps(database, PARENTS, values)
    assert found == rows
    assert many < few * 2  # each record more would take one or more
