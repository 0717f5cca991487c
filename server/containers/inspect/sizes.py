"""The sizes of containers: of the writable layer, and of all layers.

The engine measures a writable layer file by file. So the size is cached until something may have written to the layer
(:class:`LayerSize`); the layer of a running container is measured at each request.
"""

import asyncio
from collections.abc import Collection

from engine.common.errors import Kind, WharfError
from server.containers.context import ContainerContext
from server.containers.model import Container

#: How many layers are measured concurrently: each occupies a thread of the engine, and the disk.
CONCURRENT = 4
#: Up to this number of containers, parents are requested one by one; for more, one call lists all snapshots.
_FEW = 4
#: Snapshotters whose new layers on one parent have the same size: of layers without writes, one is measured.
_SAME_SIZE = ("overlayfs", "native")


async def get(context: ContainerContext, container: Container) -> tuple[int, int]:
    """``SizeRw`` and ``SizeRootFs`` in bytes; 0 for layers that are removed already, with their container."""
    return (await get_all(context, (container,)))[container.id]


async def get_all(context: ContainerContext, containers: Collection[Container]) -> dict[str, tuple[int, int]]:
    """As :func:`get` for several containers; by container id."""
    await _find_below(context, [container for container in containers if container.layer.below is None])
    own = await _own(context, containers)
    return {one.id: (own[one.id], own[one.id] + (one.layer.below or 0)) for one in containers}


async def _own(context: ContainerContext, containers: Collection[Container]) -> dict[str, int]:
    found: dict[str, int] = {}
    unwritten: dict[str, list[Container]] = {}  # parent → containers whose layers have the same size
    measured: list[Container] = []
    for container in containers:
        layer = container.layer
        if layer.own is not None and not container.state.running:
            found[container.id] = layer.own
        elif layer.pristine and layer.parent is not None and context.engine.snapshots.snapshotter in _SAME_SIZE:
            unwritten.setdefault(layer.parent, []).append(container)
        else:
            measured.append(container)
    measured += [containers_of_parent[0] for containers_of_parent in unwritten.values()]
    semaphore = asyncio.Semaphore(CONCURRENT)

    async def measure(container: Container) -> None:
        async with semaphore:
            found[container.id] = await _measure(context, container)

    async with asyncio.TaskGroup() as group:
        for container in measured:
            group.create_task(measure(container))
    changed: list[Container] = []
    for first, *others in unwritten.values():
        size = first.layer.own
        for container in others:
            # Something may have written to the first layer or to this one meanwhile.
            if size is None or not container.layer.pristine:
                changed.append(container)
            else:
                container.layer.own = found[container.id] = size
    async with asyncio.TaskGroup() as group:
        for container in changed:
            group.create_task(measure(container))
    return found


async def _measure(context: ContainerContext, container: Container) -> int:
    """Measures a writable layer; caches the size if nothing could write to the layer meanwhile."""
    layer, stamp = container.layer, container.layer.stamp
    was_running = container.state.running
    size = await _usage(context, container.id)
    if size is None:
        return 0
    if stamp is not None and stamp == layer.stamp and not was_running and not container.state.running:
        layer.own = size
    return size


async def _usage(context: ContainerContext, key: str) -> int | None:
    """The size of a snapshot in bytes; None: it doesn't exist."""
    try:
        return (await context.engine.snapshots.usage(key)).size
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            return None
        raise


async def _find_below(context: ContainerContext, containers: Collection[Container]) -> None:
    """Sets ``layer.parent`` and ``layer.below`` of the containers, unless the engine doesn't have their snapshots."""
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
    """The size of a committed snapshot and all its parents; None: one of them doesn't exist."""
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
    """The name of a snapshot's parent, "" if it has none; None: the snapshot doesn't exist."""
    if key in parents:
        return parents[key]
    try:
        parents[key] = (await context.engine.snapshots.stat(key)).parent
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            return None
        raise
    return parents[key]
