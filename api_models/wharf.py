"""The objects of ``/wharf/v1``, the API that the engine has beside Docker's.

Times are RFC 3339, sizes are bytes and durations are seconds, unless the name of a field has another unit. The
description of a field is part of the OpenAPI description (``server/http/openapi.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from api_models.base import OMIT, Int64, Text
from api_models.record import Record, StringMap


def _about(text: str) -> Any:
    return Field(description=text)


#: The rights or the limits of a role, with the names of ``policy.toml``.
Rules = Mapping[str, Any]
_Limits = Annotated[Rules | None, _about("The limits of the role; an absent one does not exist; null: no role")]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSummary(Record):
    """A user, and how much belongs to the user. The administrators together are the user with the empty name."""

    user: Text = ""
    administrator: bool = False
    role: Annotated[Text, _about("Empty: the policy gives the user no role")] = ""
    containers: Int64 = 0
    running: Annotated[Int64, _about("Those of the containers that run")] = 0
    volumes: Int64 = 0
    networks: Annotated[Int64, _about("Without the predefined ones")] = 0
    images: Annotated[Int64, _about("Own images, without the published ones of the administrators")] = 0
    limits: _Limits = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerPolicy(Record):
    """What the policy allows the caller."""

    user: Text = ""
    administrator: bool = False
    role: Text = ""
    scope: Annotated[Text, _about("The scope of the socket; empty: it has none")] = ""
    rights: Annotated[Rules | None, _about("The rights of the role; null: an administrator has all")] = None
    limits: _Limits = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine(Record):
    """One request, as it is in the audit log."""

    time: Annotated[Text, Field(alias="time")] = ""
    user: Annotated[Text, Field(alias="user", description="Empty: the policy has no role for the client")] = ""
    owner: Annotated[Text, Field(alias="owner", description="The user, with the job socket behind a colon")] = ""
    uid: Annotated[Int64, Field(alias="uid", description="-1: the client is no process of this host")] = -1
    peer: Annotated[Text, Field(alias="peer", description="Path of the socket, or address of the client")] = ""
    method: Annotated[Text, Field(alias="method")] = ""
    path: Annotated[Text, Field(alias="path")] = ""
    query: Annotated[StringMap | None, Field(alias="query", description="Parameters that name objects")] = None
    status: Annotated[Int64, Field(alias="status", description="101: the connection was taken over")] = 0
    seconds: Annotated[float, Field(alias="seconds")] = 0.0
    error: Annotated[Text, OMIT, Field(alias="error")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHolder(Record):
    """Who has a GPU. The container is shown to those for whom it exists."""

    user: Text = ""
    since: Text = ""
    container: Annotated[Text, OMIT, _about("Its id")] = ""
    container_name: Annotated[Text, OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu(Record):
    """A device that containers request with ``--gpus`` or ``--device``."""

    name: Annotated[Text, _about("Of CDI, such as nvidia.com/gpu=0")] = ""
    names: Annotated[tuple[Text, ...], _about("All names of CDI that it has")] = ()
    partition: Annotated[bool, _about("Whether it is a partition of a GPU")] = False
    shared: Annotated[bool, _about("Whether several containers may have it at a time")] = False
    holders: tuple[GpuHolder, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry(Record):
    """A start that waits for GPUs. The container is shown to those for whom it exists."""

    place: Annotated[Int64, _about("1: the next")] = 0
    user: Text = ""
    gpus: Annotated[tuple[Text, ...], _about("Names that it requests")] = ()
    counts: Annotated[Mapping[str, Int64] | None, _about("How many more, by kind (nvidia.com/gpu); -1: all")] = None
    since: Text = ""
    reason: Annotated[Text, _about("What it waits for")] = ""
    container: Annotated[Text, OMIT, _about("Its id")] = ""
    container_name: Annotated[Text, OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow(Record):
    """What the containers of a user, or one of them, have used on one day."""

    day: Annotated[Text, _about("Such as 2026-01-31, in UTC")] = ""
    user: Text = ""
    cpu_seconds: float = 0.0
    memory_gib_hours: float = 0.0
    gpu_hours: float = 0.0
    disk: Annotated[Int64, _about("The most bytes of writable layers")] = 0
    bytes_in: Int64 = 0
    bytes_out: Int64 = 0
    container: Annotated[Text, OMIT, _about("Its id")] = ""
    container_name: Annotated[Text, OMIT] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketLimits(Record):
    """What all containers of a job socket may use together; they can only be narrower than the role's."""

    cpus: float | None = None
    memory: Int64 | None = None
    pids: Int64 | None = None
    containers: Int64 | None = None
    disk: Int64 | None = None
    gpus: Int64 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketCreateRequest(Record):
    """The body of ``POST /wharf/v1/sockets``. What is created through the socket exists only for its clients, and is
    removed when the socket is removed, its time to live ends, or its holder ends."""

    go_name: ClassVar[str] = "wharf.SocketCreateRequest"

    labels: StringMap | None = None
    ttl: Annotated[Int64, Field(alias="TTL", description="0: until it is removed or its holder ends")] = 0
    holder: Annotated[Int64, _about("The pid of a process of the caller; 0: none")] = 0
    limits: SocketLimits = SocketLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSocket(Record):
    """A job socket."""

    id: Text = ""
    path: Annotated[Text, _about("On the host, for DOCKER_HOST or as a bind at /var/run/docker.sock")] = ""
    user: Text = ""
    labels: StringMap | None = None
    created: Text = ""
    expires: Annotated[Text, _about("Empty: never")] = ""
    holder: Annotated[Int64, _about("The pid of the process that holds it; 0: none")] = 0
    limits: SocketLimits = SocketLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelinePhase(Record):
    """A part of an operation. Phases that ran in parallel overlap."""

    name: Text = ""
    begin: Annotated[float, _about("Seconds since the operation began")] = 0.0
    end: Annotated[float, _about("Seconds since the operation began")] = 0.0
    within: Annotated[Text, OMIT, _about("The name of the phase that this one is a part of")] = ""
    waits_for: Annotated[Text, OMIT, _about("What the operation waited for; absent: it did work")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline(Record):
    """What took how long in an operation that has ended."""

    operation: Annotated[Text, _about("create, start, exit, pull or build")] = ""
    subject: Annotated[Text, _about("Id of the container, reference of the image, or ref of the build")] = ""
    owner: Annotated[Text, _about("The user, with the job socket behind a colon; empty: an administrator")] = ""
    began: Text = ""
    seconds: float = 0.0
    result: Annotated[Text, _about("done, failed or cancelled")] = ""
    error: Annotated[Text, OMIT, _about("Why it failed")] = ""
    phases: Annotated[tuple[TimelinePhase, ...], _about("In the order of their ends")] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLogin(Record):
    """A link to the page. Its token is for one login, within 60 seconds."""

    url: Annotated[Text, OMIT, _about("Absent: the page is served on a unix socket")] = ""
    socket: Annotated[Text, OMIT, _about("The path of that unix socket")] = ""
    path: Annotated[Text, _about("The link without scheme and host")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry(Record):
    """An entry of a directory of a container."""

    name: Text = ""
    type: Annotated[Text, _about("file, directory, symlink, fifo, socket or device")] = ""
    size: Int64 = 0
    mode: Annotated[Text, _about("As ls writes it")] = ""
    uid: Annotated[Int64, _about("In the container")] = 0
    gid: Annotated[Int64, _about("In the container")] = 0
    modified: Text = ""
    target: Annotated[Text, OMIT, _about("Where a symbolic link points to")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory(Record):
    """A directory of a container."""

    entries: Annotated[tuple[DirectoryEntry, ...], _about("Directories first, by name")] = ()
    truncated: Annotated[bool, _about("There are more entries")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayer(Record):
    """An unpacked layer."""

    id: Annotated[Text, _about("Its chain id: equal in all images that share it")] = ""
    size: Int64 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayers(Record):
    """The unpacked layers of an image."""

    id: Text = ""
    layers: Annotated[tuple[ImageLayer, ...], _about("The lowest first")] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Build(Record):
    """A build in the history."""

    ref: Text = ""
    name: Annotated[Text, _about("The image, the source or the target; empty: it has none")] = ""
    state: Annotated[Text, _about("running, completed, failed or cancelled")] = ""
    began: Text = ""
    ended: Annotated[Text, OMIT, _about("Absent: it runs")] = ""
    steps: Int64 = 0
    cached_steps: Int64 = 0
    error: Annotated[Text, OMIT, _about("Why it failed")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMessage(Record):
    """Why a request failed."""

    message: Annotated[Text, Field(alias="message")] = ""
