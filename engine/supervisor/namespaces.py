"""Namespaces: created by a client, or by the first object written into them."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import Message

from engine.api.pb import event_messages_pb2 as events_pb
from engine.common.errors import Kind, WharfError, not_found
from engine.supervisor.events import EventBus
from engine.supervisor.names import UnknownField, check_identifier, check_labels, masked_labels
from engine.supervisor.store import labels as json_labels
from engine.supervisor.store.database import Database


def ensure(connection: sqlite3.Connection, namespace: str) -> None:
    """Inside a write: creates the namespace if it doesn't exist."""
    connection.execute("INSERT OR IGNORE INTO namespace VALUES (?, '{}')", (namespace,))


#: The kinds of objects in a namespace, as named when its deletion is refused.
_CONTENTS = (
    ("images", "SELECT 1 FROM image WHERE namespace = ? LIMIT 1"),
    ("blobs", "SELECT 1 FROM content WHERE namespace = ? LIMIT 1"),
    ("containers", "SELECT 1 FROM container WHERE namespace = ? LIMIT 1"),
    ("snapshots", "SELECT 1 FROM snapshot WHERE namespace = ? LIMIT 1"),
)


class Namespaces:
    def __init__(self, database: Database, bus: EventBus) -> None:
        self._db = database
        self._bus = bus

    def get(self, name: str) -> dict[str, str]:
        """Its labels; none if it doesn't exist yet, as containerd answers."""

        def read(connection: sqlite3.Connection) -> dict[str, str]:
            row = connection.execute("SELECT labels FROM namespace WHERE name = ?", (name,)).fetchone()
            return json_labels.load(row[0]) if row is not None else {}

        return self._db.read(read)

    def list(self) -> dict[str, dict[str, str]]:
        def read(connection: sqlite3.Connection) -> dict[str, dict[str, str]]:
            rows = connection.execute("SELECT name, labels FROM namespace ORDER BY name")
            return {name: json_labels.load(labels) for name, labels in rows}

        return self._db.read(read)

    async def create(self, name: str, labels: Mapping[str, str]) -> None:
        check_identifier(name)
        check_labels(labels)

        def write(connection: sqlite3.Connection) -> None:
            try:
                connection.execute("INSERT INTO namespace VALUES (?, ?)", (name, json_labels.dump(labels)))
            except sqlite3.IntegrityError:
                raise WharfError(Kind.ALREADY_EXISTS, f'namespace "{name}": already exists') from None

        await self._db.write(
            write, then=self._event(name, "create", events_pb.NamespaceCreate(name=name, labels=dict(labels)))
        )

    async def update(self, name: str, labels: Mapping[str, str], mask: Sequence[str]) -> dict[str, str]:
        check_labels(labels)

        def write(connection: sqlite3.Connection) -> dict[str, str]:
            new = masked_labels(_labels(connection, name), labels, mask, UnknownField("namespace", name))
            connection.execute("UPDATE namespace SET labels = ? WHERE name = ?", (json_labels.dump(new), name))
            return new

        message = events_pb.NamespaceUpdate(name=name, labels=dict(labels))
        return await self._db.write(write, then=self._event(name, "update", message))

    async def delete(self, name: str) -> None:
        """FAILED_PRECONDITION while it has images, blobs, containers or snapshots; its leases are deleted with it."""

        def write(connection: sqlite3.Connection) -> None:
            _labels(connection, name)
            found = [what for what, query in _CONTENTS if connection.execute(query, (name,)).fetchone()]
            if found:
                raise WharfError(
                    Kind.FAILED_PRECONDITION,
                    f'namespace "{name}" must be empty, but it still has {", ".join(found)}: failed precondition',
                )
            connection.execute("DELETE FROM lease WHERE namespace = ?", (name,))
            connection.execute("DELETE FROM namespace WHERE name = ?", (name,))

        await self._db.write(write, then=self._event(name, "delete", events_pb.NamespaceDelete(name=name)))

    def _event(self, name: str, verb: str, message: Message) -> Callable[[object], None]:
        return lambda _: self._bus.publish(name, f"/namespaces/{verb}", message)


def _labels(connection: sqlite3.Connection, name: str) -> dict[str, str]:
    row = connection.execute("SELECT labels FROM namespace WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise not_found(f'namespace "{name}": not found')
    return json_labels.load(row[0])
