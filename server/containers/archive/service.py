"""Files of a container: ``docker cp``, ``export`` and ``diff``.

The files of a running container are accessed through its first process's root, with volumes, binds and tmpfs. The root
of a stopped one is mounted in a thread with its own mount namespace, with volumes and binds.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from engine.api.types import Mount
from engine.common.errors import Kind, WharfError, not_found
from engine.common.files.mount_thread import MountThread
from engine.common.files.paths import make_mountpoint
from engine.common.layers.diff import changes as tree_changes
from engine.common.system import linux
from engine.common.system.credentials import CAP_SYS_CHROOT, Credentials, become
from server.containers.archive import changes, directory, tree
from server.containers.archive.directory import DirectoryEntry
from server.containers.archive.tree import PathStat
from server.containers.context import ContainerContext
from server.containers.host.owners import groups_of
from server.containers.host.remap import Remap
from server.containers.model import Container
from server.containers.mounts import reach
from server.containers.mounts.mounting import NETWORK_FILES, open_below
from server.containers.mounts.rootfs import mounts_of
from server.containers.mounts.snapshot import layers
from server.containers.run.process import process_of
from server.containers.spec import users

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def _missing(key: str) -> Iterator[None]:
    """Replaces the message of NOT_FOUND, a path, by dockerd's sentence. ``key``: the container in the request."""
    try:
        yield
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            raise not_found(f"Could not find the file {error.message} in container {key}") from error
        raise


@dataclass(frozen=True, slots=True)
class _Root:
    """A container's root: the thread in whose mount namespace it is, and a descriptor of it. ``only``: the ids in the
    container as which the thread acts, without capabilities; None: it may do everything."""

    thread: MountThread
    fd: int
    only: tuple[int, int] | None


@asynccontextmanager
async def _opened(context: ContainerContext, container: Container) -> AsyncIterator[_Root]:
    """The container's root with its mounts."""
    async with AsyncExitStack() as stack:
        await context.open_remap(container)
        remap = context.remap_of(container)
        thread = await stack.enter_async_context(MountThread(container.id[:12], owner=remap.root if remap else None))
        # Also for reading: missing mountpoints are made in the layer.
        stack.enter_context(container.layer.writing())
        try:
            fd = await thread.run(_root_of_process, container)
        except ProcessLookupError:
            fd = await thread.run(os.open, await _mounted(context, container, thread, stack), _ROOT)
        # Closed before the stack unmounts: an open descriptor keeps a mount busy.
        stack.callback(os.close, fd)
        only = None
        reader = context.reader(container)
        if reader is not None and any(point.kind == "bind" for point in container.mounts.values()):
            # A bind leads to files of the host's root and of other users. Extraction changes the root directory.
            only = context.own_ids(container)
            credentials = Credentials(*reader, groups_of(container.credentials))
            await thread.run(partial(become, credentials, keep=(CAP_SYS_CHROOT,)))
        yield _Root(thread, fd, only)


def _root_of_process(container: Container) -> int:
    with process_of(container) as process:
        return process.open("root", _ROOT)


async def _mounted(context: ContainerContext, container: Container, thread: MountThread, stack: AsyncExitStack) -> str:
    """Mounts the root of a container without a process, with its volumes and binds, in the thread's mount namespace;
    returns its path there."""
    remap = context.remap_of(container)
    rootfs = await mounts_of(context, container)
    root = await thread.mount(remap.map_mounts(rootfs) if remap else rootfs)
    for point in sorted(container.mounts.values(), key=lambda point: point.destination.count("/")):
        if point.kind == "volume":
            user = f"{container.id}-files"
            path = await context.volumes.mount(point.name, user)
            stack.push_async_callback(context.volumes.unmount, point.name, user)
            subpath = (point.spec.get("VolumeOptions") or {}).get("Subpath") or ""
            source = partial(open_below, path, subpath or ".") if path else None
            maps = remap if container.owner else None
        elif point.kind == "bind":
            # In the thread: a mount is copied within its namespace only.
            source = partial(reach.open_source, container, point) if container.owner else partial(_open, point.source)
            maps = None
        else:
            continue
        if source is not None:
            reached = point.kind == "bind" and bool(container.owner)
            await thread.run(_bind, root, source, point.destination, writable=point.rw, remap=maps, reached=reached)
    paths = (container.resolv_conf_path, container.hostname_path, container.hosts_path)
    writable = not container.host_config.readonly_rootfs
    for name, path in zip(NETWORK_FILES, paths, strict=True):
        if name not in container.mounts:
            # The files of the last run; before the first start they don't exist.
            await thread.run(_bind, root, partial(_open, path), name, writable=writable)
    if not writable:
        await thread.run(linux.mount, None, root, None, linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY, None)
    return root


