"""The objects of one namespace of the fake, and the state that its services share."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from engine.api import filters
from engine.api.pb import containers_pb2, content_pb2, images_pb2, leases_pb2, snapshots_pb2
from engine.api.types import to_timestamp
from engine.common.errors import not_found

M = TypeVar("M", bound=Message)


def now() -> Timestamp:
    return to_timestamp(time.time_ns())


@dataclass(slots=True)
class Blob:
    data: bytes
    info: content_pb2.Info


@dataclass(slots=True)
class Ingest:
    """A write that was begun. ``locked``: a client writes it now."""

    status: content_pb2.Status
    data: bytearray = field(default_factory=bytearray)
    locked: bool = False


@dataclass(slots=True)
class Snapshot:
    """``folder`` is the whole tree; views share their parent's."""

    info: snapshots_pb2.Info
    folder: Path


@dataclass(slots=True)
class Lease:
    message: leases_pb2.Lease
    resources: set[tuple[str, str]] = field(default_factory=set)  # (type, id)


@dataclass(slots=True)
class Namespace:
    labels: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, Blob] = field(default_factory=dict)
    ingests: dict[str, Ingest] = field(default_factory=dict)
    images: dict[str, images_pb2.Image] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    containers: dict[str, containers_pb2.Container] = field(default_factory=dict)
    snapshots: dict[tuple[str, str], Snapshot] = field(default_factory=dict)  # (snapshotter, key)

    @property
    def empty(self) -> bool:
        return not (self.blobs or self.images or self.containers or self.snapshots)


@dataclass(frozen=True, slots=True)
class Call:
    """The headers of one call. ``space`` is the namespace named ``namespace``."""

    namespace: str
    lease: str
    space: Namespace

    def add_to_lease(self, type: str, id: str) -> None:
        """Adds a resource to the lease of the call, if it has one.

        :raises WharfError: NOT_FOUND: there is no such lease.
        """
        if self.lease:
            if self.lease not in self.space.leases:
                raise not_found(f'lease "{self.lease}": not found')
            self.space.leases[self.lease].resources.add((type, id))


def field_of(message: object, path: Sequence[str]) -> str | None:
    """A field of a message as filters name it: ``target.digest``, ``labels.<name>``. None if it is not set."""
    if not isinstance(message, Message) or not path or path[0] not in message.DESCRIPTOR.fields_by_name:
        return None
    value: object = getattr(message, path[0])
    if isinstance(value, Message):
        return field_of(value, path[1:])
    if isinstance(value, Mapping):
        return filters.in_labels(path[1:], value)
    return str(value) if value else None


def matching(messages: Iterable[M], expressions: Sequence[str]) -> list[M]:
    """The messages that any of the filters matches."""
    match = filters.compile_all(expressions)
    return [message for message in messages if match(partial(field_of, message))]


def masked(stored: Message, update: Message, paths: Iterable[str]) -> None:
    """Copies the named fields (``labels``, ``labels.<name>``, ``target``) of ``update`` into ``stored``. An entry of a
    map with an empty value is removed."""
    for path in paths:
        name, _, key = path.partition(".")
        if key:
            entries = getattr(stored, name)
            if value := getattr(update, name).get(key, ""):
                entries[key] = value
            else:
                entries.pop(key, None)
        elif update.DESCRIPTOR.fields_by_name[name].message_type is None:
            setattr(stored, name, getattr(update, name))
        else:
            stored.ClearField(name)
            getattr(stored, name).MergeFrom(getattr(update, name))
