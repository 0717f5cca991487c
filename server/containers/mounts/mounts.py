"""A container's mount points, decided at create: volumes from others, ``-v``, ``--mount``, the image's ``VOLUME``.

Later ones replace earlier ones at the same destination, but two of the request may not share one. A container
refers to each of its volumes from then on; what fails on the way is released again.
"""

import posixpath
from contextlib import AsyncExitStack
from typing import Any

from engine.common.errors import WharfError, invalid
from engine.common.threads import run_in_thread
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.mounts import mountspec, orphan_volumes
from server.containers.plan import MountPoint
from server.containers.values.counts import check_mounts


async def register(
    context: ContainerContext, container: Container, undo: AsyncExitStack, *, plain_readonly: bool
) -> None:
    """Fills ``container.mounts``; ``undo`` lets go again of the volumes made or referred to here.

    ``plain_readonly``: read-only binds aren't recursively read-only (clients below 1.44).

    :raises WharfError: INVALID_ARGUMENT, NOT_FOUND.
    """
    check_mounts(container.config, container.host_config)  # now with those of the image
    undo.push_async_callback(_undo, context, container)
    await _register(context, container, plain_readonly=plain_readonly)


async def _undo(context: ContainerContext, container: Container) -> None:
    await release(context, container, remove_anonymous=True)
    # A named volume that only this failed create wanted did not exist before.
    for volume in context.volumes.all():
        if volume.made_for == container.id and not context.volumes.references(volume.name):
            await _discard(context, volume.name)


async def _discard(context: ContainerContext, name: str) -> None:
    try:
        await context.volumes.remove(name, force=True)
    except WharfError:
        # Somebody else has begun to use it meanwhile: it is theirs now.
        return


async def release(context: ContainerContext, container: Container, *, remove_anonymous: bool) -> list[str]:
    """Drops the container's references; with ``remove_anonymous`` its anonymous volumes go too.

    Returns what could not be removed, as sentences: by then the container is gone and must not come back.
    """
    failed: list[str] = []
    for point in container.mounts.values():
        if point.kind != "volume" or not point.name:
            continue
        context.volumes.release(point.name, container.id)
        if not remove_anonymous or not point.anonymous or context.volumes.references(point.name):
            continue
        try:
            await context.volumes.remove(point.name, force=True)
        except WharfError as error:
            failed.append(error.message)
    return failed


async def _register(context: ContainerContext, container: Container, *, plain_readonly: bool) -> None:
    host = container.host_config
    points = container.mounts
    inherited = 0
    for spec in host.volumes_from or ():
        name, mode = mountspec.parse_volumes_from(spec)
        other = _other(context, name)
        inherited += len(other.mounts)
        check_mounts(container.config, host, inherited=inherited)
        _from_other(context, container, other, mode)
    taken: set[str] = set()
    for bind in host.binds or ():
        point = mountspec.parse_bind(bind, host.volume_driver)
        _daemon_root(context, point)
        if point.destination in taken or point.destination in (host.tmpfs or {}):
            raise invalid(f"Duplicate mount point: {point.destination}")
        taken.add(point.destination)
        await _settle(context, container, point, plain_readonly=plain_readonly)
        _place(context, container, point)
    for mount in host.mounts or ():
        spec_dict = mount.wire()
        # It looks for a bind's source, which may be on a file system that doesn't answer.
        point = await run_in_thread(mountspec.parse_mount, spec_dict)
        _daemon_root(context, point)
        if point.destination in taken:
            raise invalid(f"Duplicate mount point: {mount.target}")
        taken.add(point.destination)
        await _settle(context, container, point, plain_readonly=plain_readonly)
        _place(context, container, point)
    filled = {posixpath.normpath(path) for path in host.tmpfs or ()}
    for path in container.config.volumes or ():
        destination = posixpath.normpath(path)
        if destination in points or destination in filled:
            continue
        point = MountPoint(
            kind="volume",
            destination=destination,
            driver=host.volume_driver,
            copy_data=True,
            anonymous=True,
            spec={"Type": "volume", "Target": destination},
        )
        await _settle(context, container, point, plain_readonly=False)
        # dockerd shows no mode for these.
        point.mode = ""
        _place(context, container, point)


def _place(context: ContainerContext, container: Container, point: MountPoint) -> None:
    """Puts the point at its destination; a volume that it replaces is no longer referred to."""
    replaced = container.mounts.get(point.destination)
    container.mounts[point.destination] = point
    if replaced is None or replaced.kind != "volume":
        return
    if all(other.name != replaced.name for other in container.mounts.values()):
        context.volumes.release(replaced.name, container.id)


def _other(context: ContainerContext, name: str) -> Container:
    try:
        return context.registry.get(name)
    except WharfError as error:
        raise invalid(error.message) from None


def _from_other(context: ContainerContext, container: Container, other: Container, mode: str) -> None:
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
        _place(context, container, copied)


async def _settle(context: ContainerContext, container: Container, point: MountPoint, *, plain_readonly: bool) -> None:
    """Makes a volume point's volume, or adapts a bind."""
    if point.kind == "volume":
        options: dict[str, Any] = point.spec.get("VolumeOptions") or {}
        volume = await context.volumes.create(
            point.name,
            point.driver,
            options=(options.get("DriverConfig") or {}).get("Options"),
            labels=options.get("Labels"),
            reference=container.id,
            on_name=lambda name: orphan_volumes.add(container.directory, (name,)),
        )
        point.name, point.driver, point.source = volume.name, volume.driver, volume.mountpoint
        if not point.mode and point.driver == "local":
            # dockerd labels volumes of its own driver as shared by default, and shows that.
            point.mode = "z"
    elif point.kind == "bind" and not point.rw and plain_readonly:
        point.spec["BindOptions"] = {**(point.spec.get("BindOptions") or {}), "ReadOnlyNonRecursive": True}
    elif point.kind == "image":
        image = await context.images.resolve(point.name)
        point.spec["Source"] = image.id


def _daemon_root(context: ContainerContext, point: MountPoint) -> None:
    """A bind that shows the daemon's own root must not keep what the daemon unmounts there alive."""
    root, source = context.settings.root, point.source
    if point.kind != "bind" or not (source.startswith(root) or root.startswith(source)):
        return
    asked = (point.spec.get("BindOptions") or {}).get("Propagation") or ""
    if asked == "":
        point.propagation = "rslave"
    elif asked not in ("rslave", "rshared"):
        raise invalid(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is '
            f'within the daemon root, daemon root: "{root}", bind mount source: "{source}", propagation: "{asked}"'
        )


def shown(container: Container) -> list[dict[str, Any]]:
    """Inspect's and list's ``Mounts``."""
    rows = []
    for point in container.mounts.values():
        row: dict[str, Any] = {"Type": point.kind}
        if point.name:
            row["Name"] = point.name
        row["Source"] = point.source
        row["Destination"] = point.destination
        if point.driver:
            row["Driver"] = point.driver
        row["Mode"] = point.mode
        row["RW"] = point.rw
        row["Propagation"] = point.propagation
        rows.append(row)
    return rows
