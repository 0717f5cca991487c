"""How much containers take: their own layers, and with their images'.

A writable layer is measured by the engine, file by file, so its size is remembered until something may have written
into it (:class:`LayerSize`). That of a running container is measured each time.
"""

import asyncio
from collections.abc import Collection

from engine.common.errors import Kind, WharfError
from server.containers.context import ContainerContext
from server.containers.model import Container

#: Layers that are measured at a time: each keeps a thread of the engine and the disk busy.
CONCURRENT = 4
#: Containers whose parents are asked for one by one; for more, all snapshots are listed with one call.
_FEW = 4
#: Snapshotters that make layers of one parent alike, so that of those that nothing was written to one is measured.
_ALIKE = ("overlayfs", "native")


async def get(context: ContainerContext, container: Container) -> tuple[int, int]:
    """``SizeRw`` and ``SizeRootFs`` in bytes; 0 where a layer is gone: the container is being removed."""
    return (await get_all(context, (container,)))[container.id]


async def get_all(context: ContainerContext, containers: Collection[Container]) -> dict[str, tuple[int, int]]:
    """As :func:`get`, by the containers' ids."""
    await _find_below(context, [container for container in containers if container.layer.below is None])
    own = await _own(context, containers)
    return {one.id: (own[one.id], own[one.id] + (one.layer.below or 0)) for one in containers}


async def _own(context: ContainerContext, containers: Collection[Container]) -> dict[str, int]:
    found: dict[str, int] = {}
    alike: dict[str, list[Container]] = {}  # those that nothing was written to, by parent
    measured: list[Container] = []
    for container in containers:
        layer = container.layer
        if layer.own is not None and not container.state.running:
            found[container.id] = layer.own
        elif layer.pristine and layer.parent is not None and context.engine.snapshots.snapshotter in _ALIKE:
            alike.setdefault(layer.parent, []).append(container)
        else:
            measured.append(container)
    measured += [group[0] for group in alike.values()]
    gate = asyncio.Semaphore(CONCURRENT)

    async def measure(container: Container) -> None:
        async with gate:
            found[container.id] = await _measure(context, container)

    async with asyncio.TaskGroup() as group:
        for container in measured:
            group.create_task(measure(container))
    again: list[Container] = []
    for first, *others in alike.values():
        size = first.layer.own
        for container in others:
            # Something may have been written meanwhile, to the first or to this one.
            if size is None or not container.layer.pristine:
                again.append(container)
            else:
                container.layer.own = found[container.id] = size
    async with asyncio.TaskGroup() as group:
        for container in again:
            group.create_task(measure(container))
    return found


async def _measure(context: ContainerContext, container: Container) -> int:
    layer, stamp = container.layer, container.layer.stamp
    ran = container.state.running
    size = await _usage(context, container.id)
    if size is None:
        return 0
    if stamp is not None and stamp == layer.stamp and not ran and not container.state.running:
        layer.own = size
    return size


async def _usage(context: ContainerContext, key: str) -> int | None:
    try:
        return (await context.engine.snapshots.usage(key)).size
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            return None
        raise


async def _find_below(context: ContainerContext, containers: Collection[Container]) -> None:
    parents: dict[str, str] = {}
    unknown = [container for container in containers if container.layer.parent is None]
    if len(unknown) > _FEW:
        parents = {info.name: info.parent async for info in context.engine.snapshots.walk()}
    totals: dict[str, int | None] = {"": 0}
    for container in containers:
        if container.layer.parent is None:
            container.layer.parent = await _parent(context, container.id, parents)
        if container.layer.parent is not None:
            container.layer.below = await _total(context, container.layer.parent, parents, totals)


async def _total(
    context: ContainerContext, key: str, parents: dict[str, str], totals: dict[str, int | None]
) -> int | None:
    """What a committed snapshot and all below it take; None: one of them is gone."""
    chain: list[str] = []
    current: str | None = key
    while current is not None and current not in totals:
        chain.append(current)
        current = await _parent(context, current, parents)
    total = None if current is None else totals[current]
    for name in reversed(chain):
        size = await _usage(context, name)
        total = None if size is None or total is None else total + size
        totals[name] = total
    return total


async def _parent(context: ContainerContext, key: str, parents: dict[str, str]) -> str | None:
    """The name of a snapshot's parent; None: the snapshot is gone."""
    if key in parents:
        return parents[key]
    try:
        parents[key] = (await context.engine.snapshots.stat(key)).parent
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            return None
        raise
    return parents[key]
