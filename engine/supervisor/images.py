"""Image records: names of manifests and indexes."""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace

from google.protobuf.message import Message

from engine.api import filters
from engine.api.pb import images_pb2
from engine.api.types import Descriptor, ImageRecord
from engine.common.errors import Kind, WharfError, invalid, not_found
from engine.supervisor import namespaces
from engine.supervisor.events import EventBus
from engine.supervisor.names import UnknownField, check_digest, check_labels, masked_labels
from engine.supervisor.store import labels as json_labels
from engine.supervisor.store.database import Database

_COLUMNS = "name, media_type, digest, size, annotations, created, updated, labels"


class Images:
    def __init__(self, database: Database, bus: EventBus) -> None:
        self._db = database
        self._bus = bus

    def get(self, namespace: str, name: str) -> ImageRecord:
        """Raises NOT_FOUND when there is no such name."""
        return self._db.read(lambda connection: _get(connection, namespace, name))

    def list(self, namespace: str, expressions: Sequence[str]) -> list[ImageRecord]:
        match = filters.compile_all(expressions)

        def read(connection: sqlite3.Connection) -> list[ImageRecord]:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM image WHERE namespace = ? ORDER BY name", (namespace,))
            return [record for record in map(_record, rows) if match(_fields(record))]

        return self._db.read(read)

    async def create(self, namespace: str, record: ImageRecord, *, now_ns: int = 0) -> ImageRecord:
        """Raises ALREADY_EXISTS when the name is taken. ``now_ns`` replaces the current time, for reproducible
        records."""
        _check(record)
        now = now_ns or time.time_ns()
        record = replace(record, created_at_ns=now, updated_at_ns=now)

        def write(connection: sqlite3.Connection) -> None:
            namespaces.ensure(connection, namespace)
            try:
                connection.execute("INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(namespace, record))
            except sqlite3.IntegrityError:
                raise WharfError(Kind.ALREADY_EXISTS, f'image "{record.name}": already exists') from None

        message = images_pb2.ImageCreate(name=record.name, labels=dict(record.labels))
        await self._db.write(write, then=lambda _: self._publish(namespace, "create", message))
        return record

    async def update(self, namespace: str, record: ImageRecord, mask: Sequence[str], *, now_ns: int = 0) -> ImageRecord:
        """Replaces the fields that the mask names; without a mask all but the times."""
        if not record.name:
            raise invalid("image name is required for update: invalid argument")

        def write(connection: sqlite3.Connection) -> ImageRecord:
            old = _get(connection, namespace, record.name)
            new = replace(_masked(old, record, mask), created_at_ns=old.created_at_ns)
            new = replace(new, updated_at_ns=now_ns or time.time_ns())
            _check(new)
            connection.execute("REPLACE INTO image VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(namespace, new))
            return new

        def publish(new: ImageRecord) -> None:
            self._publish(namespace, "update", images_pb2.ImageUpdate(name=new.name, labels=dict(new.labels)))

        return await self._db.write(write, then=publish)

    async def delete(self, namespace: str, name: str) -> None:
        def write(connection: sqlite3.Connection) -> None:
            if not connection.execute("DELETE FROM image WHERE namespace = ? AND name = ?", (namespace, name)).rowcount:
                raise not_found(f'image "{name}": not found')

        message = images_pb2.ImageDelete(name=name)
        await self._db.write(write, then=lambda _: self._publish(namespace, "delete", message), frees=True)

    def _publish(self, namespace: str, verb: str, message: Message) -> None:
        self._bus.publish(namespace, f"/images/{verb}", message)


def _get(connection: sqlite3.Connection, namespace: str, name: str) -> ImageRecord:
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM image WHERE namespace = ? AND name = ?", (namespace, name)
    ).fetchone()
    if row is None:
        raise not_found(f'image "{name}": not found')
    return _record(row)


def _record(row: tuple[str, str, str, int, str, int, int, str]) -> ImageRecord:
    name, media_type, digest, size, annotations, created, updated, labels = row
    return ImageRecord(
        name=name,
        target=Descriptor(media_type, digest, size, json_labels.load(annotations)),
        labels=json_labels.load(labels),
        created_at_ns=created,
        updated_at_ns=updated,
    )


def _row(namespace: str, record: ImageRecord) -> tuple[str, str, str, str, int, str, int, int, str]:
    target = record.target
    return (
        namespace,
        record.name,
        target.media_type,
        target.digest,
        target.size,
        json_labels.dump(target.annotations),
        record.created_at_ns,
        record.updated_at_ns,
        json_labels.dump({name: value for name, value in record.labels.items() if value}),
    )


def _masked(old: ImageRecord, new: ImageRecord, mask: Sequence[str]) -> ImageRecord:
    if not mask:
        return new
    target = old.target
    label_paths = []
    for path in mask:
        if path == "target":
            target = new.target
        elif path == "annotations":
            target = replace(target, annotations=new.target.annotations)
        elif path.startswith("annotations."):
            name = path.removeprefix("annotations.")
            target = replace(target, annotations={**target.annotations, name: new.target.annotations.get(name, "")})
        else:
            label_paths.append(path)
    labels = old.labels
    if label_paths:
        labels = masked_labels(old.labels, new.labels, label_paths, UnknownField("image", old.name))
    return replace(old, target=target, labels=labels)


def _check(record: ImageRecord) -> None:
    if not record.name:
        raise invalid("image name must not be empty: invalid argument")
    check_labels(record.labels, "image.Labels")
    check_digest(record.target.digest)
    if record.target.size <= 0:
        raise invalid("Target.Size must be greater than zero: invalid argument")
    if not record.target.media_type:
        raise invalid("Target.MediaType must be set: invalid argument")


def _fields(record: ImageRecord) -> filters.Fields:
    def field(path: Sequence[str]) -> str | None:
        match path:
            case ["name"]:
                return record.name
            case ["target", "digest", *_]:
                return record.target.digest
            case ["target", "mediatype", *_]:
                return record.target.media_type
            case ["labels", *rest]:
                return filters.in_labels(rest, record.labels)
            case ["annotations", *rest]:
                return filters.in_labels(rest, record.target.annotations)
        return None

    return field
