"""The rows of recipes. A row without a snapshot says that its blob can't be re-created."""

import sqlite3
from dataclasses import dataclass

#: Each blob without a file, with the snapshot from which it is re-created.
SOURCES = """
SELECT recipe.digest, snapshot.namespace, snapshot.snapshotter, snapshot.key
FROM recipe JOIN snapshot ON snapshot.number = recipe.snapshot
"""


@dataclass(frozen=True, slots=True)
class Source:
    """The snapshot from which a blob is re-created."""

    snapshotter: str
    number: int


def source(connection: sqlite3.Connection, digest: str) -> Source | None:
    row = connection.execute(
        "SELECT snapshot.snapshotter, snapshot.number FROM recipe "
        "JOIN snapshot ON snapshot.number = recipe.snapshot WHERE recipe.digest = ?",
        (digest,),
    ).fetchone()
    return Source(*row) if row is not None else None


def made_from(connection: sqlite3.Connection, number: int) -> str | None:
    """The digest of a blob that is re-created from this snapshot."""
    row = connection.execute("SELECT digest FROM recipe WHERE snapshot = ?", (number,)).fetchone()
    return str(row[0]) if row is not None else None


def recreatable(connection: sqlite3.Connection) -> set[str]:
    """All blobs with a recipe."""
    return {digest for (digest,) in connection.execute("SELECT digest FROM recipe WHERE snapshot IS NOT NULL")}


def insert(connection: sqlite3.Connection, digest: str, snapshot: int | None, stored: int) -> bool:
    """Returns False if the blob or the snapshot was removed meanwhile."""
    if connection.execute("SELECT 1 FROM blob WHERE digest = ?", (digest,)).fetchone() is None:
        return False
    if snapshot is not None:
        found = connection.execute("SELECT 1 FROM snapshot WHERE number = ?", (snapshot,)).fetchone()
        if found is None:
            return False
    connection.execute("INSERT OR REPLACE INTO recipe VALUES (?, ?, ?)", (digest, snapshot, stored))
    return True
