"""The composition root: creates the supervisor's parts and connects them.

A new service is created in ``Supervisor.open``, and its servicer in ``_handlers``; resources that must be awaited at
the start or end are entered on the exit stack, in the order of their dependencies.
"""

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FileDescriptor

from engine.api.pb import (
    containers_pb2,
    content_pb2,
    diff_pb2,
    events_pb2,
    health_pb2,
    images_pb2,
    introspection_pb2,
    leases_pb2,
    namespaces_pb2,
    snapshots_pb2,
    tasks_pb2,
    version_pb2,
)
from engine.api.rpc import SERVER_LIMITS
from engine.api.serving import Server
from engine.common.files import mount_thread
from engine.common.system import private
from engine.shim.zygote import Handle
from engine.supervisor.blobs import BlobFiles
from engine.supervisor.containers import Containers
from engine.supervisor.content import Content
from engine.supervisor.diff import Differ
from engine.supervisor.events import EventBus
from engine.supervisor.extensions import DescriptorServer, declaration
from engine.supervisor.gc import Collector
from engine.supervisor.images import Images
from engine.supervisor.introspection import Introspection, identity, snapshotter_plugin
from engine.supervisor.leases import Leases
from engine.supervisor.namespaces import Namespaces
from engine.supervisor.recipes.recreate import Recreated
from engine.supervisor.rpc.base import add
from engine.supervisor.rpc.containers import ContainersServicer
from engine.supervisor.rpc.content import ContentServicer
from engine.supervisor.rpc.diff import DiffServicer
from engine.supervisor.rpc.events import EventsServicer
from engine.supervisor.rpc.images import ImagesServicer
from engine.supervisor.rpc.introspection import HealthServicer, IntrospectionServicer, VersionServicer
from engine.supervisor.rpc.leases import LeasesServicer
from engine.supervisor.rpc.namespaces import NamespacesServicer
from engine.supervisor.rpc.snapshots import SnapshotsServicer
from engine.supervisor.rpc.tasks import TasksServicer
from engine.supervisor.shims import Zygote
from engine.supervisor.snapshots import layer_sync
from engine.supervisor.snapshots.copy import CopySnapshotter
from engine.supervisor.snapshots.overlay import OverlaySnapshotter
from engine.supervisor.snapshots.service import Snapshots
from engine.supervisor.store.database import Database
from engine.supervisor.tasks.service import Tasks

if TYPE_CHECKING:
    from engine.supervisor.snapshots.proxied import Proxied


@dataclass(frozen=True, slots=True)
class Settings:
    """``root`` is persistent, ``state`` is valid until the next boot. ``address`` is the socket's path. ``nofile`` is
    the soft limit of descriptors for processes below the shims (0: this process's). ``proxies``: the sockets of
    proxied snapshotters, by name. ``drop_blobs``: see ``engine.supervisor.recipes``."""

    root: str
    state: str
    address: str
    nofile: int = 0
    proxies: Mapping[str, str] = field(default_factory=dict)
    drop_blobs: bool = False


