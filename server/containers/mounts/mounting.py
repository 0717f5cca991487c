"""Mounts at start: volumes mounted, sources made, subpaths and images opened, ``/dev/shm`` shared.

``tear_down`` undoes it all when the container has ended, start failed, or a crash left it; only the ways that led
to a source go earlier (the exit stack ``brief``): once the runtime has made the mounts its own they are not needed.
"""

import asyncio
import contextlib
import errno
import logging
import os
import stat
from collections.abc import Mapping
from contextlib import AsyncExitStack

from engine.common.errors import Kind, WharfError, internal, invalid, not_found
from engine.common.system import linux, mounts, private
from engine.common.threads import run_in_thread
from server.containers.context import GC_ROOT, ROOT_LABEL, ContainerContext
from server.containers.host.remap import Remap
from server.containers.model import Container
from server.containers.mounts import mountspec
from server.containers.mounts.snapshot import mount_at, unmount_at
from server.containers.plan import ContainerPlan, MountPoint
from server.containers.spec.input import BindMount, TmpfsMount
from server.containers.spec.mounts import check_tmpfs_options
from server.containers.values import modes

log = logging.getLogger(__name__)

NETWORK_FILES = ("/etc/resolv.conf", "/etc/hostname", "/etc/hosts")


async def set_up(
    context: ContainerContext, container: Container, brief: AsyncExitStack
) -> list[BindMount | TmpfsMount]:
    """The mounts for the spec, without the network's files.

    :raises WharfError: a source that isn't there or can't be mounted.
    """
    host = container.host_config
    found: list[BindMount | TmpfsMount] = []
    for destination, options in (host.tmpfs or {}).items():
        check_tmpfs_options(options)
        found.append(TmpfsMount(destination, options))
    for number, point in enumerate(container.mounts.values()):
        if point.destination in (host.tmpfs or {}):
            continue
        if point.kind == "tmpfs":
            found.append(TmpfsMount(point.destination, ",".join(mountspec.tmpfs_options(point.spec))))
            continue
        source = await _source(context, container, point, number, brief)
        found.append(_bind(point, source))
        if point.kind == "volume":
            context.bus.publish(
                "volume",
                "mount",
                point.name,
                {
                    "driver": point.driver,
                    "container": container.id,
                    "destination": point.destination,
                    "read/write": "true" if point.rw else "false",
                    "propagation": point.propagation,
                },
            )
    return found


async def _source(
    context: ContainerContext,
    container: Container,
    point: MountPoint,
    number: int,
    brief: AsyncExitStack,
) -> str:
    place = f"{context.settings.exec_root}/containers/{container.id}/mount-{number}"
    if point.kind == "volume":
        try:
            path = await context.volumes.mount(point.name, user_of(container, point))
        except WharfError as error:
            raise WharfError(error.kind, f"error while mounting volume '{point.source}': {error.message}") from error
        subpath = (point.spec.get("VolumeOptions") or {}).get("Subpath") or ""
        return await _below(path, subpath, place, brief) if subpath else str(path)
    if point.kind == "image":
        return await _image(context, container, point, number, place, brief)
    # It may be on a file system that doesn't answer: only this start waits for that.
    await run_in_thread(_bind_source, context, container, point)
    return point.source


def user_of(container: Container, point: MountPoint) -> str:
    """How the volume service knows this mount."""
    return f"{container.id}:{point.destination}"


async def tear_down(context: ContainerContext, container: Container) -> None:
    """Undoes ``set_up`` and ``shared_memory``, as far as they went. Failures are logged: the rest must go on."""
    for number, point in enumerate(container.mounts.values()):
        try:
            if point.kind == "volume":
                if await context.volumes.unmount(point.name, user_of(container, point)):
                    attributes = {"container": container.id, "driver": point.driver}
                    context.bus.publish("volume", "unmount", point.name, attributes)
            elif point.kind == "image":
                await remove_snapshot(context, _image_key(container, number))
        except (WharfError, OSError) as error:
            log.warning("container=%s mount at %s is not undone: %s", container.id, point.destination, error)
    if container.host_config.ipc_mode == "shareable":
        await asyncio.to_thread(drop_shared_memory, container)


def _image_key(container: Container, number: int) -> str:
    return f"{container.id}-image-{number}"


async def _image(
    context: ContainerContext,
    container: Container,
    point: MountPoint,
    number: int,
    place: str,
    brief: AsyncExitStack,
) -> str:
    image = await context.images.resolve(point.spec["Source"])
    # A writable snapshot, mounted read-only: it takes the same way as a container's own root file system.
    labels = {GC_ROOT: str(container.created_ns), ROOT_LABEL: context.settings.root}
    rootfs = await context.images.rootfs(image, _image_key(container, number), labels=labels)
    await asyncio.to_thread(mount_at, rootfs, place, read_only=True, remap=context.remap_of(container))
    brief.push_async_callback(asyncio.to_thread, unmount_at, place)
    subpath = (point.spec.get("ImageOptions") or {}).get("Subpath") or ""
    return await _below(place, subpath, place + "-sub", brief) if subpath else place


async def remove_snapshot(context: ContainerContext, key: str) -> None:
    """Removes a snapshot; one that isn't there is no error."""
    try:
        await context.engine.snapshots.remove(key)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise


async def _below(path: str, subpath: str, place: str, brief: AsyncExitStack) -> str:
    """``subpath`` below ``path`` bound to a place of its own: what the path leads to can't be exchanged any more."""
    await run_in_thread(_bind_below, path, subpath, place)
    brief.push_async_callback(asyncio.to_thread, _unbind, place)
    return place


