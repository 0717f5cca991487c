"""Files of a container: ``docker cp``, ``export`` and ``diff``.

A running container's files are those that its first process sees: volumes, binds and tmpfs included. Those of a
stopped one are mounted in a thread that has mounts of its own, with volumes and binds.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from engine.api.types import Mount
from engine.common.errors import Kind, WharfError, not_found
from engine.common.files.mount_thread import MountThread
from engine.common.files.paths import make_mountpoint
from engine.common.layers.diff import changes as tree_changes
from engine.common.system import linux
from server.containers.archive import changes, tree
from server.containers.archive.tree import PathStat
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.mounts.mounting import NETWORK_FILES, open_below
from server.containers.mounts.rootfs import mounts_of
from server.containers.mounts.snapshot import layers
from server.containers.run.process import process_of
from server.containers.spec import users

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def _missing(key: str) -> Iterator[None]:
    """dockerd's sentence for a path that isn't there; ``key``: how the client calls the container."""
    try:
        yield
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            raise not_found(f"Could not find the file {error.message} in container {key}") from error
        raise


@dataclass(frozen=True, slots=True)
class _Root:
    """A root to work in: the thread that sees it, and a descriptor of it."""

    place: MountThread
    fd: int


@asynccontextmanager
async def _opened(context: ContainerContext, container: Container) -> AsyncIterator[_Root]:
    """The container's root with everything mounted in it."""
    async with AsyncExitStack() as stack:
        remap = context.remap_of(container)
        place = await stack.enter_async_context(MountThread(container.id[:12], owner=remap.root if remap else None))
        # Also where files are only read: places for the mounts are made.
        stack.enter_context(container.layer.writing())
        try:
            fd = await place.run(_root_of_process, container)
        except ProcessLookupError:
            fd = await place.run(os.open, await _mounted(context, container, place, stack), _ROOT)
        # Before the mounts go: a descriptor would keep them.
        stack.callback(os.close, fd)
        yield _Root(place, fd)


def _root_of_process(container: Container) -> int:
    with process_of(container) as process:
        return process.open("root", _ROOT)


async def _mounted(context: ContainerContext, container: Container, place: MountThread, stack: AsyncExitStack) -> str:
    """The root of a container without a process, with its volumes and binds: its path in the place."""
    remap = context.remap_of(container)
    rootfs = await mounts_of(context, container)
    root = await place.mount(remap.map_mounts(rootfs) if remap else rootfs)
    for point in sorted(container.mounts.values(), key=lambda point: point.destination.count("/")):
        source, subpath = point.source, ""
        if point.kind == "volume":
            user = f"{container.id}-files"
            source = await context.volumes.mount(point.name, user)
            stack.push_async_callback(context.volumes.unmount, point.name, user)
            subpath = (point.spec.get("VolumeOptions") or {}).get("Subpath") or ""
        if point.kind in ("bind", "volume") and source:
            await place.run(_bind, root, source, subpath, point.destination, writable=point.rw)
    paths = (container.resolv_conf_path, container.hostname_path, container.hosts_path)
    writable = not container.host_config.readonly_rootfs
    for name, path in zip(NETWORK_FILES, paths, strict=True):
        if name not in container.mounts:
            # Those of its last run; there is none yet before the first.
            await place.run(_bind, root, path, "", name, writable=writable)
    if not writable:
        await place.run(linux.mount, None, root, None, linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY, None)
    return root


