"""The types of the engine's API for the rest of Wharf: frozen dataclasses instead of protobuf messages.

Times are integers, nanoseconds since the epoch; 0 means never. Sizes are bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from engine.api.labels import STORED
from engine.api.pb import types_pb2
from engine.common.errors import invalid

_M = TypeVar("_M", bound=Message)

SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
RESOURCES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"

NAMESPACE_HEADER = "containerd-namespace"
LEASE_HEADER = "containerd-lease"


@dataclass(frozen=True, slots=True)
class AnyValue:
    """A value with its type's name: a protobuf's full name, or a URL for containerd's JSON types."""

    type_url: str
    value: bytes

    @classmethod
    def pack(cls, message: Message) -> "AnyValue":
        """Packs the message under its bare full name, as containerd's own clients do."""
        return cls(message.DESCRIPTOR.full_name, message.SerializeToString())

    @classmethod
    def from_message(cls, message: AnyMessage) -> "AnyValue | None":
        """None for an Any that is not set."""
        return cls(message.type_url, message.value) if message.type_url else None

    def unpack(self, kind: type[_M]) -> _M:
        """The value decoded as ``kind``; raises INVALID_ARGUMENT if it has another type or is malformed."""
        name = self.type_url.rpartition("/")[2]
        if name != kind.DESCRIPTOR.full_name:
            raise invalid(f"expected {kind.DESCRIPTOR.full_name}, got {self.type_url}")
        try:
            return kind.FromString(self.value)
        except ValueError as error:
            raise invalid(f"malformed {name}: {error}") from None

    def to_message(self) -> AnyMessage:
        return AnyMessage(type_url=self.type_url, value=self.value)


@dataclass(frozen=True, slots=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob. ``platform`` is known only from an index; it doesn't travel over gRPC."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None

    @classmethod
    def from_message(cls, message: types_pb2.Descriptor) -> "Descriptor":
        return cls(message.media_type, message.digest, message.size, dict(message.annotations))

    def to_message(self) -> types_pb2.Descriptor:
        return types_pb2.Descriptor(
            media_type=self.media_type, digest=self.digest, size=self.size, annotations=dict(self.annotations)
        )


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount(2); ``target`` is relative to the root of the mounts, empty for the root itself."""

    type: str
    source: str
    target: str = ""
    options: tuple[str, ...] = ()

    @classmethod
    def from_message(cls, message: types_pb2.Mount) -> "Mount":
        return cls(message.type, message.source, message.target, tuple(message.options))

    def to_message(self) -> types_pb2.Mount:
        return types_pb2.Mount(type=self.type, source=self.source, target=self.target, options=self.options)


@dataclass(frozen=True, slots=True)
class Version:
    version: str
    revision: str


@dataclass(frozen=True, slots=True)
class ContentInfo:
    digest: str
    size: int
    created_at_ns: int
    updated_at_ns: int
    labels: Mapping[str, str]

    @property
    def stored(self) -> int:
        """The bytes that it takes in the store: fewer than its size if it is re-created when it is read."""
        return int(self.labels.get(STORED, self.size))


@dataclass(frozen=True, slots=True)
class IngestStatus:
    """An open write: ``offset`` of ``total`` bytes are written (total 0: unknown)."""

    ref: str
    offset: int
    total: int
    expected: str
    started_at_ns: int
    updated_at_ns: int


@dataclass(frozen=True, slots=True)
class ImageRecord:
    name: str
    target: Descriptor
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at_ns: int = 0
    updated_at_ns: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    id: str
    created_at_ns: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LeaseResource:
    """``type``: ``content``, ``ingests`` or ``snapshots/<snapshotter>``."""

    id: str
    type: str


class SnapshotKind(Enum):
    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    kind: SnapshotKind
    name: str
    parent: str
    labels: Mapping[str, str]
    created_at_ns: int
    updated_at_ns: int


@dataclass(frozen=True, slots=True)
class Usage:
    size: int
    inodes: int


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """The record from which a task is created. ``spec`` is the OCI spec (a JSON object)."""

    id: str
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    runtime_name: str = "io.containerd.runc.v2"
    runtime_options: AnyValue | None = None
    spec: Mapping[str, object] | None = None
    snapshotter: str = ""
    snapshot_key: str = ""
    extensions: Mapping[str, AnyValue] = field(default_factory=dict)
    created_at_ns: int = 0
    updated_at_ns: int = 0


class TaskStatus(Enum):
    UNKNOWN = "unknown"
    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    PAUSING = "pausing"


@dataclass(frozen=True, slots=True)
class Exit:
    """The exit of a process; ``status`` is 128 + signal for a killed one. ``pid`` is 0 if the answer has none."""

    pid: int
    status: int
    exited_at_ns: int


@dataclass(frozen=True, slots=True)
class ProcessState:
    """``id`` is the container's id for its first process, else the exec's."""

    container_id: str
    id: str
    pid: int
    status: TaskStatus
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False
    exit_status: int = 0
    exited_at_ns: int = 0


@dataclass(frozen=True, slots=True)
class Metric:
    """``data`` is an ``io.containerd.cgroups.v1.Metrics`` or ``…v2.Metrics``."""

    id: str
    timestamp_ns: int
    data: AnyValue | None


@dataclass(frozen=True, slots=True)
class Event:
    """``event`` is the decoded message, or the bare value when its type isn't one of ours."""

    timestamp_ns: int
    namespace: str
    topic: str
    event: Message | AnyValue | None


@dataclass(frozen=True, slots=True)
class Plugin:
    type: str
    id: str
    exports: Mapping[str, str]
    capabilities: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    uuid: str
    pid: int
    pidns: int


def label_mask(labels: Mapping[str, str | None]) -> FieldMask:
    """The field mask of these labels only. containerd removes a label whose value is empty."""
    return FieldMask(paths=[f"labels.{name}" for name in labels])


def to_ns(stamp: Timestamp) -> int:
    """Nanoseconds since the epoch; 0 for an unset time and for Go's zero time (the year 1)."""
    return max(0, stamp.seconds * 1_000_000_000 + stamp.nanos)


def to_timestamp(ns: int) -> Timestamp:
    return Timestamp(seconds=ns // 1_000_000_000, nanos=ns % 1_000_000_000)
