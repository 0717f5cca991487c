"""The engine's objects of a container that runs: its record and its task."""

import logging

from engine.api.types import ContainerRecord
from engine.common.errors import Kind, WharfError
from server.containers.context import ROOT_LABEL, ContainerContext
from server.containers.plan import ContainerPlan
from server.containers.stdio.stdio import task_owner
from server.containers.values.signals import SIGKILL
from server.registry.reference import Reference, parse_any

log = logging.getLogger(__name__)


def engine_record(
    context: ContainerContext, container: ContainerPlan, spec: dict[str, object], *, snapshot_key: str
) -> ContainerRecord:
    """The engine's record of a container that is about to run.

    :raises WharfError: INVALID_ARGUMENT: its runtime can't be used.
    """
    runtime_name, options = context.runtimes.engine_options(
        container.host_config.runtime, owner=task_owner(context, container)
    )
    return ContainerRecord(
        id=container.id,
        image=_image_name(container),
        # Recovery finds the records that a killed daemon has left by this label.
        labels={ROOT_LABEL: str(context.config.data_root)},
        runtime_name=runtime_name,
        runtime_options=options,
        spec=spec,
        snapshotter=context.engine.snapshots.snapshotter,
        snapshot_key=snapshot_key,
    )


def _image_name(container: ContainerPlan) -> str:
    """The image's full name for the engine's tools such as ``ctr``; "" if the container was created by an image's
    id."""
    requested = container.config.image or ""
    if container.image_id.removeprefix("sha256:").startswith(requested.removeprefix("sha256:")):
        return ""
    try:
        reference = parse_any(requested)
    except WharfError:
        return ""
    return str(reference.tagged()) if isinstance(reference, Reference) else ""


async def remove_task(context: ContainerContext, container_id: str) -> None:
    """Kills and deletes a task; a missing one is no error, other errors are logged."""
    try:
        await context.engine.tasks.kill(container_id, SIGKILL, everything=True)
        await context.engine.tasks.wait(container_id)
    except WharfError as error:
        if error.kind not in (Kind.NOT_FOUND, Kind.FAILED_PRECONDITION):
            log.warning("container=%s task could not be killed: %s", container_id, error)
    try:
        await context.engine.tasks.delete(container_id)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            log.warning("container=%s task could not be deleted: %s", container_id, error)


async def remove_engine_record(context: ContainerContext, container_id: str) -> None:
    """Deletes the engine's record of a container; a missing one is no error, other errors are logged."""
    try:
        await context.engine.containers.delete(container_id)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            log.warning("container=%s could not be deleted in the engine: %s", container_id, error)