def _bind(root: str, source: str, subpath: str, destination: str, *, writable: bool) -> None:
    """Shows a mount of the container at its place; one that can't be shown any more is left out, as dockerd does.

    Other containers may write where it comes from and where it goes: both are opened once, and no name is used again.
    """
    fds = ExitStack()
    with fds, suppress(OSError, WharfError):
        path = source
        if subpath:
            below = open_below(source, subpath)
            fds.callback(os.close, below)
            path = f"/proc/self/fd/{below}"
        tree = linux.open_tree(linux.AT_FDCWD, path, linux.OPEN_TREE_CLONE | linux.AT_RECURSIVE)
        fds.callback(os.close, tree)
        target = make_mountpoint(root, destination, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
        fds.callback(os.close, target)
        linux.move_mount(tree, "", target, "", linux.MOVE_MOUNT_F_EMPTY_PATH | linux.MOVE_MOUNT_T_EMPTY_PATH)
        if not writable:
            # The descriptor is of the mount itself.
            flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY
            linux.mount(None, f"/proc/self/fd/{tree}", None, flags, None)


async def stat_path(context: ContainerContext, container: Container, key: str, path: str) -> PathStat:
    """One file. Raises NOT_FOUND in dockerd's words."""
    async with _opened(context, container) as root:
        with _missing(key):
            return await root.place.run(tree.look, root.fd, path)


async def get(
    context: ContainerContext, container: Container, key: str, path: str
) -> tuple[PathStat, AsyncIterator[bytes]]:
    """A file or a directory as a tar. Raises NOT_FOUND in dockerd's words before anything is streamed."""
    remap = context.remap_of(container)
    maps = remap.maps if remap is not None else None
    described: list[PathStat] = []

    async def pieces() -> AsyncIterator[bytes]:
        async with _opened(context, container) as root:

            def pack(out: Callable[[bytes], object]) -> None:
                def found(entry: PathStat) -> None:
                    described.append(entry)
                    out(b"")  # the answer's head can be sent

                tree.pack(root.fd, path, out, maps, found=found)

            with _missing(key):
                async for piece in root.place.produce(pack):
                    yield piece
        context.publish(container, "archive-path")

    # The file is opened once: for what is told ahead of the stream, and for the stream.
    stream = pieces()
    await anext(stream)
    return described[0], stream


async def put(
    context: ContainerContext,
    container: Container,
    key: str,
    path: str,
    body: AsyncIterator[bytes],
    *,
    no_overwrite_kind: bool,
    to_user: bool,
) -> None:
    """Extracts an archive into a directory of the container; its pieces should be large, as each has to come to another
    thread. ``to_user``: the files become those of the container's
    user, else they keep the owners that the archive names.

    Raises NOT_FOUND and INVALID_ARGUMENT in dockerd's words, PERMISSION_DENIED where nothing may be written.
    """
    loop = asyncio.get_running_loop()
    remap = context.remap_of(container)
    maps = remap.maps if remap is not None else None
    stopped = False

    async def more() -> bytes:
        return await anext(body, b"")

    def read(size: int) -> bytes:
        return asyncio.run_coroutine_threadsafe(more(), loop).result()

    async with _opened(context, container) as root:
        try:
            with _missing(key):
                point = await root.place.run(tree.extraction_point, root.fd, path)
                _check_writable(container, point)
                owner = None
                if to_user and container.config.user:
                    user = await root.place.run(users.lookup, container.config.user, (), users.DirectoryRoot(root.fd))
                    owner = (user.uid, user.gid)
                await root.place.run(
                    tree.extract,
                    root.fd,
                    point,
                    read,
                    no_overwrite_kind=no_overwrite_kind,
                    owner=owner,
                    maps=maps,
                    cancelled=lambda: stopped,
                )
        except asyncio.CancelledError:
            stopped = True
            raise
    context.publish(container, "extract-to-dir")


def _check_writable(container: Container, clean: str) -> None:
    inside = [
        point
        for point in container.mounts.values()
        if clean == point.destination or clean.startswith(point.destination.rstrip("/") + "/")
    ]
    if inside:
        deepest = max(inside, key=lambda point: len(point.destination))
        if not deepest.rw:
            raise WharfError(Kind.PERMISSION_DENIED, "mounted volume is marked read-only")
    elif container.host_config.readonly_rootfs:
        raise WharfError(Kind.PERMISSION_DENIED, "container rootfs is marked read-only")


def _readable(rootfs: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """The root's layers to be read: an overlay is not mounted for writing a second time while it is in use."""
    if rootfs[0].type != "overlay":
        return rootfs
    found = layers(rootfs)
    if len(found) == 1:
        return (Mount("bind", found[0], options=("bind", "ro")),)
    return (Mount("overlay", "overlay", options=(f"lowerdir={':'.join(found)}", "ro")),)


async def export(context: ContainerContext, container: Container) -> AsyncIterator[bytes]:
    """The root file system as a tar, without what is mounted into it."""
    if container.state.dead or container.state.removing:
        raise WharfError(Kind.CONFLICT, f"You cannot export container {container.id} which is Dead")
    mounts = _readable(await mounts_of(context, container))

    async def shown(place: MountThread) -> str:
        # Where ids are mapped, processes see other owners than the image has.
        if context.remap_of(container) is None:
            with suppress(OSError):
                with process_of(container) as process:
                    return await place.bind_process_root(process)
        return await place.mount(mounts)

    async def pieces() -> AsyncIterator[bytes]:
        async with MountThread(container.id[:12]) as place:
            path = await shown(place)
            async for piece in place.produce(lambda out: tree.pack_root(path, out)):
                yield piece
        context.publish(container, "export")

    return pieces()


async def diff(context: ContainerContext, container: Container) -> list[dict[str, Any]]:
    """The changes as the API lists them."""
    rootfs = await mounts_of(context, container)
    if rootfs[0].type == "overlay":
        upper, *lowers = layers(rootfs)
        found = await asyncio.to_thread(lambda: list(changes.of_overlay(upper, lowers)))
    else:
        key = f"{container.id}-diff"
        below = await context.engine.snapshots.view(key, (await context.engine.snapshots.stat(container.id)).parent)
        try:
            found = await asyncio.to_thread(lambda: list(tree_changes(below[0].source, rootfs[0].source)))
        finally:
            await context.engine.snapshots.remove(key)
    return [{"Path": f"/{change.path}", "Kind": change.kind.value} for change in found]
