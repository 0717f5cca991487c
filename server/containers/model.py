"""The record of one container: what was asked for, what was decided at create, and the state it is in.

The record lives in memory for every container and is written as one JSON document on each change of state
(``server/containers/store.py``). Times are nanoseconds since the epoch, 0 means never.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import orjson

from api_models.container import ContainerConfig, HostConfig
from api_models.network import EndpointSettings
from server.containers.layersize import LayerSize
from server.containers.plan import ContainerPlan, MountPoint

SCHEMA = 1


@dataclass(slots=True)
class Health:
    """Health state (written by health.py): status, failing streak and the last five probes as Docker shows."""

    status: str = "starting"
    failing_streak: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """Where a container is in its life.

    As in Docker a paused container is also running, and so is one that waits for its next restart.
    ``removing`` is of this daemon's life only and never stored. ``committing``: it is paused for a commit only, and
    goes on at the next start if the daemon dies in the middle.
    """

    running: bool = False
    paused: bool = False
    committing: bool = False
    restarting: bool = False
    oom_killed: bool = False
    removing: bool = False
    dead: bool = False
    pid: int = 0
    #: When the process with this pid was started, in clock ticks since boot: a pid alone may be another's later.
    pid_started: int = 0
    exit_code: int = 0
    error: str = ""
    started_ns: int = 0
    finished_ns: int = 0
    health: Health | None = None

    @property
    def word(self) -> str:
        """One of created, running, paused, restarting, removing, exited, dead."""
        if self.running:
            return "paused" if self.paused else "restarting" if self.restarting else "running"
        if self.removing:
            return "removing"
        if self.dead:
            return "dead"
        return "exited" if self.started_ns else "created"


@dataclass(slots=True, eq=False, kw_only=True)
class Container(ContainerPlan):
    """A container: its plan, what was decided at create besides, and its state. What the networks made of
    ``networking`` is theirs to tell (``Networks.settings``). ``lock`` serialises everything that changes the state.
    """

    image_manifest: dict[str, Any] | None = None
    platform: str = "linux"
    driver: str = "overlayfs"
    log_path: str = ""
    restart_count: int = 0
    manually_stopped: bool = False
    manually_restarted: bool = False
    state: State = field(default_factory=State)

    # Of this daemon's life only.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    exec_ids: set[str] = field(default_factory=set, repr=False)
    # What is known of the size of its writable layer.
    layer: LayerSize = field(default_factory=LayerSize, repr=False)
    # Clients that attached before the start: each is called between create and start of the task.
    before_start: list[Callable[[], Awaitable[None]]] = field(default_factory=list, repr=False)
    #: Whether its task is there though it doesn't run yet: who attaches now joins it at once.
    joinable: bool = field(default=False, repr=False)
    row: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def labels(self) -> Mapping[str, str]:
        return self.config.labels or {}

    @property
    def running(self) -> bool:
        return self.state.running

    def to_doc(self) -> bytes:
        """The record as it is stored."""
        doc: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        doc["schema"] = SCHEMA
        doc["config"] = self.config.wire()
        doc["host_config"] = self.host_config.wire()
        doc["networking"] = {name: endpoint.wire() for name, endpoint in self.networking.items()}
        doc["mounts"] = {path: _fields(mount) for path, mount in self.mounts.items()}
        state = _fields(self.state)
        del state["removing"]
        state["health"] = _fields(self.state.health) if self.state.health else None
        doc["state"] = state
        return orjson.dumps(doc)

    @classmethod
    def from_doc(cls, doc: bytes) -> Self:
        """The record back from its stored form."""
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


_RICH = frozenset(("config", "host_config", "networking", "mounts", "state"))
_LIVE = frozenset(("lock", "manually_restarted", "exec_ids", "row", "rootfs", "layer", "before_start", "joinable"))
_PLAIN = tuple(field.name for field in fields(Container) if field.name not in _RICH | _LIVE)


def _fields(record: MountPoint | State | Health) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def event_attributes(container: Container, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every container event carries: the labels, then image and name, then ``extra``."""
    attributes = {**(extra or {}), **container.labels}
    if container.config.image:
        attributes["image"] = container.config.image
    attributes["name"] = container.name
    return attributes
