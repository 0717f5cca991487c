"""Leases and their resources. Every write under a lease adds what it creates to the lease, in the same transaction."""

import builtins
import sqlite3
import time
from collections.abc import Mapping, Sequence

from engine.api import filters
from engine.api.types import Lease, LeaseResource
from engine.common.errors import Kind, WharfError, invalid, not_found
from engine.supervisor import namespaces
from engine.supervisor.call import Call
from engine.supervisor.names import check_labels
from engine.supervisor.store import labels as json_labels
from engine.supervisor.store.database import Database

CONTENT = "content"
INGESTS = "ingests"
SNAPSHOTS = "snapshots/"


def add_to_lease(connection: sqlite3.Connection, call: Call, type: str, id: str) -> None:
    """Inside a write: adds the resource to the call's lease, if it has one. NOT_FOUND for an unknown lease."""
    if call.lease:
        _insert(connection, call.namespace, call.lease, type, id)


def remove_from_leases(connection: sqlite3.Connection, namespace: str, type: str, id: str) -> None:
    """Inside a write: removes a deleted resource from all leases."""
    connection.execute("DELETE FROM lease_resource WHERE namespace = ? AND type = ? AND id = ?", (namespace, type, id))


def _insert(connection: sqlite3.Connection, namespace: str, lease: str, type: str, id: str) -> None:
    try:
        connection.execute("INSERT OR IGNORE INTO lease_resource VALUES (?, ?, ?, ?)", (namespace, lease, type, id))
    except sqlite3.IntegrityError:
        raise not_found(f'lease "{lease}": not found') from None


class Leases:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def create(self, namespace: str, id: str, labels: Mapping[str, str]) -> Lease:
        """Raises ALREADY_EXISTS when the id is taken."""
        if not id:
            raise invalid("lease id must be provided: invalid argument")
        check_labels(labels)
        lease = Lease(id, time.time_ns(), dict(labels))

        def write(connection: sqlite3.Connection) -> None:
            namespaces.ensure(connection, namespace)
            try:
                connection.execute(
                    "INSERT INTO lease VALUES (?, ?, ?, ?)",
                    (namespace, id, lease.created_at_ns, json_labels.dump(labels)),
                )
            except sqlite3.IntegrityError:
                raise WharfError(Kind.ALREADY_EXISTS, f'lease "{id}": already exists') from None

        await self._db.write(write)
        return lease

    async def delete(self, namespace: str, id: str) -> None:
        def write(connection: sqlite3.Connection) -> None:
            if not connection.execute("DELETE FROM lease WHERE namespace = ? AND id = ?", (namespace, id)).rowcount:
                raise not_found(f'lease "{id}": not found')

        await self._db.write(write, frees=True)

    def list(self, namespace: str, expressions: Sequence[str]) -> "builtins.list[Lease]":
        match = filters.compile_all(expressions)

        def read(connection: sqlite3.Connection) -> list[Lease]:
            rows = connection.execute("SELECT id, created, labels FROM lease WHERE namespace = ?", (namespace,))
            leases = [Lease(id, created, json_labels.load(labels)) for id, created, labels in rows]
            return [lease for lease in leases if match(_fields(lease))]

        return self._db.read(read)

    async def add_resource(self, namespace: str, lease: str, resource: LeaseResource) -> None:
        """Adds a resource, which need not exist yet."""
        _check(resource)
        await self._db.write(lambda connection: _insert(connection, namespace, lease, resource.type, resource.id))

    async def delete_resource(self, namespace: str, lease: str, resource: LeaseResource) -> None:
        _check(resource)

        def write(connection: sqlite3.Connection) -> None:
            _must_exist(connection, namespace, lease)
            connection.execute(
                "DELETE FROM lease_resource WHERE namespace = ? AND lease = ? AND type = ? AND id = ?",
                (namespace, lease, resource.type, resource.id),
            )

        await self._db.write(write)

    def resources(self, namespace: str, lease: str) -> "builtins.list[LeaseResource]":
        def read(connection: sqlite3.Connection) -> "builtins.list[LeaseResource]":
            _must_exist(connection, namespace, lease)
            rows = connection.execute(
                "SELECT id, type FROM lease_resource WHERE namespace = ? AND lease = ?", (namespace, lease)
            )
            return [LeaseResource(id, type) for id, type in rows]

        return self._db.read(read)


def _must_exist(connection: sqlite3.Connection, namespace: str, id: str) -> None:
    if not connection.execute("SELECT 1 FROM lease WHERE namespace = ? AND id = ?", (namespace, id)).fetchone():
        raise not_found(f'lease "{id}": not found')


def _check(resource: LeaseResource) -> None:
    if not resource.id:
        raise invalid("lease resource id must not be empty")
    if resource.type in (CONTENT, INGESTS):
        return
    if not resource.type.startswith(SNAPSHOTS) or resource.type == SNAPSHOTS:
        raise WharfError(Kind.NOT_IMPLEMENTED, f"resource type {resource.type}: not implemented")


def _fields(lease: Lease) -> filters.Fields:
    def field(path: Sequence[str]) -> str | None:
        if path[0] == "id":
            return lease.id
        if path[0] == "labels":
            return filters.in_labels(path[1:], lease.labels)
        return None

    return field