def open_below(path: str, subpath: str) -> int:
    """A descriptor (``O_PATH``) of what ``subpath`` is below ``path``; links are followed, but not out of it. Blocks.

    :raises WharfError: NOT_FOUND: it isn't there; INVALID_ARGUMENT: it leads out.
    """
    root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return linux.openat2(root, subpath, os.O_PATH, 0, linux.RESOLVE_BENEATH | linux.RESOLVE_NO_MAGICLINKS)
    except FileNotFoundError:
        whole = f"{path}/{subpath}"
        raise not_found(f"cannot access path {whole}: lstat {whole}: no such file or directory") from None
    except OSError as error:
        if error.errno == errno.EXDEV:
            reason = f"path concatenation escapes the base directory, base: {path}, subpath: {subpath}"
        else:
            reason = f"subpath {subpath} of {path}: {(error.strerror or '').lower()}"
        raise invalid(reason) from error
    finally:
        os.close(root)


def _bind_below(path: str, subpath: str, place: str) -> None:
    fd = open_below(path, subpath)
    try:
        bind_descriptor(fd, place)
    finally:
        os.close(fd)


def bind_descriptor(fd: int, place: str) -> None:
    """Binds what a descriptor is of to a path of our own, which is made. Blocks."""
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        private.make_directory(place)
    else:
        private.make_directory(os.path.dirname(place))
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    linux.mount(f"/proc/self/fd/{fd}", place, None, linux.MS_BIND | linux.MS_REC)


def _unbind(place: str) -> None:
    mounts.unmount_under(place)
    if os.path.isdir(place):
        os.rmdir(place)
    elif os.path.lexists(place):
        os.unlink(place)


def _bind_source(context: ContainerContext, container: Container, point: MountPoint) -> None:
    """Makes a missing source directory where that is wanted.

    :raises WharfError: INTERNAL if it can't be made; INVALID_ARGUMENT if it must be there and isn't.
    """
    if os.path.exists(point.source):
        return
    if not point.create_source:
        raise mountspec.MountError("bind", f"bind source path does not exist: {point.source}")
    try:
        _make_source(point.source, context.remap_of(container))
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise internal(
            f"error while creating mount source path '{point.source}': mkdir {error.filename}: {reason}"
        ) from error


def _make_source(path: str, remap: Remap | None) -> None:
    """Makes a directory and those above it that are missing; they become the container's root's."""
    missing = [path]
    while not os.path.lexists(above := os.path.dirname(missing[-1])):
        missing.append(above)
    os.makedirs(path, mode=0o755, exist_ok=True)
    if remap is not None:
        for made in missing:
            os.chown(made, *remap.root)


def _bind(point: MountPoint, source: str) -> BindMount:
    options = point.spec.get("BindOptions") or {}
    if point.rw and (options.get("ReadOnlyNonRecursive") or options.get("ReadOnlyForceRecursive")):
        which = "ReadOnlyNonRecursive" if options.get("ReadOnlyNonRecursive") else "ReadOnlyForceRecursive"
        raise internal(f"mount options conflict: !ReadOnly && BindOptions.{which}")
    if options.get("ReadOnlyNonRecursive") and options.get("ReadOnlyForceRecursive"):
        raise internal("mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive")
    return BindMount(
        source=source,
        destination=point.destination,
        writable=point.rw,
        propagation=point.propagation,
        recursive=not options.get("NonRecursive"),
        read_only_non_recursive=bool(options.get("ReadOnlyNonRecursive")),
        read_only_force_recursive=bool(options.get("ReadOnlyForceRecursive")),
        implied=not options.get("Propagation"),
    )


def network_files(container: ContainerPlan, paths: Mapping[str, str], remap: Remap | None = None) -> list[BindMount]:
    """The binds of ``/etc/hosts`` and the like; what the user mounts there himself wins."""
    if remap is not None:
        for path in paths.values():
            os.chown(path, *remap.root)
    writable = not container.host_config.readonly_rootfs
    return [
        BindMount(paths[destination], destination, writable=writable, propagation="rprivate")
        for destination in NETWORK_FILES
        if destination in paths and destination not in container.mounts
    ]


async def shared_memory(context: ContainerContext, container: Container) -> str:
    """The directory for ``/dev/shm`` where it is shared with others; ``""`` for one of the container's own.

    :raises WharfError: the other container isn't there or doesn't share.
    """
    host = container.host_config
    other = modes.joined(host.ipc_mode)
    if other is not None:
        donor = context.registry.get_namespace_owner(other, "IPC")
        path = _shm(donor)
        if donor.host_config.ipc_mode == "host":
            return "/dev/shm"
        if not await asyncio.to_thread(os.path.isdir, path):
            raise invalid(f"container {other}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)")
        return path
    if host.ipc_mode != "shareable" or "/dev/shm" in container.mounts or "/dev/shm" in (host.tmpfs or {}):
        return ""
    path = _shm(container)
    await asyncio.to_thread(_mount_shm, path, host.shm_size, context.remap_of(container))
    return path


def _shm(container: Container) -> str:
    return f"{container.directory}/mounts/shm"


def _mount_shm(path: str, size: int, remap: Remap | None) -> None:
    private.make_directory(path)
    if mounts.is_mountpoint(path):
        return
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    uid, gid = remap.root if remap is not None else (0, 0)
    linux.mount("shm", path, "tmpfs", flags, f"mode=1777,size={size},uid={uid},gid={gid}")


def drop_shared_memory(container: Container) -> None:
    """Undoes ``shared_memory``. Blocks; no error if there is nothing."""
    path = _shm(container)
    mounts.unmount_under(path)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)
