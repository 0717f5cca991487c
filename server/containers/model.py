"""The record of one container: its configuration, what create has resolved, and its state.

The daemon keeps every record in memory and writes it as one JSON document on each change of state
(``server/containers/store.py``). Times are nanoseconds since the epoch; 0: never.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import orjson

from api_models.container import ContainerConfig, HostConfig
from api_models.network import EndpointSettings
from engine.common.timeline import Record
from server.containers.encoding import Encoded
from server.containers.layersize import LayerSize
from server.containers.plan import ContainerPlan, MountPoint

SCHEMA = 1


@dataclass(slots=True)
class Health:
    """``State.Health`` of inspect: the status, the failing streak and the last five results, in the API's form.

    ``server/containers/exec/health.py`` writes it.
    """

    status: str = "starting"
    failing_streak: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """The state of a container.

    As in Docker, ``running`` is also true while the container is paused or waits for its next restart. ``removing`` is
    not stored. ``committing``: a commit has paused the container; if the daemon dies meanwhile, the next daemon resumes
    it.
    """

    running: bool = False
    paused: bool = False
    committing: bool = False
    restarting: bool = False
    oom_killed: bool = False
    removing: bool = False
    dead: bool = False
    pid: int = 0
    #: When the process ``pid`` was started, in clock ticks since boot: the kernel may reuse the pid.
    pid_started: int = 0
    exit_code: int = 0
    error: str = ""
    started_ns: int = 0
    finished_ns: int = 0
    health: Health | None = None

    @property
    def status(self) -> str:
        """``State.Status`` of inspect: created, running, paused, restarting, removing, exited or dead."""
        if self.running:
            return "paused" if self.paused else "restarting" if self.restarting else "running"
        if self.removing:
            return "removing"
        if self.dead:
            return "dead"
        return "exited" if self.started_ns else "created"


@dataclass(slots=True, eq=False, kw_only=True)
class Container(ContainerPlan):
    """A container: its plan, what else create has resolved, and its state.

    The actual addresses of its endpoints are in ``Networks.settings``. Every change of the state is made under
    ``lock``.
    """

    image_manifest: dict[str, Any] | None = None
    platform: str = "linux"
    driver: str = "overlayfs"
    log_path: str = ""
    restart_count: int = 0
    #: It is a task of a swarm's service.
    managed: bool = False
    #: The GPUs that it has, by their CDI names, on an engine with a policy (``server.gpus``).
    gpus: list[str] = field(default_factory=list)
    manually_stopped: bool = False
    manually_restarted: bool = False
    state: State = field(default_factory=State)

    # Not stored:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    exec_ids: set[str] = field(default_factory=set, repr=False)
    layer: LayerSize = field(default_factory=LayerSize, repr=False)
    #: Called between the task's creation and its start: clients that attached before the start join the stdio.
    before_start: list[Callable[[], Awaitable[None]]] = field(default_factory=list, repr=False)
    #: The task is created, but not started: a client that attaches now joins the stdio at once.
    joinable: bool = field(default=False, repr=False)
    #: During a start: pid and start time of the task's first process, as in ``State.pid`` and ``pid_started`` later.
    starting: tuple[int, int] = field(default=(0, 0), repr=False)
    #: The cached row of ``docker ps`` (``server/containers/inspect/listing.py``).
    row: dict[str, Any] | None = field(default=None, repr=False)
    #: The timelines of the last create, start and exit that this daemon has made, in the order of their ends.
    timelines: tuple[Record, ...] = field(default=(), repr=False)

    @property
    def labels(self) -> Mapping[str, str]:
        return self.config.labels or {}

    @property
    def running(self) -> bool:
        return self.state.running

    def to_doc(self) -> bytes:
        """The stored form of the record: JSON."""
        doc: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        doc["schema"] = SCHEMA
        doc["config"] = orjson.Fragment(_encoded.json(self.config))
        doc["host_config"] = orjson.Fragment(_encoded.json(self.host_config))
        doc["networking"] = {name: endpoint.wire() for name, endpoint in self.networking.items()}
        doc["mounts"] = {path: _fields(mount) for path, mount in self.mounts.items()}
        state = _fields(self.state)
        del state["removing"]
        state["health"] = _fields(self.state.health) if self.state.health else None
        doc["state"] = state
        return orjson.dumps(doc)

    @classmethod
    def from_doc(cls, doc: bytes) -> Self:
        """The record from its stored form.

        :raises ValueError, KeyError, TypeError: the document isn't a record.
        """
        raw: dict[str, Any] = orjson.loads(doc)
        state = dict(raw["state"])
        if state["health"] is not None:
            state["health"] = Health(**state["health"])
        return cls(
            **{name: raw[name] for name in _PLAIN if name in raw},
            config=ContainerConfig.parse(raw["config"]),
            host_config=HostConfig.parse(raw["host_config"]),
            networking={name: EndpointSettings.parse(value) for name, value in raw["networking"].items()},
            mounts={path: MountPoint(**value) for path, value in raw["mounts"].items()},
            state=State(**state),
        )


#: Fields with a JSON form of their own; fields that are not stored; all others, which are JSON values.
_OBJECTS = frozenset(("config", "host_config", "networking", "mounts", "state"))
_NOT_STORED = frozenset(
    (
        "lock",
        "manually_restarted",
        "exec_ids",
        "row",
        "rootfs",
        "layer",
        "before_start",
        "joinable",
        "starting",
        "timelines",
    )
)
_encoded = Encoded()
_PLAIN = tuple(field.name for field in fields(Container) if field.name not in _OBJECTS | _NOT_STORED)


def _fields(record: MountPoint | State | Health) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def event_attributes(container: Container, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The attributes of a container event: the labels, the image, the name, and ``extra``, which labels override."""
    attributes = {**(extra or {}), **container.labels}
    if container.config.image:
        attributes["image"] = container.config.image
    attributes["name"] = container.name
    return attributes
