"""A container's root file system seen from the daemon: its mounts, and mounted for a moment.

While a container runs, its files are reached through its processes; this is for what happens before (create
fills volumes) or without them (files of a stopped container).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.api.types import Mount
from engine.common.errors import Kind, WharfError
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.mounts import initlayer
from server.containers.mounts.snapshot import mount_at, unmount_at


async def mounts_of(context: ContainerContext, container: Container) -> tuple[Mount, ...]:
    """How the container's root file system is mounted; asked of the engine once in a daemon's life."""
    if not container.rootfs:
        try:
            container.rootfs = await context.engine.snapshots.mounts(container.id)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND or not container.image_id:
                raise
            container.rootfs = await initlayer.again(context, container)
    return container.rootfs


@asynccontextmanager
async def mounted(context: ContainerContext, container: Container, purpose: str) -> AsyncIterator[str]:
    """The root file system mounted at a path of its own; unmounted at the end. ``purpose`` names the path."""
    await context.wait_cleaned(container.id)
    rootfs = await mounts_of(context, container)
    place = f"{context.settings.exec_root}/containers/{container.id}/{purpose}"
    with container.layer.writing():
        await asyncio.to_thread(mount_at, rootfs, place, remap=context.remap_of(container))
        try:
            yield place
        finally:
            await asyncio.to_thread(unmount_at, place)
