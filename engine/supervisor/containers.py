"""Container records. They are stored as the client wrote them (a protobuf): the spec and the extensions may have any
type, and the supervisor doesn't parse them here."""

import sqlite3
import time
from collections.abc import Sequence

from google.protobuf.message import Message

from engine.api import filters
from engine.api.pb import containers_pb2 as pb
from engine.api.pb import event_messages_pb2 as events_pb
from engine.api.types import to_timestamp
from engine.common.errors import Kind, WharfError, invalid, not_found
from engine.supervisor import namespaces
from engine.supervisor.events import EventBus
from engine.supervisor.names import UnknownField, check_identifier, check_labels, masked_labels
from engine.supervisor.store import labels as json_labels
from engine.supervisor.store.database import Database

#: The fields besides labels and extensions that a mask may name. Clients spell paths as containerd's Go code does.
_REPLACED = {"image": "image", "snapshotkey": "snapshot_key", "snapshot_key": "snapshot_key"}


class Containers:
    def __init__(self, database: Database, bus: EventBus) -> None:
        self._db = database
        self._bus = bus

    def get(self, namespace: str, id: str) -> pb.Container:
        """Raises NOT_FOUND when there is no such record."""
        return self._db.read(lambda connection: _get(connection, namespace, id))

    def list(self, namespace: str, expressions: Sequence[str]) -> list[pb.Container]:
        match = filters.compile_all(expressions)

        def read(connection: sqlite3.Connection) -> list[pb.Container]:
            rows = connection.execute("SELECT record FROM container WHERE namespace = ? ORDER BY id", (namespace,))
            records = [pb.Container.FromString(record) for (record,) in rows]
            return [record for record in records if match(_fields(record))]

        return self._db.read(read)

    async def create(self, namespace: str, container: pb.Container) -> pb.Container:
        """Raises ALREADY_EXISTS when the id is taken."""
        record = pb.Container()
        record.CopyFrom(container)
        _check(record)
        _drop_empty_labels(record)
        now = to_timestamp(time.time_ns())
        record.created_at.CopyFrom(now)
        record.updated_at.CopyFrom(now)

        def write(connection: sqlite3.Connection) -> None:
            namespaces.ensure(connection, namespace)
            try:
                connection.execute("INSERT INTO container VALUES (?, ?, ?, ?, ?, ?)", _row(namespace, record))
            except sqlite3.IntegrityError:
                raise WharfError(Kind.ALREADY_EXISTS, f'container "{record.id}": already exists') from None

        message = events_pb.ContainerCreate(
            id=record.id,
            image=record.image,
            runtime=events_pb.ContainerCreate.Runtime(name=record.runtime.name, options=record.runtime.options),
        )
        await self._db.write(write, then=lambda _: self._publish(namespace, "create", message))
        return record

    async def update(self, namespace: str, container: pb.Container, mask: Sequence[str]) -> pb.Container:
        """Replaces the fields that the mask names; without a mask labels, spec, extensions, image and snapshot key."""
        if not container.id:
            raise invalid("must specify a container id: invalid argument")
        paths = mask or ("labels", "spec", "extensions", "image", "snapshotkey")

        def write(connection: sqlite3.Connection) -> pb.Container:
            record = _get(connection, namespace, container.id)
            if not mask:
                _check_unchanged(record, container)
            _apply_mask(record, container, paths)
            _check(record)
            record.updated_at.CopyFrom(to_timestamp(time.time_ns()))
            connection.execute("REPLACE INTO container VALUES (?, ?, ?, ?, ?, ?)", _row(namespace, record))
            return record

        def publish(record: pb.Container) -> None:
            message = events_pb.ContainerUpdate(
                id=record.id, image=record.image, labels=record.labels, snapshot_key=record.snapshot_key
            )
            self._publish(namespace, "update", message)

        return await self._db.write(write, then=publish)

    async def delete(self, namespace: str, id: str) -> None:
        def write(connection: sqlite3.Connection) -> None:
            found = connection.execute("DELETE FROM container WHERE namespace = ? AND id = ?", (namespace, id))
            if not found.rowcount:
                raise _missing(namespace, id)

        message = events_pb.ContainerDelete(id=id)
        await self._db.write(write, then=lambda _: self._publish(namespace, "delete", message), frees=True)

    def _publish(self, namespace: str, verb: str, message: Message) -> None:
        self._bus.publish(namespace, f"/containers/{verb}", message)


def _missing(namespace: str, id: str) -> WharfError:
    return not_found(f'container "{id}" in namespace "{namespace}": not found')


def _get(connection: sqlite3.Connection, namespace: str, id: str) -> pb.Container:
    row = connection.execute("SELECT record FROM container WHERE namespace = ? AND id = ?", (namespace, id)).fetchone()
    if row is None:
        raise _missing(namespace, id)
    return pb.Container.FromString(row[0])


def _row(namespace: str, record: pb.Container) -> tuple[str, str, str, str, str, bytes]:
    labels = json_labels.dump(record.labels)
    return (
        namespace,
        record.id,
        record.snapshotter,
        record.snapshot_key,
        labels,
        record.SerializeToString(),
    )


def _check(record: pb.Container) -> None:
    check_identifier(record.id, "container.ID")
    if "" in record.extensions:
        raise invalid("container.Extension keys must not be zero-length: invalid argument")
    check_labels(record.labels, "containers.Labels")
    if not record.runtime.name:
        raise invalid("container.Runtime.Name must be set: invalid argument")
    if not record.spec.value:
        raise invalid("container.Spec must be set: invalid argument")
    if record.snapshot_key and not record.snapshotter:
        raise invalid("container.Snapshotter must be set when container.SnapshotKey is set: invalid argument")


def _check_unchanged(record: pb.Container, container: pb.Container) -> None:
    if container.snapshotter and container.snapshotter != record.snapshotter:
        raise invalid("container.Snapshotter field is immutable: invalid argument")
    if container.runtime.name and container.runtime.name != record.runtime.name:
        raise invalid("container.Runtime.Name field is immutable: invalid argument")


def _drop_empty_labels(record: pb.Container) -> None:
    for name in [name for name, value in record.labels.items() if not value]:
        del record.labels[name]


def _apply_mask(record: pb.Container, new: pb.Container, paths: Sequence[str]) -> None:
    unknown = UnknownField("container", record.id)
    label_paths = []
    for path in paths:
        if path == "labels" or path.startswith("labels."):
            label_paths.append(path)
        elif path == "extensions":
            record.ClearField("extensions")
            for name in new.extensions:
                record.extensions[name].CopyFrom(new.extensions[name])
        elif path.startswith("extensions."):
            name = path.removeprefix("extensions.")
            if name in new.extensions:
                record.extensions[name].CopyFrom(new.extensions[name])
            else:
                record.extensions.pop(name, None)
        elif path == "spec":
            record.spec.CopyFrom(new.spec)
        elif path in _REPLACED:
            setattr(record, _REPLACED[path], getattr(new, _REPLACED[path]))
        else:
            raise unknown(path)
    if label_paths:
        labels = masked_labels(record.labels, new.labels, label_paths, unknown)
        record.ClearField("labels")
        record.labels.update(labels)


def _fields(record: pb.Container) -> filters.Fields:
    def field(path: Sequence[str]) -> str | None:
        match path:
            case ["id"]:
                return record.id
            case ["runtime", "name"]:
                return record.runtime.name or None
            case ["image"]:
                return record.image or None
            case ["labels", *rest]:
                return filters.in_labels(rest, record.labels)
        return None

    return field
