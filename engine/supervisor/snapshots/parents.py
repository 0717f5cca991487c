"""The parents of a snapshot in the metadata."""

import sqlite3

#: The numbers of a snapshot and its ancestors. CROSS JOIN fixes the order of the two tables: else SQLite reads all
#: snapshots for each ancestor.
PARENTS = """
WITH RECURSIVE below (number, parent, depth) AS (
    SELECT number, parent, 0 FROM snapshot WHERE namespace = :namespace AND snapshotter = :name AND key = :key
    UNION ALL
    SELECT snapshot.number, snapshot.parent, depth + 1 FROM below CROSS JOIN snapshot
    ON snapshot.namespace = :namespace AND snapshotter = :name AND key = below.parent
) SELECT number FROM below ORDER BY depth
"""


def chain(connection: sqlite3.Connection, namespace: str, name: str, key: str) -> list[int]:
    """The numbers of the snapshot itself and of its ancestors."""
    rows = connection.execute(PARENTS, {"namespace": namespace, "name": name, "key": key})
    return [number for (number,) in rows]