def _open(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _bind(
    root: str,
    source: Callable[[], int],
    destination: str,
    *,
    writable: bool,
    remap: Remap | None = None,
    reached: bool = False,
) -> None:
    """Bind-mounts a source to its destination below ``root``. As in dockerd, a mount that fails is left out. ``source``
    returns a descriptor. ``remap``: maps the owners of the files. ``reached``: it is a bind of a user.

    Other containers may change the source and the destination at the same time: both are opened once, and used by their
    descriptors.
    """
    fds = ExitStack()
    with fds, suppress(OSError, WharfError):
        opened = source()
        fds.callback(os.close, opened)
        tree = linux.open_tree(opened, "", linux.AT_EMPTY_PATH | linux.OPEN_TREE_CLONE | linux.AT_RECURSIVE)
        fds.callback(os.close, tree)
        if remap is not None:
            remap.map_tree(tree)
        target = make_mountpoint(root, destination, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
        fds.callback(os.close, target)
        linux.move_mount(tree, "", target, "", linux.MOVE_MOUNT_F_EMPTY_PATH | linux.MOVE_MOUNT_T_EMPTY_PATH)
        if reached:
            reach.hide_proc(os.path.realpath(f"/proc/thread-self/fd/{tree}"), "thread-self")
        if not writable:
            # The descriptor from open_tree refers to the mount that move_mount has attached.
            flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY
            linux.mount(None, f"/proc/self/fd/{tree}", None, flags, None)


async def stat_path(context: ContainerContext, container: Container, key: str, path: str) -> PathStat:
    """The description of one file. ``key``: the container in the request.

    :raises WharfError: NOT_FOUND, in dockerd's words; others as :func:`tree.opened`.
    """
    async with _opened(context, container) as root:
        with _missing(key):
            return await root.thread.run(tree.stat_path, root.fd, path)


async def read_directory(
    context: ContainerContext, container: Container, key: str, path: str
) -> tuple[Sequence[DirectoryEntry], bool]:
    """The entries of a directory, and whether there are more.

    :raises WharfError: NOT_FOUND, in dockerd's words; others as :func:`directory.read_directory`.
    """
    remap = context.remap_of(container)
    maps = remap.maps if remap is not None else None
    async with _opened(context, container) as root:
        with _missing(key):
            return await root.thread.run(directory.read_directory, root.fd, path, maps)


async def get(
    context: ContainerContext, container: Container, key: str, path: str
) -> tuple[PathStat, AsyncIterator[bytes]]:
    """The description of a file or a directory, and it as a tar. Errors are raised by this call, not by the iterator.

    :raises WharfError: NOT_FOUND, in dockerd's words; others as :func:`tree.opened`.
    """
    remap = context.remap_of(container)
    maps = remap.maps if remap is not None else None
    stats: list[PathStat] = []

    async def chunks() -> AsyncIterator[bytes]:
        async with _opened(context, container) as root:

            def pack(out: Callable[[bytes], object]) -> None:
                def on_stat(path_stat: PathStat) -> None:
                    stats.append(path_stat)
                    out(b"")  # the first, empty chunk: the file is open and described

                tree.pack(root.fd, path, out, maps, on_stat=on_stat)

            with _missing(key):
                async for chunk in root.thread.produce(pack):
                    yield chunk
        context.publish(container, "archive-path")

    # The description and the tar are of one open file, although the path may name another file meanwhile.
    stream = chunks()
    await anext(stream)
    return stats[0], stream


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
    """Extracts a tar archive into a directory of the container.

    ``body``: the archive; its chunks should be large, as each is passed to another thread. ``no_overwrite_kind``: a
    file doesn't replace a directory, nor the reverse. ``to_user``: the files get the container's user as owner, else
    the archive's owners.

    :raises WharfError: NOT_FOUND, INVALID_ARGUMENT, in dockerd's words; PERMISSION_DENIED: the mount or the root is
        read-only.
    """
    loop = asyncio.get_running_loop()
    remap = context.remap_of(container)
    maps = remap.maps if remap is not None else None
    cancelled = False

    async def next_chunk() -> bytes:
        return await anext(body, b"")

    def read(size: int) -> bytes:
        return asyncio.run_coroutine_threadsafe(next_chunk(), loop).result()

    async with _opened(context, container) as root:
        try:
            with _missing(key):
                point = await root.thread.run(tree.extraction_point, root.fd, path)
                _check_writable(container, point)
                # Without capabilities a file can't be given to another id.
                owner = root.only
                if owner is None and to_user and container.config.user:
                    user = await root.thread.run(users.lookup, container.config.user, (), users.DirectoryRoot(root.fd))
                    owner = (user.uid, user.gid)
                await root.thread.run(
                    tree.extract,
                    root.fd,
                    point,
                    read,
                    no_overwrite_kind=no_overwrite_kind,
                    owner=owner,
                    maps=maps,
                    cancelled=lambda: cancelled,
                )
        except asyncio.CancelledError:
            cancelled = True
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
    """The mounts with all layers read-only: an upperdir must not be in use by two overlays."""
    if rootfs[0].type != "overlay":
        return rootfs
    found = layers(rootfs)
    if len(found) == 1:
        return (Mount("bind", found[0], options=("bind", "ro")),)
    return (Mount("overlay", "overlay", options=(f"lowerdir={':'.join(found)}", "ro")),)


async def export(context: ContainerContext, container: Container) -> AsyncIterator[bytes]:
    """The root file system as a tar, without volumes and other mounts.

    :raises WharfError: CONFLICT: the container is being removed.
    """
    if container.state.dead or container.state.removing:
        raise WharfError(Kind.CONFLICT, f"You cannot export container {container.id} which is Dead")
    mounts = _readable(await mounts_of(context, container))

    async def mount_root(thread: MountThread) -> str:
        # With mapped ids, the process's root has the host's ids, the layers have the container's.
        if context.remap_of(container) is None:
            with suppress(OSError):
                with process_of(container) as process:
                    return await thread.bind_process_root(process)
        return await thread.mount(mounts)

    async def chunks() -> AsyncIterator[bytes]:
        async with MountThread(container.id[:12]) as thread:
            path = await mount_root(thread)
            async for chunk in thread.produce(lambda out: tree.pack_root(path, out)):
                yield chunk
        context.publish(container, "export")

    return chunks()


async def diff(context: ContainerContext, container: Container) -> list[dict[str, Any]]:
    """The answer of ``GET /containers/{id}/changes``."""
    rootfs = await mounts_of(context, container)
    if rootfs[0].type == "overlay":
        upper, *lowers = layers(rootfs)
        found = await asyncio.to_thread(lambda: list(changes.from_overlay(upper, lowers)))
    else:
        key = f"{container.id}-diff"
        below = await context.engine.snapshots.view(key, (await context.engine.snapshots.stat(container.id)).parent)
        try:
            found = await asyncio.to_thread(lambda: list(tree_changes(below[0].source, rootfs[0].source)))
        finally:
            await context.engine.snapshots.remove(key)
    return [{"Path": f"/{change.path}", "Kind": change.kind.value} for change in found]
