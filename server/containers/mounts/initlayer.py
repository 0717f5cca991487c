"""The init layer between image and container: the files that Docker adds to every root file system. They are the
mountpoints of the runtime's mounts, and ``/.dockerenv``, by which programs detect a container.

The layer is made once for each image; a label of the image's config refers to it. The container's layer is above it, so
``diff`` and ``commit`` don't show its files.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import Mapping

from engine.api.labels import GC_REF
from engine.api.types import Mount
from engine.common.errors import Kind, WharfError
from server.containers.context import ROOT_LABEL, ContainerContext
from server.containers.model import Container
from server.containers.mounts.snapshot import mount_at, unmount_at
from server.images.model import Image

#: Path → "" for an empty file, "/" for a directory, else the target of a symbolic link.
_CONTENT = {
    ".dockerenv": "",
    "dev/console": "",
    "dev/pts": "/",
    "dev/shm": "/",
    "etc/hostname": "",
    "etc/hosts": "",
    "etc/mtab": "/proc/mounts",
    "etc/resolv.conf": "",
    "proc": "/",
    "sys": "/",
}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def layer_of(image: Image) -> str:
    """The name of the init layer's snapshot, the parent of the snapshots of the image's containers."""
    return f"{image.chain_id or 'scratch'}-init"


async def prepare(
    context: ContainerContext, image: Image, container_id: str, labels: Mapping[str, str]
) -> tuple[Mount, ...]:
    """Prepares the container's writable snapshot and returns its mounts. Makes the init layer if it doesn't exist.

    :raises WharfError: NOT_FOUND: a blob of the image is missing.
    """
    name = layer_of(image)
    try:
        return await context.engine.snapshots.prepare(container_id, name, labels)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
    await _make_layer(context, image, name, container_id)
    return await context.engine.snapshots.prepare(container_id, name, labels)


async def restore(context: ContainerContext, container: Container) -> tuple[Mount, ...]:
    """Unpacks the parents of a container's snapshot again, which a power failure has damaged; returns the mounts.

    :raises WharfError: NOT_FOUND: the image or the container's own snapshot doesn't exist.
    """
    manifest = (container.image_manifest or {}).get("digest", "")
    image = await context.images.of(container.owner).resolve(container.image_id, manifest=manifest)
    await _make_layer(context, image, layer_of(image), container.id)
    return await context.engine.snapshots.mounts(container.id)


async def _make_layer(context: ContainerContext, image: Image, name: str, container_id: str) -> None:
    engine = context.engine
    key = f"{container_id}-init"
    mountpoint = f"{context.config.exec_root}/containers/{container_id}/init"
    async with engine.leases.acquire():
        mounts = await context.images.rootfs(image, key, labels={ROOT_LABEL: str(context.config.data_root)})
        try:
            await asyncio.to_thread(mount_at, mounts, mountpoint)
            try:
                await asyncio.to_thread(fill, mountpoint)
            finally:
                await asyncio.to_thread(unmount_at, mountpoint)
            await engine.snapshots.commit(name, key)
        except BaseException as error:
            with contextlib.suppress(WharfError):
                await asyncio.shield(engine.snapshots.remove(key))
            if not (isinstance(error, WharfError) and error.kind is Kind.ALREADY_EXISTS):
                raise
        label = f"{GC_REF}snapshot.{engine.snapshots.snapshotter}/init"
        await engine.content.update_labels(image.config_digest, {label: name})


def fill(root: str) -> None:
    """Writes the init layer's files into a mounted image. Replaces other files at these paths; doesn't follow links.
    Blocks."""
    fd = os.open(root, _DIRECTORY)
    try:
        for path, content in _CONTENT.items():
            *parents, last = path.split("/")
            with contextlib.ExitStack() as stack:
                directory = fd
                for part in parents:
                    _remove_file(directory, part)
                    _make_directory(directory, part)
                    directory = os.open(part, _DIRECTORY, dir_fd=directory)
                    stack.callback(os.close, directory)
                _remove_file(directory, last)
                if content == "/":
                    _make_directory(directory, last)
                elif content:
                    with contextlib.suppress(FileExistsError):
                        os.symlink(content, last, dir_fd=directory)
                else:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                    with contextlib.suppress(IsADirectoryError):
                        file = os.open(last, flags, 0o755, dir_fd=directory)
                        os.fchmod(file, 0o755)
                        os.close(file)
    finally:
        os.close(fd)


def _remove_file(directory: int, name: str) -> None:
    """Removes a file or link; keeps a directory."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=directory)


def _make_directory(directory: int, name: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=directory)
        os.chmod(name, 0o755, dir_fd=directory)
