"""Disk usage of images: their blobs and their unpacked layers."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from engine.api.client import Engine
from engine.api.types import Descriptor, Usage
from engine.common.batches import Batches
from engine.common.errors import Kind, WharfError
from server.images.model import Image
from server.images.unpacker import Unpacker
from server.registry import documents, oci

log = logging.getLogger(__name__)

#: The maximum number of layers that are measured before the next ones, which another client may wait for.
_BATCH = 256


@dataclass(slots=True)
class Sizes:
    """Caches sizes of committed snapshots, which never change, and of blobs."""

    engine: Engine
    unpacker: Unpacker
    #: By chain id: the bytes, and when the snapshot was committed (ns since 1970; 0: unknown).
    _layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: Entries from before a removal: valid for a snapshot that was committed at the same time.
    _earlier: dict[str, tuple[int, int]] = field(default_factory=dict)
    _blobs: dict[str, dict[str, int]] = field(default_factory=dict)  # by target, if complete
    _generation: int = 0
    _batches: Batches[str, Usage] = field(init=False)

    def __post_init__(self) -> None:
        self._batches = Batches(self.engine.snapshots.usages, most=_BATCH)

    def forget(self) -> None:
        """Note that blobs or layers were removed: a layer may be unpacked again with another size."""
        self._generation += 1
        self._earlier |= self._layers
        self._layers.clear()
        self._blobs.clear()

    # layers

    async def layer(self, chain_id: str) -> int | None:
        """Return one layer's own size; ``None`` if it is not unpacked."""
        if (known := self._layers.get(chain_id)) is not None:
            return known[0]
        generation = self._generation
        size = (await self._measured((chain_id,))).get(chain_id)
        if size is None and await self.unpacker.finished(chain_id):
            size = (await self._measured((chain_id,))).get(chain_id)
        if size is not None and generation == self._generation:
            self._layers[chain_id] = size, 0
        return size

    async def layers(self, chain_ids: Iterable[str]) -> dict[str, int]:
        """Return the sizes of those layers that are unpacked, by chain id. One call lists which of the unknown ones
        exist; each of these is measured once."""
        wanted = dict.fromkeys(chain_ids)
        found = {chain: known[0] for chain in wanted if (known := self._layers.get(chain)) is not None}
        missing = [chain for chain in wanted if chain not in found]
        if not missing:
            return found
        generation = self._generation
        committed = await self._committed()
        if any([await self.unpacker.finished(chain) for chain in missing if chain not in committed]):
            committed = await self._committed()
        self._earlier = {chain: known for chain, known in self._earlier.items() if committed.get(chain) == known[1]}
        present = [chain for chain in missing if chain in committed]
        sizes = {chain: known[0] for chain in present if (known := self._earlier.get(chain)) is not None}
        sizes |= await self._measured([chain for chain in present if chain not in sizes])
        if generation == self._generation:
            self._layers |= {chain: (size, committed[chain]) for chain, size in sizes.items()}
        return found | sizes

    @contextmanager
    def _tolerating_absence(self) -> Iterator[None]:
        """Ends the block if the snapshotter is a process of its own that is absent: lists of images work without it."""
        try:
            yield
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE or not self.engine.snapshots.remote:
                raise
            log.warning("sizes of layers: %s", error.message)

    async def _committed(self) -> dict[str, int]:
        """Return when each committed snapshot was committed, by its name."""
        with self._tolerating_absence():
            return {info.name: info.created_at_ns async for info in self.engine.snapshots.walk(["kind==committed"])}
        return {}

    async def _measured(self, chain_ids: Collection[str]) -> dict[str, int]:
        """Return the sizes of those snapshots that exist. Concurrent requests share a measurement."""
        measured: Mapping[str, Usage | None] = {}
        with self._tolerating_absence():
            measured = await self._batches.get(chain_ids)
        return {chain: usage.size for chain, usage in measured.items() if usage is not None}

    # blobs

    async def content(self, image: Image) -> int:
        """Return the sum of the sizes of the image's local blobs: manifest, config and layers."""
        return sum((await self.below(image.manifest_descriptor)).values())

    async def below(self, target: Descriptor) -> dict[str, int]:
        """Return the sizes of all local blobs of one target: indexes, manifests of images and other artifacts, and the
        blobs that they refer to."""
        found = self._blobs.get(target.digest)
        if found is None:
            found = {}
            generation = self._generation
            if await self._walk(target, found) and generation == self._generation:
                self._blobs[target.digest] = found
        return found

    async def _walk(self, desc: Descriptor, found: dict[str, int]) -> bool:
        """Add the sizes below a descriptor; return whether all blobs are local."""
        if desc.digest in found:
            return True
        size = await documents.stored(self.engine, desc.digest)
        if size is None:
            return False
        found[desc.digest] = size
        if not (oci.is_index(desc.media_type) or oci.is_manifest(desc.media_type)):
            return True
        try:
            children = oci.children(await documents.read(self.engine, desc), desc.media_type)
        except WharfError as error:
            if error.kind not in (Kind.NOT_FOUND, Kind.INVALID_ARGUMENT):
                raise
            return False
        return all([await self._walk(child, found) for child in children])

    async def arriving(self) -> int:
        """Return the bytes of running writes and of interrupted pulls, which a later pull resumes."""
        return sum(ingest.offset for ingest in await self.engine.content.statuses())
