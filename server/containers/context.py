"""The context of all operations of this package: one object, made once by the composition root."""

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
from engine.common.system.cgroups import prepare_move
from server.access.owners import user_of
from server.config.model import Config
from server.containers.hooks import Hooks
from server.containers.host.limits import HostLimits
from server.containers.host.owners import OwnerRemaps, groups_of
from server.containers.host.remap import Remap
from server.containers.host.runtimes import Runtimes
from server.containers.model import Container, event_attributes
from server.containers.neighbours import Gpus, Images, Networks, Shares, Store, Volumes
from server.containers.plan import ContainerPlan
from server.containers.registry import Registry
from server.containers.restarts import Restarts
from server.containers.sizes import LayerSizes
from server.containers.spec.host import HostFacts
from server.containers.stdio_backend import Embedded, StdioBackend
from server.containers.values.modes import joined
from server.containers.waiters import Waiters
from server.events.publisher import EventPublisher

log = logging.getLogger(__name__)

_T = TypeVar("_T")

timeouts.define("container.save", 1.0)  # between two attempts to write a record that a full disk refused

#: Marks the containers and snapshots that this daemon made in the engine: recovery removes no other client's.
ROOT_LABEL = "io.wharf/root"


@dataclass(frozen=True, slots=True)
class Defaults:
    """The daemon's settings for containers without their own, in the form of a container's record.
    ``seccomp_profile``: "" for the built-in one, ``unconfined``, or JSON."""

    log_config: LogConfig
    ulimits: Mapping[str, Ulimit]
    cgroupns_mode: str
    seccomp_profile: str


