"""A container's root file system in the daemon: its mounts, and a temporary mount of it.

The files of a running container are accessed through its first process; the temporary mount is for create, which fills
volumes, and for containers that don't run.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.api.types import Mount
from engine.common.errors import Kind, WharfError
from engine.common.system import private
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.mounts import initlayer
from server.containers.mounts.snapshot import mount_at, unmount_at
from server.containers.plan import ContainerPlan


async def mounts_of(context: ContainerContext, container: Container) -> tuple[Mount, ...]:
    """The mounts of the container's root file system; requested from the engine once, then cached.

    :raises WharfError: NOT_FOUND: the snapshot, or the image for damaged layers, doesn't exist.
    """
    if not container.rootfs:
        try:
            container.rootfs = await context.engine.snapshots.mounts(container.id)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND or not container.image_id:
                raise
            container.rootfs = await initlayer.restore(context, container)
    return container.rootfs


def runtime_directory(context: ContainerContext, container: ContainerPlan) -> str:
    """The directory of the container below the exec root. That of an owner's container is made here, closed to others:
    a set-id program in its root file system, which is mounted there, is one of the user."""
    directory = f"{context.config.exec_root}/containers/{container.id}"
    if container.owner:
        private.make_directory(directory)
    return directory


@asynccontextmanager
async def mounted(
    context: ContainerContext, container: Container, purpose: str, *, mapped: bool = True
) -> AsyncIterator[str]:
    """Mounts the root file system during the block, at a path that ends in ``purpose``. ``mapped``: with the host's
    ids, if the container's are mapped."""
    await context.wait_cleaned(container.id)
    rootfs = await mounts_of(context, container)
    mountpoint = f"{runtime_directory(context, container)}/{purpose}"
    with container.layer.writing():
        remap = context.remap_of(container) if mapped else None
        await asyncio.to_thread(mount_at, rootfs, mountpoint, remap=remap)
        try:
            yield mountpoint
        finally:
            await asyncio.to_thread(unmount_at, mountpoint)
