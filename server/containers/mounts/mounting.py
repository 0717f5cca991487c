"""The mounts of a start: mounts volumes and images, makes sources, resolves subpaths, shares ``/dev/shm``.

``tear_down`` undoes it after the exit, a failed start or a crash. Temporary mounts that only the start needs are on the
exit stack ``during_start``: the caller closes it when the runtime has mounted the sources.
"""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack

from engine.api.labels import GC_ROOT
from engine.common.errors import Kind, WharfError, internal, invalid, not_found
from engine.common.system import linux, mounts, private
from engine.common.threads import run_in_thread
from server.containers.context import ROOT_LABEL, ContainerContext
from server.containers.host.remap import Remap
from server.containers.model import Container
from server.containers.mounts import mountspec, reach
from server.containers.mounts.snapshot import mount_at, unmount_at
from server.containers.plan import ContainerPlan, MountPoint
from server.containers.spec.input import BindMount, TmpfsMount
from server.containers.spec.mounts import check_tmpfs_options
from server.containers.values import modes

log = logging.getLogger(__name__)

NETWORK_FILES = ("/etc/resolv.conf", "/etc/hostname", "/etc/hosts")


async def set_up(
    context: ContainerContext, container: Container, during_start: AsyncExitStack
) -> list[BindMount | TmpfsMount]:
    """Prepares the sources of all mount points and returns the mounts for the spec, without ``NETWORK_FILES``.

    :raises WharfError: a source doesn't exist or can't be mounted.
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
        source = await _source(context, container, point, number, during_start)
        found.append(_bind(point, source))
        if point.kind == "volume":
            context.volumes.publish(
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
    for destination, source in container.private_binds.items():
        found.append(BindMount(source, destination, writable=False, propagation="rprivate"))
    return found


async def _source(
    context: ContainerContext,
    container: Container,
    point: MountPoint,
    number: int,
    during_start: AsyncExitStack,
) -> str:
    """The path of the mount's source on the host."""
    target = f"{context.config.exec_root}/containers/{container.id}/mount-{number}"
    if point.kind == "volume":
        try:
            path = await context.volumes.mount(point.name, user_of(container, point))
        except WharfError as error:
            raise WharfError(error.kind, f"error while mounting volume '{point.source}': {error.message}") from error
        subpath = (point.spec.get("VolumeOptions") or {}).get("Subpath") or ""
        remap = context.remap_of(container) if container.owner else None
        if not subpath and remap is None:
            return path
        return await _bind_subpath(path, subpath or ".", target, during_start, remap)
    if point.kind == "image":
        return await _image(context, container, point, number, target, during_start)
    # In a thread: the source may be on a file system that doesn't answer.
    if container.owner:
        await run_in_thread(_bind_reached, container, point, target)
        during_start.push_async_callback(asyncio.to_thread, _unbind, target)
        return target
    await run_in_thread(_bind_source, context, container, point)
    return point.source


def user_of(container: Container, point: MountPoint) -> str:
    """The key of this mount as a user of its volume."""
    return f"{container.id}:{point.destination}"


async def tear_down(context: ContainerContext, container: Container) -> None:
    """Undoes ``set_up`` and ``shared_memory``, also if they were incomplete. Errors are logged."""
    for number, point in enumerate(container.mounts.values()):
        try:
            if point.kind == "volume":
                if await context.volumes.unmount(point.name, user_of(container, point)):
                    attributes = {"container": container.id, "driver": point.driver}
                    context.volumes.publish("unmount", point.name, attributes)
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
    target: str,
    during_start: AsyncExitStack,
) -> str:
    """Mounts an image read-only at ``target``; returns the path of its content, or of the subpath in it."""
    image = await context.images.of(container.owner).resolve(point.spec["Source"])
    # A writable snapshot as for a container's root file system, mounted read-only.
    labels = {GC_ROOT: str(container.created_ns), ROOT_LABEL: str(context.config.data_root)}
    rootfs = await context.images.rootfs(image, _image_key(container, number), labels=labels)
    await asyncio.to_thread(mount_at, rootfs, target, read_only=True, remap=context.remap_of(container))
    during_start.push_async_callback(asyncio.to_thread, unmount_at, target)
    subpath = (point.spec.get("ImageOptions") or {}).get("Subpath") or ""
    return await _bind_subpath(target, subpath, target + "-sub", during_start) if subpath else target


