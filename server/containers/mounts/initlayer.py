"""The layer between image and container: what Docker puts into every root, so that the runtime finds the places of
its mounts and programs see that they are in a container (``/.dockerenv``).

Made once for each image and kept by the image's config; a container's own layer begins above it, so neither ``diff``
nor ``commit`` shows any of it.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import Mapping

from engine.api.types import Mount
from engine.common.errors import Kind, WharfError
from server.containers.context import ROOT_LABEL, ContainerContext
from server.containers.model import Container
from server.containers.mounts.snapshot import mount_at, unmount_at
from server.images.model import Image

#: Path → "" for an empty file, "/" for a directory, else where the link leads.
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
    """The snapshot that a container of the image begins above."""
    return f"{image.chain_id or 'scratch'}-init"


async def prepare(
    context: ContainerContext, image: Image, container_id: str, labels: Mapping[str, str]
) -> tuple[Mount, ...]:
    """The container's writable root file system. Usually one call: the layer is there.

    :raises WharfError: NOT_FOUND: a blob of the image is missing.
    """
    name = layer_of(image)
    try:
        return await context.engine.snapshots.prepare(container_id, name, labels)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
    await _make(context, image, name, container_id)
    return await context.engine.snapshots.prepare(container_id, name, labels)


async def again(context: ContainerContext, container: Container) -> tuple[Mount, ...]:
    """How a container's root file system is mounted whose layers a power cut has taken: they are unpacked anew.

    :raises WharfError: NOT_FOUND: the image isn't here, or the container's own layer.
    """
    described = (container.image_manifest or {}).get("platform") or {}
    platform = "/".join(described[part] for part in ("os", "architecture", "variant") if described.get(part))
    image = await context.images.resolve(container.image_id, platform=platform or None)
    await _make(context, image, layer_of(image), container.id)
    return await context.engine.snapshots.mounts(container.id)


async def _make(context: ContainerContext, image: Image, name: str, container_id: str) -> None:
    engine = context.engine
    key = f"{container_id}-init"
    place = f"{context.settings.exec_root}/containers/{container_id}/init"
    async with engine.leases.acquire():
        mounts = await context.images.rootfs(image, key, labels={ROOT_LABEL: context.settings.root})
        try:
            await asyncio.to_thread(mount_at, mounts, place)
            try:
                await asyncio.to_thread(fill, place)
            finally:
                await asyncio.to_thread(unmount_at, place)
            await engine.snapshots.commit(name, key)
        except BaseException as error:
            with contextlib.suppress(WharfError):
                await asyncio.shield(engine.snapshots.remove(key))
            if not (isinstance(error, WharfError) and error.kind is Kind.ALREADY_EXISTS):
                raise
        label = f"containerd.io/gc.ref.snapshot.{engine.snapshots.snapshotter}/init"
        await engine.content.update_labels(image.config_digest, {label: name})


def fill(root: str) -> None:
    """Writes the layer's content into a mounted image. What is in its way goes, links are not followed. Blocks."""
    fd = os.open(root, _DIRECTORY)
    try:
        for path, what in _CONTENT.items():
            *above, last = path.split("/")
            with contextlib.ExitStack() as stack:
                directory = fd
                for part in above:
                    _clear(directory, part)
                    _make_directory(directory, part)
                    directory = os.open(part, _DIRECTORY, dir_fd=directory)
                    stack.callback(os.close, directory)
                _clear(directory, last)
                if what == "/":
                    _make_directory(directory, last)
                elif what:
                    with contextlib.suppress(FileExistsError):
                        os.symlink(what, last, dir_fd=directory)
                else:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                    with contextlib.suppress(IsADirectoryError):
                        file = os.open(last, flags, 0o755, dir_fd=directory)
                        os.fchmod(file, 0o755)
                        os.close(file)
    finally:
        os.close(fd)


def _clear(directory: int, name: str) -> None:
    """Removes what is there, unless it is a directory."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=directory)


def _make_directory(directory: int, name: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=directory)
        os.chmod(name, 0o755, dir_fd=directory)
