"""The composition root: the only module that creates the services and connects them.

Each service is entered on an exit stack after those that it depends on. A start that fails undoes what was opened, and
the daemon's end closes the services in reverse order.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.api.client import Engine
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from engine.common.files import mount_thread
from engine.runtime.probe import Probe
from engine.runtime.probe import probe as probe_runtimes
from engine.shim.runtime.oci import RUNC
from engine.shim.zygote import Handle
from server.access.caller import Caller
from server.builder.changes import apply_changes
from server.builder.facade import BuilderFacade
from server.config import Config
from server.containers.exec.service import Exec
from server.containers.host.membership import container_of
from server.containers.host.owners import OwnerIds, OwnerRemaps
from server.containers.host.remap import Remap
from server.containers.inspect.stats import Stats
from server.containers.logs.follow import Logs
from server.containers.running import make_running
from server.containers.service import Containers
from server.containers.spec import apparmor
from server.containers.spec.host import HostFacts, probe
from server.containers.stdio.attach import Attachments
from server.containers.store import ContainerStore
from server.containers.wiring import make_containers
from server.events import EventBus
from server.images.model import ImageUser
from server.images.service import Images
from server.images.store import KnownStore
from server.metrics.facade import MetricsFacade
from server.networks.service import Networks
from server.networks.store import NetworkStore
from server.plugins.discovery import Plugins
from server.store.database import Database, Documents
from server.swarm.facade import SwarmFacade
from server.system.identity import engine_id
from server.system.runtime import cgroup_driver, prepare_cgroup_parent
from server.system.service import System
from server.system.timelines import Timelines
from server.version import SERVER_VERSION
from server.volumes.local import LocalDriver
from server.volumes.plugin import VolumePlugins
from server.volumes.service import Volumes
from server.volumes.store import VolumeStore

if TYPE_CHECKING:
    from server.access.policy import Policy
    from server.builder.service import Builds
    from server.gpus.service import Gpus
    from server.jobs.service import Jobs
    from server.shares.service import Shares
    from server.swarm.host import Host


@dataclass(frozen=True, slots=True)
class Services:
    """The services; handlers find them as ``request.state.services``, bound to the caller of the request."""

    engine: Engine
    events: EventBus
    images: Images
    networks: Networks
    volumes: Volumes
    containers: Containers
    exec: Exec
    logs: Logs
    attachments: Attachments
    stats: Stats
    build: BuilderFacade
    swarm: SwarmFacade
    system: System
    metrics: MetricsFacade
    timelines: Timelines
    #: The allocation of GPUs; None: the engine has no policy.
    gpus: "Gpus | None" = None
    #: Job sockets; None on an engine without a policy.
    jobs: "Jobs | None" = None
    #: The limits of owners; None: the engine has no policy.
    shares: "Shares | None" = None

    def seen_by(self, caller: Caller) -> "Services":
        """The services for one caller, who finds and changes only what exists for that caller. They share all state
        with these."""
        bound = replace(
            self,
            events=self.events.seen_by(caller),
            images=self.images.seen_by(caller),
            networks=self.networks.seen_by(caller),
            volumes=self.volumes.seen_by(caller),
            containers=self.containers.seen_by(caller),
            exec=self.exec.seen_by(caller),
            build=self.build.seen_by(caller),
            metrics=self.metrics.seen_by(caller),
            gpus=self.gpus.seen_by(caller) if self.gpus is not None else None,
        )
        timelines = self.timelines.seen_by(caller, bound.containers)
        system = self.system.seen_by(
            bus=bound.events,
            containers=bound.containers,
            images=bound.images,
            volumes=bound.volumes,
            networks=bound.networks,
            build=bound.build,
            role=caller.role,
            administrator=caller.administrator,
        )
        return replace(bound, system=system, timelines=timelines)

    def apply(self, policy: "Policy") -> None:
        """Applies the policy that was read at the start, or by a reload."""
        self.images.published = policy.publishes
        if self.shares is not None:
            self.shares.apply(policy)
        if self.jobs is not None:
            self.jobs.apply(policy)
        if self.gpus is not None:
            self.gpus.apply(policy)

    async def check_disk(self, owner: str) -> None:
        """Called before a request that stores something.

        :raises WharfError: PERMISSION_DENIED: the owner uses as much of the disk as its role allows.
        """
        if self.shares is not None:
            await self.shares.check_disk(owner)

    def caller_of_job(self, path: str) -> Caller | None:
        """The caller of the connections of a job socket; None: the path is none of a job socket.

        :raises WharfError: PERMISSION_DENIED: its user no longer has a role.
        """
        return self.jobs.caller(path) if self.jobs is not None else None

    def caller_of_owner(self, owner: str) -> Caller:
        """The caller for processes in containers of a job socket, with the socket's limits.

        :raises WharfError: PERMISSION_DENIED: the socket is closed, or its user no longer has a role.
        """
        if self.jobs is None:
            raise WharfError(Kind.PERMISSION_DENIED, "the job socket of this client is closed")
        return self.jobs.of(owner)

    def request_of(self, owner: str) -> AbstractContextManager[None]:
        """Around each request of a job socket's owner.

        :raises WharfError: PERMISSION_DENIED: the socket is closed.
        """
        return self.jobs.request(owner) if self.jobs is not None else nullcontext()

    def owner_of_process(self, pid: int) -> str | None:
        """The owner of the container with this process; None: it is in no container.

        :raises ProcessLookupError: the process doesn't exist.
        """
        found = container_of(self.containers.registry, pid)
        return found.owner if found is not None else None


async def choose_snapshotter(engine: Engine, config: Config) -> str:
    """Return the snapshotter to use: the configured one, or overlayfs if the engine supports it, else native.

    :raises WharfError: the engine lacks the configured one.
    """
    wanted = {"overlay2": "overlayfs"}.get(config.storage_driver, config.storage_driver)
    plugins = await engine.introspection.plugins(["type==io.containerd.snapshotter.v1"])
    usable = [plugin.id for plugin in plugins if not plugin.error]
    for name in (wanted,) if wanted else ("overlayfs", "native"):
        if name in usable:
            return name
    raise WharfError(Kind.UNAVAILABLE, f"the engine has no usable snapshotter {wanted or 'overlayfs or native'}")


@asynccontextmanager
async def open_services(config: Config, zygote: Handle | None = None) -> AsyncIterator[Services]:
    """Open all services over a running engine. ``zygote``: for a stock containerd's I/O hosts.

    :raises WharfError: the engine does not respond, or a setting can't be applied.
    """
    mount_thread.set_mountpoint(f"{config.exec_root}/place")
    async with AsyncExitStack() as stack:
        database = Database(config.data_root / "wharf.db")
        stack.callback(database.close)
        bus = EventBus()
        engine = Engine(config.engine_address, namespace=config.containerd_namespace)
        stack.push_async_callback(engine.close)
        await engine.connect(deadline=timeouts.seconds("engine.connect"))
        snapshotter = engine.snapshots.snapshotter = await choose_snapshotter(engine, config)
        await engine.leases.delete_stale()

        remap = await _remap(config, stack)
        plugins = Plugins()
        networks = Networks(config, NetworkStore(database), bus, userns=remap.userns if remap else "", plugins=plugins)
        stack.push_async_callback(networks.close)
        await networks.open()

        local = LocalDriver(Path(config.data_root) / "volumes", owner=remap.root if remap else None)
        volumes = Volumes(VolumeStore(database), bus, local, VolumePlugins(plugins))
        await volumes.load()

        confined = await asyncio.to_thread(apparmor.ensure_default)
        await asyncio.to_thread(prepare_cgroup_parent, config)
        facts = probe(cgroup_driver=cgroup_driver(config), init_path=config.init_path, apparmor=confined)
        runtimes = await asyncio.to_thread(probe_runtimes)
        yield await make_services(
            config,
            stack,
            engine=engine,
            database=database,
            bus=bus,
            networks=networks,
            volumes=volumes,
            facts=facts,
            runtimes=runtimes,
            snapshotter=snapshotter,
            zygote=zygote,
            remap=remap,
        )


async def make_services(
    config: Config,
    stack: AsyncExitStack,
    *,
    engine: Engine,
    database: Database,
    bus: EventBus,
    networks: Networks,
    volumes: Volumes,
    facts: HostFacts,
    runtimes: Probe,
    snapshotter: str,
    zygote: Handle | None = None,
    remap: Remap | None = None,
) -> Services:
    """Create the services on what ``open_services`` has opened: kernel, engine and disk. ``stack`` closes them.

    :raises WharfError: no OCI runtime works on this host, or the engine does not respond.
    """
    # crun changes the owner of the stdio files that it gets to the container's user. containerd's own shims pass
    # the host's /dev/null (ours a sealed one), so the container's user would become its owner.
    runtime = runtimes.require("" if config.embedded else RUNC)
    users: list[Containers] = []
    images = Images(
        engine, bus, partial(_users, users), config, apply_changes=apply_changes, store=KnownStore(database)
    )
    await images.start()
    stack.push_async_callback(images.stop)

    store = ContainerStore(database)
    ids = OwnerIds(Documents(database, "settings"), partial(_pool_of_ids, config))
    owner_remaps = OwnerRemaps(ids, f"{config.exec_root}/owners", str(config.data_root))
    stack.push_async_callback(asyncio.to_thread, owner_remaps.close)
    containers = make_containers(
        config,
        engine=engine,
        store=store,
        bus=bus,
        images=images,
        networks=networks,
        volumes=volumes,
        facts=facts,
        default_runtime=config.default_runtime or runtime.dialect,
        zygote=zygote,
        owner_remaps=owner_remaps,
        remap=remap,
    )
    users.append(containers)
    identity = await engine_id(database)
    build = BuilderFacade(
        config.data_root, config.exec_root, partial(_make_builds, config, containers, images, networks, identity)
    )
    running = make_running(containers.context)
    shares: Shares | None = None
    gpus: Gpus | None = None
    jobs: Jobs | None = None
    made: list[Services] = []
    if config.has_policy:
        from server import restricted  # here: an engine without a policy doesn't load its modules

        jobs = restricted.make_jobs(config, database, lambda caller: made[0].seen_by(caller))
        await jobs.load()
        roles = restricted.make_roles(restricted.policy_of(config), jobs)
        gpus = restricted.make_gpus(roles, containers)
        shares = restricted.make_shares(roles, containers, images, networks, running, gpus)
    await containers.load()
    if gpus is not None:
        await gpus.open()
    networks.bind(containers.registry, containers.context.save, containers.context.userns_of)
    await build.start()
    stack.push_async_callback(build.stop)
    if shares is not None:
        stack.push_async_callback(shares.close)
        await shares.open()
    stack.push_async_callback(containers.close)
    await containers.open()
    stack.push_async_callback(running.close)
    await running.open()
    metrics = MetricsFacade(containers, networks, bus, identity=identity, snapshotter=snapshotter, shares=shares)
    stack.callback(metrics.stop)
    timelines = Timelines(containers)
    stack.callback(timelines.close)
    swarm = SwarmFacade(config.data_root / "swarm")
    system = System(
        config,
        engine=engine,
        bus=bus,
        identity=identity,
        facts=facts,
        probe=runtimes,
        snapshotter=snapshotter,
        containers=containers,
        images=images,
        volumes=volumes,
        networks=networks,
        build=build,
        swarm=swarm,
    )
    services = Services(
        engine=engine,
        events=bus,
        images=images,
        networks=networks,
        volumes=volumes,
        containers=containers,
        exec=running.exec,
        logs=running.logs,
        attachments=running.attachments,
        stats=running.stats,
        build=build,
        swarm=swarm,
        system=system,
        metrics=metrics,
        timelines=timelines,
        gpus=gpus,
        jobs=jobs,
        shares=shares,
    )
    made.append(services)
    if jobs is not None:
        stack.push_async_callback(jobs.close)
    stack.push_async_callback(swarm.stop)
    await swarm.start(partial(_make_swarm_host, services, identity, remap))
    return services


def _make_builds(
    config: Config,
    containers: Containers,
    images: Images,
    networks: Networks,
    identity: str,
    caller: Caller,
    root: Path,
) -> "Builds":
    from server.builder.service import Builds  # see server.builder.facade

    return Builds(
        containers.context,
        images.of(caller.owner),
        worker_id=identity,
        version=SERVER_VERSION,
        host_gateway=partial(networks.host_gateway, caller.owner),
        gc=config.builder,
        root=root,
        caller=caller,
    )


def _make_swarm_host(services: Services, identity: str, remap: Remap | None) -> "Host":
    from server.swarmhost import make_host  # here: only in a swarm

    return make_host(
        identity,
        services.system,
        services.events,
        services.containers,
        services.images,
        services.networks,
        services.logs,
        remap,
    )


def _pool_of_ids(config: Config) -> tuple[int, int]:
    from server.access.setup import pool_of_ids  # with its models only on an engine with users

    return pool_of_ids(config)


async def _remap(config: Config, stack: AsyncExitStack) -> Remap | None:
    """:raises WharfError: this host can't map ids."""
    if config.id_maps is None:
        return None
    remap = Remap(config.id_maps, f"{config.exec_root}/remap", str(config.data_root))
    await asyncio.to_thread(remap.open)
    stack.push_async_callback(asyncio.to_thread, remap.close)
    return remap


def _users(containers: list[Containers]) -> Iterable[ImageUser]:
    """Return every container. Images are created before the containers service, so the list is filled later."""
    return list(containers[0].registry) if containers else ()
