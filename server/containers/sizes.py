"""The sizes of containers: of the writable layer, and of all layers.

A writable layer is measured file by file. Its size is cached in the container's :class:`LayerSize` while the container
doesn't run, until something may have written to the layer. These operations discard it: a start; ``docker cp`` in both
directions and the other requests that mount the root file system, as missing mount points are made in the layer; the
removal of a task after its exit. An export and a commit read the layer only. The cache is not stored: after a restart
of wharfd, the first request measures all layers once. A size doesn't change when another program writes to the
directory of a snapshot, past this daemon, while the container is stopped. The layer of a running container is measured
for each request.
"""

from collections.abc import Collection, Sequence

from engine.api.client import Engine
from engine.common.batches import Batches
from engine.common.errors import Kind, WharfError
from server.containers.model import Container

#: The maximum number of layers that are measured before the next ones, which another client may wait for.
_BATCH = 256
#: Up to this number of containers, parents are requested one by one; for more, one call lists all snapshots.
_FEW = 4
#: Snapshotters whose new layers on one parent have the same size: of layers without writes, one is measured.
_SAME_SIZE = ("overlayfs", "native")


class LayerSizes:
    """Measures the layers of all containers; concurrent requests share a measurement."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batches = Batches(self._measure, most=_BATCH)

    async def get(self, container: Container) -> tuple[int, int]:
        """``SizeRw`` and ``SizeRootFs`` in bytes; 0 for layers that are removed already, with their container."""
        return (await self.get_all((container,)))[container.id]

    async def get_all(self, containers: Collection[Container]) -> dict[str, tuple[int, int]]:
        """As :meth:`get` for several containers; by container id."""
        await self._find_below([container for container in containers if container.layer.below is None])
        own = {one: size for one in containers if (size := _cached(one)) is not None}
        measured = await self._batches.get([one for one in containers if one not in own])
        own |= {one: size or 0 for one, size in measured.items()}
        return {one.id: (own[one], own[one] + (one.layer.below or 0)) for one in containers}

    async def _measure(self, containers: Sequence[Container]) -> dict[Container, int]:
        """Returns the sizes of the writable layers that exist."""
        found: dict[Container, int] = {}
        unwritten: dict[str, list[Container]] = {}  # parent → containers whose layers have the same size
        measured: list[Container] = []
        for container in containers:
            layer = container.layer
            if (size := _cached(container)) is not None:  # since the request
                found[container] = size
            elif layer.pristine and layer.parent is not None and self._engine.snapshots.snapshotter in _SAME_SIZE:
                unwritten.setdefault(layer.parent, []).append(container)
            else:
                measured.append(container)
        measured += [containers_of_parent[0] for containers_of_parent in unwritten.values()]
        found |= await self._request(measured)
        changed: list[Container] = []
        for first, *others in unwritten.values():
            size = first.layer.own
            for container in others:
                # Something may have written to the first layer or to this one meanwhile.
                if size is None or not container.layer.pristine:
                    changed.append(container)
                else:
                    container.layer.own = found[container] = size
        return found | await self._request(changed)

    async def _request(self, containers: Collection[Container]) -> dict[Container, int]:
        """Measures writable layers; caches the sizes of those to which nothing could write meanwhile."""
        stamps = {container: _stamp(container) for container in containers}
        usages = await self._engine.snapshots.usages([container.id for container in containers])
        found: dict[Container, int] = {}
        for container, stamp in stamps.items():
            if (usage := usages.get(container.id)) is not None:
                found[container] = usage.size
                if stamp is not None and stamp == _stamp(container):
                    container.layer.own = usage.size
        return found

    async def _find_below(self, containers: Collection[Container]) -> None:
        """Sets ``layer.parent`` and ``layer.below`` of the containers, unless the engine doesn't have their
        snapshots."""
        parents: dict[str, str] = {}
        unknown = [container for container in containers if container.layer.parent is None]
        if len(unknown) > _FEW:
            parents = {info.name: info.parent async for info in self._engine.snapshots.walk()}
        for container in unknown:
            container.layer.parent = await self._parent(container.id, parents)
        chains = {
            parent: await self._chain(parent, parents)
            for parent in {container.layer.parent for container in containers}
            if parent is not None
        }
        usages = await self._engine.snapshots.usages({name for chain in chains.values() for name in chain})
        for container in containers:
            if container.layer.parent is not None:
                chain = chains[container.layer.parent]
                if all(name in usages for name in chain):
                    container.layer.below = sum(usages[name].size for name in chain)

    async def _chain(self, key: str, parents: dict[str, str]) -> list[str]:
        """The names of a committed snapshot and all its parents."""
        chain: list[str] = []
        current: str | None = key
        while current:
            chain.append(current)
            current = await self._parent(current, parents)
        return chain

    async def _parent(self, key: str, parents: dict[str, str]) -> str | None:
        """The name of a snapshot's parent, "" if it has none; None: the snapshot doesn't exist."""
        if key in parents:
            return parents[key]
        try:
            parents[key] = (await self._engine.snapshots.stat(key)).parent
        except WharfError as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            raise
        return parents[key]


def _cached(container: Container) -> int | None:
    return None if container.state.running else container.layer.own


def _stamp(container: Container) -> int | None:
    """A number that changes with every write to the layer; None while something may write."""
    return None if container.state.running else container.layer.stamp
