"""What the verbs of this package work with: one object, made once by the composition root."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from api_models.container import LogConfig
from api_models.resources import Ulimit
from engine.api.client import Engine
from engine.api.types import Exit
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.containers.hooks import Hooks
from server.containers.host.limits import HostLimits
from server.containers.host.remap import Remap
from server.containers.host.runtimes import Runtimes
from server.containers.model import Container, event_attributes
from server.containers.neighbours import Bus, Images, Networks, Store, Volumes
from server.containers.plan import ContainerPlan
from server.containers.registry import Registry
from server.containers.restarts import Restarts
from server.containers.spec.host import HostFacts
from server.containers.stdio_backend import Embedded, StdioBackend
from server.containers.waiters import Waiters

log = logging.getLogger(__name__)

_T = TypeVar("_T")

timeouts.define("container.save", 1.0)  # between two attempts to write a record that a full disk refused

#: Marks what this daemon made in the engine, so that recover takes nothing of another client's away.
ROOT_LABEL = "io.wharf/root"
#: Keeps a snapshot from being collected for as long as it is there.
GC_ROOT = "containerd.io/gc.root"


@dataclass(frozen=True, slots=True)
class Settings:
    """The daemon's configuration as far as containers need it. ``directory`` of a container is
    ``<root>/containers/<id>``, ``exec_root`` holds its sockets while it runs."""

    root: str
    exec_root: str
    log_config: LogConfig
    default_ulimits: Mapping[str, Ulimit] = field(default_factory=dict)
    default_shm_size: int = 67108864
    default_ipc_mode: str = "private"
    default_cgroupns_mode: str = "host"
    cgroup_parent: str = ""
    cgroup_driver: str = "cgroupfs"
    init: bool = False
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    cdi_spec_dirs: tuple[str, ...] = ()
    experimental: bool = False
    shutdown_timeout: int = 15


@dataclass(slots=True)
class ContainerContext:
    """Everything that the verbs share."""

    engine: Engine
    store: Store
    bus: Bus
    images: Images
    networks: Networks
    volumes: Volumes
    settings: Settings
    runtimes: Runtimes
    limits: HostLimits
    facts: HostFacts
    #: How the ids of containers are mapped (the daemon's ``userns-remap``), except of those with ``--userns host``.
    remap: Remap | None = None
    stdio: StdioBackend = field(default_factory=Embedded)
    registry: Registry = field(default_factory=Registry)
    waiters: Waiters = field(default_factory=Waiters)
    hooks: Hooks = field(default_factory=Hooks)
    restarts: dict[str, Restarts] = field(default_factory=dict)
    #: Set when the daemon's start has brought records and reality together: nothing starts a container before.
    recovered: asyncio.Event = field(default_factory=asyncio.Event)
    shutting_down: bool = False
    pruning: bool = False
    # By container: what is still being cleaned up after its end.
    cleaning: dict[str, asyncio.Task[Exit | None]] = field(default_factory=dict)
    # Set by the monitor: a container that may have ended unseen.
    suspect: Callable[[Container], None] = lambda container: None
    tasks: set[asyncio.Task[object]] = field(default_factory=set)
    # Containers whose record waits for space on the disk.
    _unsaved: set[str] = field(default_factory=set)

    def publish(self, container: Container, action: str, extra: Mapping[str, str] | None = None) -> None:
        """A container event with dockerd's attributes."""
        self.bus.publish("container", action, container.id, event_attributes(container, extra))

    async def save(self, container: Container, *, new: bool = False) -> None:
        """Writes the record; the cached row of ``docker ps`` is made anew. One that is deleted is not written again:
        whoever had waited for the container's lock would leave its name taken for ever. ``new``: it has no record yet,
        so on a full disk it must not use what the database keeps back.

        :raises WharfError: RESOURCE_EXHAUSTED: the disk is full.
        """
        if container.state.dead:
            return
        container.row = None
        await self.store.put(container, frees=not new)

    async def save_state(self, container: Container) -> None:
        """``save`` of what has happened already, an end or a signal: a full disk delays the record and nothing else, as
        with dockerd. The caller has the container's lock."""
        try:
            await self.save(container)
        except WharfError as error:
            if error.kind is not Kind.RESOURCE_EXHAUSTED:
                raise
            log.error("container=%s state is not saved yet: %s", container.id, error)
            if container.id not in self._unsaved:
                self._unsaved.add(container.id)
                self.spawn(self._save_later(container), f"save {container.id[:12]}")

    async def _save_later(self, container: Container) -> None:
        try:
            last = False
            while not last:
                last = self.shutting_down
                await asyncio.sleep(timeouts.seconds("container.save"))
                async with container.lock:
                    with contextlib.suppress(WharfError):
                        await self.save(container)
                        return
        finally:
            self._unsaved.discard(container.id)

    def remap_of(self, container: ContainerPlan) -> Remap | None:
        """How this container's ids are mapped; None: they are the host's."""
        return None if container.host_config.userns_mode == "host" else self.remap

    def restarts_of(self, container: Container) -> Restarts:
        return self.restarts.setdefault(container.id, Restarts())

    def clean(self, container_id: str, work: Coroutine[object, None, Exit | None]) -> "asyncio.Task[Exit | None]":
        """Cleans up after a container in the background; one after the other for one container."""
        before = self.cleaning.get(container_id)

        async def clean() -> Exit | None:
            if before is not None:
                await asyncio.wait((before,))
            return await work

        task = self.spawn(clean(), f"clean {container_id[:12]}")
        self.cleaning[container_id] = task

        def done(ended: "asyncio.Task[Exit | None]") -> None:
            if self.cleaning.get(container_id) is ended:
                del self.cleaning[container_id]

        task.add_done_callback(done)
        return task

    async def settled(self, container_id: str) -> None:
        """Returns when nothing of the container's last run is left in the engine."""
        task = self.cleaning.get(container_id)
        if task is not None:
            await asyncio.wait((task,))

    def spawn(self, work: Coroutine[object, None, _T], name: str) -> asyncio.Task[_T]:
        """Work in the background that ``close`` waits for; its failure is logged by the task itself."""
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task