@dataclass(slots=True)
class ContainerContext:
    """The other services, the configuration, and the state that the operations share."""

    engine: Engine
    store: Store
    bus: EventPublisher
    images: Images
    networks: Networks
    volumes: Volumes
    config: Config
    defaults: Defaults
    runtimes: Runtimes
    limits: HostLimits
    facts: HostFacts
    #: The mappings of user ids of containers with an owner, and of all others (the daemon's ``userns-remap``); not for
    #: containers with ``--userns host``.
    owner_remaps: OwnerRemaps
    remap: Remap | None = None
    #: The limits of owners; None: the engine has no policy.
    shares: Shares | None = None
    #: The allocator of GPUs; None: the engine has no policy.
    gpus: Gpus | None = None
    stdio: StdioBackend = field(default_factory=Embedded)
    registry: Registry = field(default_factory=Registry)
    waiters: Waiters = field(default_factory=Waiters)
    hooks: Hooks = field(default_factory=Hooks)
    restarts: dict[str, Restarts] = field(default_factory=dict)
    #: Set when recovery at the daemon's start is complete: no container is started before.
    recovered: asyncio.Event = field(default_factory=asyncio.Event)
    shutting_down: bool = False
    #: Owners whose stopped containers are being pruned.
    pruning: set[str] = field(default_factory=set)
    # Container id → the task that removes the rest of its last run from the engine.
    cleaning: dict[str, asyncio.Task[Exit | None]] = field(default_factory=dict)
    #: Asks the engine whether a container has exited, for when its event may be lost; set by the monitor.
    check_exit: Callable[[Container], None] = lambda container: None
    tasks: set[asyncio.Task[object]] = field(default_factory=set)
    #: The sizes of the containers' layers.
    sizes: LayerSizes = field(init=False)
    # Ids of containers whose record could not be written because the disk is full.
    _unsaved: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.sizes = LayerSizes(self.engine)

    def publish(self, container: Container, action: str, extra: Mapping[str, str] | None = None) -> None:
        """Publishes an event of a container with dockerd's attributes."""
        self.bus.publish("container", action, container.id, event_attributes(container, extra), owner=container.owner)

    def expect_move(self) -> None:
        """Prepares the kernel for a process that a runtime moves into a cgroup some milliseconds later (see
        ``cgroups.prepare_move``)."""
        asyncio.get_running_loop().run_in_executor(None, prepare_move, self.facts.cgroups)

    async def save(self, container: Container, *, new: bool = False) -> None:
        """Writes the record and discards the cached row of ``docker ps``.

        Doesn't write a deleted container: a caller that waited for its lock would reserve its name permanently.
        ``new``: the container has no record yet, so on a full disk the write must not use the database's reserve.

        :raises WharfError: RESOURCE_EXHAUSTED: the disk is full.
        """
        if container.state.dead:
            return
        container.row = None
        await self.store.put(container, frees=not new)

    async def save_state(self, container: Container) -> None:
        """``save`` for a change that has happened already, such as an exit. On a full disk the record is written later,
        and the operation continues, as with dockerd. The caller holds the container's lock."""
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
        """The mapping of this container's user ids; None: they are the host's. ``owner_remaps.prepare`` must have
        returned for its owner."""
        if container.host_config.userns_mode == "host":
            return None
        if not user_of(container.owner):
            return self.remap
        lead = self._lead(container)
        return self.owner_remaps.get(container.owner, lead.config.user, groups_of(lead.credentials))

    def _lead(self, container: ContainerPlan) -> ContainerPlan:
        """The container whose user namespace an owner's container has: to join another namespace it must join the user
        namespace that owns that one."""
        others = self.registry.of(container.owner)
        lead, known = container, {container.id}
        while True:
            host = lead.host_config
            keys = filter(None, map(joined, (host.network_mode, host.pid_mode, host.ipc_mode)))
            found = next(filter(None, map(others.find, keys)), None)
            # Network modes by name may form a circle of containers, of which none can start.
            if found is None or found.id in known:
                return lead
            known.add(found.id)
            lead = found

    def own_ids(self, container: ContainerPlan) -> tuple[int, int]:
        """The ids in an owner's container that are the owner's own, as whom it reaches its binds."""
        return self.owner_remaps.inside(container.owner, self._lead(container).config.user)

    def reader(self, container: ContainerPlan) -> tuple[int, int] | None:
        """The host's uid and gid with which the files of an owner's container are read where a bind may be; None: the
        container is an administrator's, or has the host's root."""
        remap = self.remap_of(container) if user_of(container.owner) else None
        return remap.maps.to_host(*self.own_ids(container)) if remap is not None else None

    def userns_of(self, container: ContainerPlan) -> str:
        """The path of the user namespace of a container that is about to start; "": the host's."""
        remap = self.remap_of(container)
        return remap.userns if remap is not None else ""

    async def open_remap(self, container: ContainerPlan) -> None:
        """Makes the user namespace of a container that is about to start, unless it exists.

        :raises WharfError: this host can't map ids.
        """
        remap = self.remap_of(container)
        if remap is not None and not remap.opened:
            await asyncio.to_thread(remap.open)

    def restarts_of(self, container: Container) -> Restarts:
        return self.restarts.setdefault(container.id, Restarts())

    def clean(self, container_id: str, work: Coroutine[object, None, Exit | None]) -> "asyncio.Task[Exit | None]":
        """Runs ``work``, the cleanup of a container's last run, in the background. Cleanups of one container run one
        after the other."""
        former = self.cleaning.get(container_id)

        async def clean() -> Exit | None:
            if former is not None:
                await asyncio.wait((former,))
            return await work

        task = self.spawn(clean(), f"clean {container_id[:12]}")
        self.cleaning[container_id] = task

        def on_done(done: "asyncio.Task[Exit | None]") -> None:
            if self.cleaning.get(container_id) is done:
                del self.cleaning[container_id]

        task.add_done_callback(on_done)
        return task

    async def wait_cleaned(self, container_id: str) -> None:
        """Waits until nothing of the container's last run is left in the engine."""
        task = self.cleaning.get(container_id)
        if task is not None:
            await asyncio.wait((task,))

    def spawn(self, work: Coroutine[object, None, _T], name: str) -> asyncio.Task[_T]:
        """Starts a background task, for whose end ``Containers.close`` waits. The task must handle its own errors."""
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task