async def remove_snapshot(context: ContainerContext, key: str) -> None:
    """Removes a snapshot; a missing one is no error."""
    try:
        await context.engine.snapshots.remove(key)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise


async def _bind_subpath(
    path: str, subpath: str, target: str, during_start: AsyncExitStack, remap: Remap | None = None
) -> str:
    """Bind-mounts ``subpath`` below ``path`` to ``target`` and returns ``target``: a container that changes the path
    afterwards can't change the source of the mount. ``remap``: maps the owners of the files."""
    await run_in_thread(_bind_below, path, subpath, target, remap)
    during_start.push_async_callback(asyncio.to_thread, _unbind, target)
    return target


def open_below(path: str, subpath: str) -> int:
    """A descriptor (``O_PATH``) of ``subpath`` below ``path``. Follows symbolic links, but not out of ``path``. Blocks.

    :raises WharfError: NOT_FOUND: it doesn't exist; INVALID_ARGUMENT: it leads out of ``path``.
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


def _bind_below(path: str, subpath: str, target: str, remap: Remap | None) -> None:
    fd = open_below(path, subpath)
    try:
        bind_descriptor(fd, target, remap)
    finally:
        os.close(fd)


def _bind_reached(container: Container, point: MountPoint, target: str) -> None:
    fd = reach.open_source(container, point)
    try:
        bind_descriptor(fd, target)
    finally:
        os.close(fd)
    reach.hide_proc(target)


def bind_descriptor(fd: int, target: str, remap: Remap | None = None) -> None:
    """Bind-mounts the file or directory of a descriptor to ``target``, which is made. ``remap``: maps the owners of the
    files. Blocks.

    :raises WharfError: UNAVAILABLE: the file system can't map ids.
    """
    if _is_directory(fd):
        private.make_directory(target)
    else:
        private.make_directory(os.path.dirname(target))
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    if remap is None:
        linux.mount(f"/proc/self/fd/{fd}", target, None, linux.MS_BIND | linux.MS_REC)
        # A peer of a shared source would unmount the mounts below the source, too, when it is unmounted.
        linux.mount(None, target, None, linux.MS_SLAVE | linux.MS_REC)
        return
    tree = linux.open_tree(fd, "", linux.AT_EMPTY_PATH | linux.OPEN_TREE_CLONE)
    try:
        try:
            remap.map_tree(tree)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise WharfError(Kind.UNAVAILABLE, f"the file system of the volume can't map ids: {reason}") from error
        linux.mount_setattr(tree, "", linux.AT_EMPTY_PATH, propagation=linux.MS_PRIVATE)
        linux.move_mount(tree, "", linux.AT_FDCWD, target, linux.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def _is_directory(fd: int) -> bool:
    """Whether a descriptor is a directory. Without fstat(2): FUSE refuses root the attributes of a user's mount, and
    else asks a server that may not answer."""
    try:
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except NotADirectoryError:
        return False
    return True


def _unbind(target: str) -> None:
    try:
        linux.umount(target, linux.MNT_DETACH)  # with the mounts below it
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    if os.path.isdir(target):
        os.rmdir(target)
    elif os.path.lexists(target):
        os.unlink(target)


def _bind_source(context: ContainerContext, container: Container, point: MountPoint) -> None:
    """Makes the missing source directory of a bind with ``create_source``.

    :raises WharfError: INTERNAL: it can't be made; INVALID_ARGUMENT: the source of another bind doesn't exist.
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
    """Makes a directory and its missing parents; their owner is the container's root."""
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
    """The bind mounts of ``NETWORK_FILES``, except where the container has a mount of its own. ``paths``: path in the
    container → path on the host."""
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
    """The host directory for ``/dev/shm`` if it is shared with other containers; ``""``: the container has its own.

    :raises WharfError: CONFLICT, INVALID_ARGUMENT: the other container doesn't run or doesn't share its ``/dev/shm``.
    """
    host = container.host_config
    other = modes.joined(host.ipc_mode)
    if other is not None:
        donor = context.registry.of(container.owner).get_namespace_owner(other, "IPC")
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
    """Undoes ``shared_memory``; does nothing if there is no mount. Blocks."""
    path = _shm(container)
    mounts.unmount_under(path)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)
