"""The mount points of a container at create: ``--volumes-from``, ``-v``, ``--mount``, and the image's ``VOLUME``.

Later ones replace earlier ones at the same destination, except that ``-v`` and ``--mount`` must not share one. From
then on the container is a reference of its volumes; if create fails, the references are released.
"""

import os
import posixpath
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from engine.common.errors import WharfError, invalid
from engine.common.threads import run_in_thread
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.mounts import mountspec, orphan_volumes, reach
from server.containers.plan import MountPoint
from server.containers.values.counts import check_mounts


async def register(
    context: ContainerContext, container: Container, undo: AsyncExitStack, *, plain_readonly: bool
) -> None:
    """Fills ``container.mounts`` and makes volumes. ``undo`` releases the volumes and removes those made here.

    ``plain_readonly``: read-only binds aren't recursively read-only (clients below API 1.44).

    :raises WharfError: INVALID_ARGUMENT: a bad or duplicate mount point; NOT_FOUND: a volume driver or an image.
    """
    check_mounts(container.config, container.host_config)  # again, as the configuration has the image's volumes now
    undo.push_async_callback(_undo, context, container)
    await _register(context, container, plain_readonly=plain_readonly)


async def _undo(context: ContainerContext, container: Container) -> None:
    await release(context, container, remove_anonymous=True)
    # Remove named volumes that this failed create has made, unless another container refers to them.
    for volume in context.volumes.all():
        if volume.made_for == container.id and not context.volumes.references(volume.name):
            await _discard(context, volume.name)


async def _discard(context: ContainerContext, name: str) -> None:
    try:
        await context.volumes.remove(name, force=True)
    except WharfError:
        return  # another client uses it meanwhile


async def release(context: ContainerContext, container: Container, *, remove_anonymous: bool) -> list[str]:
    """Releases the container's references to volumes; ``remove_anonymous``: also removes its anonymous volumes.

    Returns the errors of volumes that could not be removed, and doesn't raise them: the caller can't undo the removal
    of the container.
    """
    errors: list[str] = []
    for point in container.mounts.values():
        if point.kind != "volume" or not point.name:
            continue
        context.volumes.release(point.name, container.id)
        if not remove_anonymous or not point.anonymous or context.volumes.references(point.name):
            continue
        try:
            await context.volumes.remove(point.name, force=True)
        except WharfError as error:
            errors.append(error.message)
    return errors


async def _register(context: ContainerContext, container: Container, *, plain_readonly: bool) -> None:
    host = container.host_config
    points = container.mounts
    inherited = 0
    for spec in host.volumes_from or ():
        name, mode = mountspec.parse_volumes_from(spec)
        other = _get_container(context, container.owner, name)
        inherited += len(other.mounts)
        check_mounts(container.config, host, inherited=inherited)
        _copy_points(context, container, other, mode)
    requested: set[str] = set()
    for bind in host.binds or ():
        point = mountspec.parse_bind(bind, host.volume_driver)
        _adapt_to_daemon_root(context, point)
        if point.destination in requested or point.destination in (host.tmpfs or {}):
            raise invalid(f"Duplicate mount point: {point.destination}")
        requested.add(point.destination)
        await _resolve(context, container, point, plain_readonly=plain_readonly)
        _add(context, container, point)
    for mount in host.mounts or ():
        spec_dict = mount.wire()
        # In a thread: the check of a bind's source blocks on a file system that doesn't answer.
        exists = existence(container.owner, container.credentials)
        point = await run_in_thread(mountspec.parse_mount, spec_dict, exists)
        _adapt_to_daemon_root(context, point)
        if point.destination in requested:
            raise invalid(f"Duplicate mount point: {mount.target}")
        requested.add(point.destination)
        await _resolve(context, container, point, plain_readonly=plain_readonly)
        _add(context, container, point)
    tmpfs_paths = {posixpath.normpath(path) for path in host.tmpfs or ()}
    for path in container.config.volumes or ():
        destination = posixpath.normpath(path)
        if destination in points or destination in tmpfs_paths:
            continue
        point = MountPoint(
            kind="volume",
            destination=destination,
            driver=host.volume_driver,
            copy_data=True,
            anonymous=True,
            spec={"Type": "volume", "Target": destination},
        )
        await _resolve(context, container, point, plain_readonly=False)
        point.mode = ""  # as in dockerd
        _add(context, container, point)


