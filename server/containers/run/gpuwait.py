"""Starts that wait for GPUs (``Gpus.wait``): before the start, without the container's lock, so that the container can
be listed, inspected, stopped and removed meanwhile."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager

from engine.common.errors import WharfError, conflict
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.run.remove import remove

log = logging.getLogger(__name__)

#: Within it the request ends if its client disconnects.
Cancellable = Callable[[], AbstractContextManager[None]]


async def wait_on_request(
    context: ContainerContext, container: Container, cancellable: Cancellable
) -> WharfError | None:
    """Waits if the container is to wait. None: the start may continue; else why it fails.

    :raises WharfError: CONFLICT: another start of it waits.
    :raises asyncio.CancelledError: the client has disconnected. A container with ``--rm`` is removed then.
    """
    gpus = context.gpus
    if gpus is None or _runs(container):
        return None
    if gpus.place(container) is not None:
        # Not as a failure of the start: the other one, perhaps by the restart policy, continues.
        raise conflict(f"container {container.id} is waiting for GPUs already")
    if not gpus.waits(container):
        return None
    try:
        with cancellable():
            await gpus.wait(container)
    except WharfError as error:
        return error
    except asyncio.CancelledError:
        if container.host_config.auto_remove:
            context.spawn(_remove(context, container), f"remove {container.id[:12]}")
        raise
    return None


async def _remove(context: ContainerContext, container: Container) -> None:
    try:
        await remove(context, container, force=True, volumes=True)
    except WharfError as error:
        log.info("container=%s --rm after its client has left: %s", container.id, error)


async def wait_by_policy(context: ContainerContext, container: Container) -> WharfError | None:
    """The same for a start by a restart policy, which a stop ends."""
    gpus = context.gpus
    if gpus is None or not gpus.waits(container, by_policy=True):
        return None
    waiting = asyncio.create_task(gpus.wait(container))
    stop = asyncio.create_task(context.restarts_of(container).cancelled.wait())
    try:
        await asyncio.wait((waiting, stop), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            waiting.result()
    except WharfError as error:
        return error
    finally:
        for task in (waiting, stop):
            task.cancel()
        await asyncio.gather(waiting, stop, return_exceptions=True)
    return None


@asynccontextmanager
async def locked(context: ContainerContext, container: Container) -> AsyncIterator[None]:
    """Locks a container for a start, and ends the allocation of its GPUs if it doesn't run afterwards."""
    async with container.lock:
        try:
            yield
        finally:
            if context.gpus is not None and not _runs(container):
                context.gpus.release(container)


def _runs(container: Container) -> bool:
    return container.state.running and not container.state.restarting
