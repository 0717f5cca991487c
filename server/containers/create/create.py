"""``docker create``: checks and merges the request, and makes the record and the root file system.

Each undo step is registered on an exit stack before its step. After a crash, recovery removes directories and snapshots
without a record.
"""

import asyncio
import os
import secrets
import shutil
import stat
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from api_models.container import ContainerConfig, HostConfig
from api_models.network import EndpointSettings
from engine.api.labels import GC_ROOT
from engine.api.types import Platform
from engine.common.errors import WharfError, internal
from engine.common.files.copyup import copy_up
from engine.common.system import private
from engine.common.threads import run_in_thread
from engine.common.timeline import Timeline, latest
from server.containers.context import ROOT_LABEL, ContainerContext
from server.containers.create import validate
from server.containers.create.defaults import adapt_host_config, command, hostname
from server.containers.create.merge import merge_config
from server.containers.create.unsupported import refuse_unsupported
from server.containers.host.remap import Remap, as_container_root
from server.containers.layersize import LayerSize
from server.containers.logs.config import merge_log_config
from server.containers.model import Container
from server.containers.mounts import disklimit, initlayer, orphan_volumes
from server.containers.mounts import mounts as mount_points
from server.containers.mounts.mounting import open_below
from server.containers.mounts.rootfs import mounted, mounts_of
from server.containers.mounts.snapshot import FileKind, file_kind
from server.containers.plan import MountPoint
from server.containers.spec import security
from server.containers.values.counts import check_counts
from server.images.model import Image
from server.registry import oci


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A parsed request. ``owner`` and ``credentials``: the container's (see ``ContainerPlan``). ``platform``:
    ``os[/arch[/variant]]``, None: the host's. ``plain_readonly``: see ``mounts.register``. ``managed`` and
    ``private_binds``: see ``Container``."""

    config: ContainerConfig
    host_config: HostConfig
    endpoints: dict[str, EndpointSettings]
    name: str = ""
    owner: str = ""
    credentials: tuple[int, ...] = ()
    platform: str | None = None
    plain_readonly: bool = False
    managed: bool = False
    private_binds: Mapping[str, str] = field(default_factory=dict)


async def create(
    context: ContainerContext, rules: validate.Rules, request: CreateRequest
) -> tuple[Container, list[str]]:
    """Makes a container; returns it with the warnings for the client.

    :raises WharfError: INVALID_ARGUMENT: the request; NOT_FOUND: the image; CONFLICT: the name is in use;
        RESOURCE_EXHAUSTED: the disk is full.
    """
    timeline = Timeline("create", owner=request.owner)
    try:
        container, warnings = await _create(context, rules, request, timeline)
    except BaseException as error:
        timeline.done(error)
        raise
    container.timelines = latest(container.timelines, timeline.done())
    return container, warnings


async def _create(
    context: ContainerContext, rules: validate.Rules, request: CreateRequest, timeline: Timeline
) -> tuple[Container, list[str]]:
    config, host = request.config, request.host_config
    validate.check_request(config, host, rules)
    check_counts(config, host, request.endpoints)
    refuse_unsupported(config, host)
    if not host.restart_policy.name:
        host = replace(host, restart_policy=replace(host.restart_policy, name="no"))
    config = validate.check_config(config)
    if host.mounts:
        # In a thread: the check of a bind's source blocks on a file system that doesn't answer.
        exists = mount_points.existence(request.owner, request.credentials)
        host, warnings = await run_in_thread(validate.check_host_config, host, rules, exists)
    else:
        host, warnings = validate.check_host_config(host, rules)
    image = None
    if config.image:
        image = await context.images.of(request.owner).resolve(config.image, platform=request.platform)
        if request.platform is None and (warning := _platform_warning(image.platform)):
            warnings.append(warning)
    timeline.mark("checks")
    await context.owner_remaps.prepare(request.owner)
    host = adapt_host_config(context, host, request.owner)
    config = merge_config(config, image.container_config if image is not None else {})
    validate.check_paths(config, host)
    host = replace(
        host,
        pids_limit=host.pids_limit if host.pids_limit is not None and host.pids_limit > 0 else None,
        log_config=merge_log_config(host.log_config, context.defaults.log_config),
    )
    options = security.parse(host.security_opt)

    container_id = timeline.subject = secrets.token_hex(32)
    no_volumes: dict[str, dict[str, Any]] | None = None if image is not None else {}
    config = replace(
        config, hostname=hostname(config, host, container_id), volumes=config.volumes if config.volumes else no_volumes
    )
    async with AsyncExitStack() as undo:
        name = context.registry.reserve(request.name, container_id, request.owner)
        undo.callback(context.registry.release, name, request.owner)
        container = Container(
            id=container_id,
            name=name,
            owner=request.owner,
            credentials=list(request.credentials),
            created_ns=time.time_ns(),
            config=config,
            host_config=host,
            networking=request.endpoints,
            managed=request.managed,
            private_binds=dict(request.private_binds),
            image_id=image.id if image is not None else "",
            image_manifest=_descriptor(image) if image is not None else None,
            driver=context.engine.snapshots.snapshotter,
            directory=f"{context.config.data_root}/containers/{container_id}",
            no_new_privileges=(
                context.config.no_new_privileges if options.no_new_privileges is None else options.no_new_privileges
            ),
            seccomp_profile=options.seccomp,
            apparmor_profile=options.apparmor,
        )
        container.path, container.args = command(config)
        if host.log_config.type in ("json-file", "local"):
            container.log_path = _log_path(container)
        await context.networks.check(container)
        undo.push_async_callback(context.networks.remove, container)
        timeline.mark("networks")
        undo.push_async_callback(_remove_snapshot, context, container_id)
        labels = {GC_ROOT: str(container.created_ns), ROOT_LABEL: str(context.config.data_root)}
        if image is not None:
            container.rootfs = await initlayer.prepare(context, image, container_id, labels)
        else:
            container.rootfs = await context.engine.snapshots.prepare(container_id, "", labels)
        container.layer = LayerSize(parent=initlayer.layer_of(image) if image is not None else "", pristine=True)
        if host.storage_opt:
            await asyncio.to_thread(disklimit.set_limit, container.rootfs, host.storage_opt)
        timeline.mark("snapshot")
        if config.working_dir:
            await make_working_directory(context, container)
        undo.callback(shutil.rmtree, container.directory, ignore_errors=True)
        undo.callback(shutil.rmtree, f"{context.config.exec_root}/containers/{container_id}", ignore_errors=True)
        private.make_directory(container.directory, 0o710)
        await mount_points.register(context, container, undo, plain_readonly=request.plain_readonly)
        await populate(context, container)
        timeline.mark("mounts")
        # Requests for the container wait for the lock until its record is written.
        async with container.lock:
            context.registry.add(container)
            undo.callback(context.registry.remove, container)
            try:
                await context.save(container, new=True)
            except BaseException:
                container.state.dead = True
                raise
        orphan_volumes.clear(container.directory)
        timeline.mark("save")
        undo.pop_all()
    context.publish(container, "create")
    return container, warnings


async def _remove_snapshot(context: ContainerContext, key: str) -> None:
    try:
        await context.engine.snapshots.remove(key)
    except WharfError:
        return  # it was not made, or the engine doesn't answer: recovery removes snapshots without a record


def _log_path(container: Container) -> str:
    if container.host_config.log_config.type == "local":
        return ""
    return f"{container.directory}/{container.id}-json.log"


def _descriptor(image: Image) -> dict[str, Any]:
    """``ImageManifestDescriptor`` of inspect."""
    target = image.manifest_descriptor
    found: dict[str, Any] = {"mediaType": target.media_type, "digest": target.digest, "size": target.size}
    if target.platform is not None:
        platform = {"architecture": target.platform.architecture, "os": target.platform.os}
        if target.platform.variant:
            platform["variant"] = target.platform.variant
        found["platform"] = platform
    return found


def _platform_warning(platform: Platform) -> str:
    own = oci.highest_host_platform()
    if oci.rank(own, platform) is not None:
        return ""
    return (
        f"The requested image's platform ({oci.format_platform(platform)}) does not match the detected host platform "
        f"({oci.format_platform(own)}) and no specific platform was requested"
    )


async def make_working_directory(context: ContainerContext, container: Container) -> None:
    """Makes the working directory if the image lacks it: ``docker cp`` can use it before the first start.

    :raises WharfError: INTERNAL: a part of the path is a file.
    """
    path = container.config.working_dir
    kind = file_kind(container.rootfs, path)
    if kind is FileKind.FILE:
        raise internal(f"Cannot mkdir: {path} is not a directory")
    if kind is FileKind.MISSING:
        async with mounted(context, container, "working-directory") as root:
            await asyncio.to_thread(_make_directories, context.remap_of(container), root + path)


def _make_directories(remap: Remap | None, path: str) -> None:
    with as_container_root(remap):
        os.makedirs(path, mode=0o755, exist_ok=True)


#: The kinds of files at a volume's destination whose content is copied. Where a link leads is known only when mounted.
_COPIED = (FileKind.DIRECTORY, FileKind.LINK)


async def populate(context: ContainerContext, container: Container) -> None:
    """Copies the image's files at each volume's destination into the volume, if it is empty.

    :raises WharfError: INTERNAL: reading or writing failed.
    """
    points = [point for point in container.mounts.values() if point.kind == "volume" and point.copy_data]
    if not points:
        return
    rootfs = await mounts_of(context, container)
    points = [point for point in points if file_kind(rootfs, point.destination) in _COPIED]
    if not points:
        return
    # The volumes of owners have the ids of the layers on disk, those of others the host's.
    async with mounted(context, container, "copy-up", mapped=not container.owner) as root:
        for point in points:
            user = f"{container.id}:copy-up"
            path = await context.volumes.mount(point.name, user)
            try:
                await run_in_thread(_copy_up, root, point, path)
            except WharfError as error:
                raise WharfError(error.kind, f"failed to populate volume: {error.message}") from error
            except OSError as error:
                raise internal(f"failed to populate volume: {error.filename}: {error.strerror}") from error
            finally:
                await context.volumes.unmount(point.name, user)


def _copy_up(root: str, point: MountPoint, volume: str) -> None:
    subpath = (point.spec.get("VolumeOptions") or {}).get("Subpath") or ""
    if not subpath:
        copy_up(root, point.destination, volume)
        return
    fd = open_below(volume, subpath)
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            copy_up(root, point.destination, f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
