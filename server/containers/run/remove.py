"""``docker rm``: deletes the record first, then the rest in the background. If the daemon dies meanwhile, recovery
removes the rest."""

import asyncio
import logging
import shutil

from engine.common.errors import Kind, WharfError, conflict
from server.containers.context import ContainerContext
from server.containers.hooks import call
from server.containers.model import Container
from server.containers.mounts import mounting, mounts, orphan_volumes
from server.containers.run.stop import kill_and_wait

log = logging.getLogger(__name__)

_ATTEMPTS = 5


async def remove(
    context: ContainerContext, container: Container, *, force: bool = False, volumes: bool = False, key: str = ""
) -> None:
    """Removes a container. ``force``: kills a running one first. ``volumes``: also removes its anonymous volumes.
    ``key``: the container's name or id in the request, for the error's sentence.

    :raises WharfError: CONFLICT: it runs, or is being removed already.
    """
    state = container.state
    if state.removing:
        raise conflict(f"removal of container {key or container.id} is already in progress")
    if context.registry.by_id(container.id) is None:
        return
    state.removing = True
    try:
        for _ in range(_ATTEMPTS):
            if state.running:
                await _end(context, container, force=force)
            async with container.lock:
                # A start that held the lock may have succeeded meanwhile.
                if not state.running:
                    await _remove(context, container, volumes=volumes)
                    return
        raise conflict(f'cannot remove container "/{container.name}": it is started again and again')
    finally:
        state.removing = False


async def _end(context: ContainerContext, container: Container, *, force: bool) -> None:
    name, status = f'"/{container.name}"', container.state.status
    if not force:
        if status == "paused":
            raise conflict(f"cannot remove container {name}: container is paused and must be unpaused first")
        raise conflict(
            f"cannot remove container {name}: container is {status}: stop the container before removing or force remove"
        )
    try:
        await kill_and_wait(context, container)
    except WharfError as error:
        if error.kind is not Kind.CONFLICT:
            raise WharfError(error.kind, f"cannot remove container {name}: could not kill: {error.message}") from error


async def _remove(context: ContainerContext, container: Container, *, volumes: bool) -> None:
    container.state.dead = True
    context.restarts_of(container).cancel()
    await mounting.tear_down(context, container)
    await context.networks.remove(container)
    orphan_volumes.clear(container.directory)
    if volumes:
        orphan_volumes.add(container.directory, [point.name for point in container.mounts.values() if point.anonymous])
    await context.store.delete(container.id)
    context.registry.remove(container)
    context.restarts.pop(container.id, None)
    call(context.hooks.removed, container)
    for sentence in await mounts.release(context, container, remove_anonymous=volumes):
        log.error("container=%s removing volumes: %s", container.id, sentence)
    context.spawn(discard(context, container.id, container.directory), f"discard {container.id[:12]}")
    context.waiters.removed(container)
    context.publish(container, "destroy")


async def discard(context: ContainerContext, container_id: str, directory: str) -> None:
    """Removes the snapshot and the directories of a container without a record. Errors are logged."""
    await context.wait_cleaned(container_id)
    try:
        await mounting.remove_snapshot(context, container_id)
    except WharfError as error:
        log.warning("container=%s snapshot is not removed before the daemon's next start: %s", container_id, error)
    runtime_directory = f"{context.config.exec_root}/containers/{container_id}"
    await asyncio.to_thread(_remove_trees, directory, runtime_directory)


def _remove_trees(*paths: str) -> None:
    for path in paths:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("%s is not removed before the daemon's next start: %s", path, error)