def existence(owner: str, credentials: Sequence[int]) -> mountspec.Exists:
    """Whether the source of a bind exists, for a container of this owner."""
    return partial(reach.exists, credentials) if owner else os.path.lexists


def _add(context: ContainerContext, container: Container, point: MountPoint) -> None:
    """Adds the point; releases the reference to a volume that it replaces."""
    replaced = container.mounts.get(point.destination)
    container.mounts[point.destination] = point
    if replaced is None or replaced.kind != "volume":
        return
    if all(other.name != replaced.name for other in container.mounts.values()):
        context.volumes.release(replaced.name, container.id)


def _get_container(context: ContainerContext, owner: str, name: str) -> Container:
    """:raises WharfError: INVALID_ARGUMENT: no such container."""
    try:
        return context.registry.of(owner).get(name)
    except WharfError as error:
        raise invalid(error.message) from None


def _copy_points(context: ContainerContext, container: Container, other: Container, mode: str) -> None:
    """``--volumes-from``: adds copies of the other container's mount points."""
    for point in other.mounts.values():
        copied = MountPoint(
            kind=point.kind,
            destination=point.destination,
            source=point.source,
            name=point.name,
            driver=point.driver,
            rw=point.rw and mountspec.writable(mode),
            propagation=point.propagation,
            anonymous=point.anonymous,
            create_source=point.create_source,
            spec=point.spec,
        )
        if point.kind == "volume":
            context.volumes.refer(point.name, container.id)
        _add(context, container, copied)


async def _resolve(context: ContainerContext, container: Container, point: MountPoint, *, plain_readonly: bool) -> None:
    """Makes the volume, sets the read-only mode of a bind, or resolves the image of the point."""
    if point.kind == "volume":
        options: dict[str, Any] = point.spec.get("VolumeOptions") or {}
        volume = await context.volumes.of(container.owner).create(
            point.name,
            point.driver,
            options=(options.get("DriverConfig") or {}).get("Options"),
            labels=options.get("Labels"),
            reference=container.id,
            on_name=lambda name: orphan_volumes.add(container.directory, (name,)),
        )
        point.name, point.driver, point.source = volume.name, volume.driver, volume.mountpoint
        if not point.mode and point.driver == "local":
            point.mode = "z"  # as in dockerd, which relabels its local volumes as shared by default
    elif point.kind == "bind" and not point.rw and plain_readonly:
        point.spec["BindOptions"] = {**(point.spec.get("BindOptions") or {}), "ReadOnlyNonRecursive": True}
    elif point.kind == "image":
        image = await context.images.of(container.owner).resolve(point.name)
        point.spec["Source"] = image.id


def _adapt_to_daemon_root(context: ContainerContext, point: MountPoint) -> None:
    """Sets the propagation of a bind of the daemon's root: with a private one, mounts that the daemon unmounts there
    would stay in use by the container.

    :raises WharfError: INVALID_ARGUMENT: the request has another propagation.
    """
    root, source = str(context.config.data_root), point.source
    if point.kind != "bind" or not (source.startswith(root) or root.startswith(source)):
        return
    requested = (point.spec.get("BindOptions") or {}).get("Propagation") or ""
    if requested == "":
        point.propagation = "rslave"
    elif requested not in ("rslave", "rshared"):
        raise invalid(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is '
            f'within the daemon root, daemon root: "{root}", bind mount source: "{source}", propagation: "{requested}"'
        )


def describe(container: Container) -> list[dict[str, Any]]:
    """``Mounts`` of inspect and of ``docker ps``."""
    rows = []
    for point in container.mounts.values():
        row: dict[str, Any] = {"Type": point.kind}
        if point.name:
            row["Name"] = point.own_name
        row["Source"] = point.source
        row["Destination"] = point.destination
        if point.driver:
            row["Driver"] = point.driver
        row["Mode"] = point.mode
        row["RW"] = point.rw
        row["Propagation"] = point.propagation
        rows.append(row)
    return rows