class Supervisor:
    """Everything but the socket: ``open`` it in the loop that will serve, ``close`` it at the end."""

    def __init__(self, settings: Settings, zygote: Handle) -> None:
        self.settings = settings
        self._zygote = zygote
        self._stack = AsyncExitStack()
        self.server = Server(SERVER_LIMITS)

    async def open(self) -> None:
        """Opens the database, recovers from a crash, finds the running tasks."""
        settings = self.settings
        for directory in (settings.root, settings.state, os.path.join(settings.state, "tasks")):
            private.restrict_directory(directory, private.PASSABLE)
        private.restrict_directory(os.path.join(settings.state, "runtime"))
        mount_thread.set_mountpoint(os.path.join(settings.state, "place"))
        async with AsyncExitStack() as stack:
            database = Database(os.path.join(settings.root, "metadata", "meta.db"))
            stack.push_async_callback(database.close)
            bus = EventBus()
            stack.callback(bus.close)
            files = BlobFiles(settings.root)
            snapshotters = (OverlaySnapshotter(settings.root), CopySnapshotter(settings.root))
            uuid = identity(settings.root)
            proxied = _proxied(settings.proxies, uuid, database, bus)
            sync_delay = layer_sync.SHORT_DELAY if settings.drop_blobs else layer_sync.DELAY
            snapshots = Snapshots(database, bus, snapshotters, settings.root, proxied, sync_delay=sync_delay)
            stack.push_async_callback(snapshots.close)
            recreated = Recreated(database, files, snapshots.tree)
            stack.push_async_callback(recreated.close)
            content = Content(database, files, bus, recreated)
            stack.push_async_callback(content.close)
            collector = Collector(database, files, snapshots, bus)
            stack.push_async_callback(collector.close)
            differ = Differ(content)
            stack.push_async_callback(differ.close)
            containers = Containers(database, bus)
            shims = Zygote(self._zygote, settings.nofile)
            stack.callback(shims.close)
            tasks = Tasks(settings.state, shims, bus)
            stack.push_async_callback(tasks.close)
            await content.recover()
            await snapshots.recover()
            await recreated.recover()
            await tasks.recover()
            descriptors = DescriptorServer(content, snapshots, differ, settings.address)
            stack.push_async_callback(descriptors.close)
            descriptors.open()
            if settings.drop_blobs:
                self._drop_blobs(stack, database, files, content, snapshots)
            plugins = [snapshotter_plugin(one.name, {"root": one.root}, one.check()) for one in snapshotters]
            plugins += [snapshotter_plugin(one.name, {"address": one.address}) for one in proxied]
            introspection = Introspection(uuid, [*plugins, declaration(descriptors.path)])

            namespaces = Namespaces(database, bus)
            leases = Leases(database)
            images = Images(database, bus)
            await collector.deleted(sync=False)  # garbage of the last supervisor

            def service(file: FileDescriptor, name: str, servicer: object, *, namespaced: bool = True) -> None:
                add(self.server, file.services_by_name[name], servicer, namespaced=namespaced)

            service(version_pb2.DESCRIPTOR, "Version", VersionServicer(introspection), namespaced=False)
            service(health_pb2.DESCRIPTOR, "Health", HealthServicer(), namespaced=False)
            service(
                introspection_pb2.DESCRIPTOR, "Introspection", IntrospectionServicer(introspection), namespaced=False
            )
            service(namespaces_pb2.DESCRIPTOR, "Namespaces", NamespacesServicer(namespaces), namespaced=False)
            service(events_pb2.DESCRIPTOR, "Events", EventsServicer(bus), namespaced=False)
            service(leases_pb2.DESCRIPTOR, "Leases", LeasesServicer(leases, collector))
            service(content_pb2.DESCRIPTOR, "Content", ContentServicer(content, collector))
            service(images_pb2.DESCRIPTOR, "Images", ImagesServicer(images, collector))
            service(snapshots_pb2.DESCRIPTOR, "Snapshots", SnapshotsServicer(snapshots, collector))
            service(diff_pb2.DESCRIPTOR, "Diff", DiffServicer(differ))
            service(containers_pb2.DESCRIPTOR, "Containers", ContainersServicer(containers, collector))
            service(tasks_pb2.DESCRIPTOR, "Tasks", TasksServicer(tasks, containers))
            self._stack = stack.pop_all()

    @staticmethod
    def _drop_blobs(
        stack: AsyncExitStack,
        database: Database,
        files: BlobFiles,
        content: Content,
        snapshots: Snapshots,
    ) -> None:
        from engine.supervisor.recipes.drop import Dropper  # an option that is off costs nothing

        dropper = Dropper(database, files, snapshots.local, snapshots.tree, content.dropped)
        stack.push_async_callback(dropper.close)
        snapshots.layer_sync.on_synced = content.on_changed = dropper.schedule
        dropper.schedule()

    async def close(self) -> None:
        """Waits for pending operations. Tasks continue: their shims outlive the supervisor."""
        await self._stack.aclose()


def _proxied(addresses: Mapping[str, str], uuid: str, database: Database, bus: EventBus) -> "list[Proxied]":
    if not addresses:
        return []
    from engine.supervisor.snapshots.proxied import Proxied  # an option

    return [Proxied(name, address, uuid, database, bus) for name, address in addresses.items()]
