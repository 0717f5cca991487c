"""The records of snapshots in the metadata. All functions but ``fields`` run inside a read or a write."""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.api import filters
from engine.api.types import SnapshotInfo, SnapshotKind
from engine.common.errors import Kind, WharfError, invalid, not_found
from engine.supervisor import leases, namespaces
from engine.supervisor.call import Call
from engine.supervisor.snapshots.parents import chain
from engine.supervisor.store import labels as json_labels

#: Layers on a lost layer are removed with it and unpacked again. An active snapshot stays: it finds the new parent by
#: its name.
_ORPHANS = """
DELETE FROM snapshot WHERE parent <> '' AND kind = :committed AND NOT EXISTS (
    SELECT 1 FROM snapshot AS below WHERE below.namespace = snapshot.namespace
    AND below.snapshotter = snapshot.snapshotter AND below.key = snapshot.parent
)
"""

COLUMNS = "number, kind, key, parent, labels, created, updated"


@dataclass(frozen=True, slots=True)
class Row:
    number: int
    info: SnapshotInfo


def row_of(row: tuple[int, int, str, str, str, int, int]) -> Row:
    number, kind, key, parent, labels, created, updated = row
    info = SnapshotInfo(SnapshotKind(kind), key, parent, json_labels.load(labels), created, updated)
    return Row(number, info)


def find(connection: sqlite3.Connection, namespace: str, name: str, key: str) -> Row | None:
    row = connection.execute(
        f"SELECT {COLUMNS} FROM snapshot WHERE namespace = ? AND snapshotter = ? AND key = ?", (namespace, name, key)
    ).fetchone()
    return row_of(row) if row is not None else None


def get(connection: sqlite3.Connection, namespace: str, name: str, key: str) -> Row:
    row = find(connection, namespace, name, key)
    if row is None:
        raise not_found(f"snapshot {key} does not exist: not found")
    return row


def get_active(connection: sqlite3.Connection, namespace: str, name: str, key: str) -> Row:
    """A snapshot that can be committed."""
    row = get(connection, namespace, name, key)
    if row.info.kind is not SnapshotKind.ACTIVE:
        raise WharfError(Kind.FAILED_PRECONDITION, f"snapshot {key} is not active: failed precondition")
    return row


def get_mountable(connection: sqlite3.Connection, namespace: str, name: str, key: str) -> tuple[Row, list[int]]:
    """An active snapshot or a view, and the numbers of its ancestors."""
    row = get(connection, namespace, name, key)
    parents = chain(connection, namespace, name, key)[1:]
    if row.info.parent and not parents:  # lost after a power failure, with the layers on it
        raise not_found(f"parent snapshot {row.info.parent} does not exist: not found")
    if row.info.kind is SnapshotKind.COMMITTED:
        raise WharfError(Kind.FAILED_PRECONDITION, f"failed to get active mount: {key}: requires active snapshot")
    return row, parents


def parents_of(connection: sqlite3.Connection, namespace: str, name: str, parent: str) -> list[int]:
    """The numbers of a new snapshot's ancestors; none for an empty parent."""
    if not parent:
        return []
    row = find(connection, namespace, name, parent)
    if row is None:
        raise not_found(f"parent snapshot {parent} does not exist: not found")
    if row.info.kind is not SnapshotKind.COMMITTED:
        raise invalid(f"parent {parent} is not committed snapshot: invalid argument")
    return chain(connection, namespace, name, parent)


def must_be_free(connection: sqlite3.Connection, namespace: str, name: str, key: str) -> None:
    """:raises WharfError: ALREADY_EXISTS."""
    if find(connection, namespace, name, key) is not None:
        raise WharfError(Kind.ALREADY_EXISTS, f'snapshot "{key}": already exists')


@dataclass(frozen=True, slots=True)
class New:
    """A snapshot to record. ``parents``: the numbers of its ancestors when its directory was made. ``number``: None for
    the next one."""

    snapshotter: str
    key: str
    kind: SnapshotKind
    parent: str
    labels: Mapping[str, str]
    parents: Sequence[int]
    number: int | None = None


def insert(connection: sqlite3.Connection, call: Call, new: New) -> int:
    """Records a snapshot, adds it to the call's lease and returns its number.

    :raises WharfError: ALREADY_EXISTS: the key is taken; UNAVAILABLE: the parent was replaced meanwhile.
    """
    namespaces.ensure(connection, call.namespace)
    if parents_of(connection, call.namespace, new.snapshotter, new.parent) != new.parents:
        raise WharfError(Kind.UNAVAILABLE, f"parent {new.parent} of snapshot {new.key} changed meanwhile: unavailable")
    now = time.time_ns()
    labels = json_labels.dump(new.labels)
    try:
        cursor = connection.execute(
            "INSERT INTO snapshot (number, namespace, snapshotter, key, kind, parent, created, updated, labels) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (new.number, call.namespace, new.snapshotter, new.key, new.kind.value, new.parent, now, now, labels),
        )
    except sqlite3.IntegrityError:
        raise WharfError(Kind.ALREADY_EXISTS, f'snapshot "{new.key}": already exists') from None
    leases.add_to_lease(connection, call, f"{leases.SNAPSHOTS}{new.snapshotter}", new.key)
    return cursor.lastrowid or 0


def reserve_number(connection: sqlite3.Connection) -> int:
    """A number for a snapshot that is recorded later. Numbers are never reused."""
    row = connection.execute(
        "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'snapshot' RETURNING seq"
    ).fetchone()
    if row is None:  # there never was a snapshot
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('snapshot', 1)")
        return 1
    return int(row[0])


def numbers(connection: sqlite3.Connection, name: str) -> set[int]:
    """The numbers of all snapshots of a snapshotter."""
    return {number for (number,) in connection.execute("SELECT number FROM snapshot WHERE snapshotter = ?", (name,))}


def delete_orphans(connection: sqlite3.Connection) -> None:
    """Deletes the records of layers whose parent has no record."""
    while connection.execute(_ORPHANS, {"committed": SnapshotKind.COMMITTED.value}).rowcount:
        pass


def fields(info: SnapshotInfo) -> filters.Fields:
    """What filters can compare."""

    def field(path: Sequence[str]) -> str | None:
        match path:
            case ["kind"]:
                return info.kind.name.lower()
            case ["name"]:
                return info.name
            case ["parent"]:
                return info.parent
            case ["labels", *rest]:
                return filters.in_labels(rest, info.labels)
        return None

    return field
