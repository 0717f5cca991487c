"""Disk usage of images: their blobs and their unpacked layers."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError
from engine.common.system.task_groups import run_all
from server.images.model import Image
from server.images.unpacker import Unpacker
from server.registry import documents, oci

#: How many layers are measured concurrently: each may occupy a thread of the engine, and the disk.
CONCURRENT = 8


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
        size = await self._usage(chain_id)
        if size is None and await self.unpacker.finished(chain_id):
            size = await self._usage(chain_id)
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
        left = iter([(chain, at) for chain in missing if (at := committed.get(chain)) is not None])

        async def measure() -> None:
            for chain, at in left:
                known = self._earlier.get(chain)
                size = known[0] if known is not None else await self._usage(chain)
                if size is not None:
                    found[chain] = size
                    if generation == self._generation:
                        self._layers[chain] = size, at

        await run_all(measure() for _ in range(min(CONCURRENT, len(missing))))
        return found

    async def _committed(self) -> dict[str, int]:
        """Return when each committed snapshot was committed, by its name."""
        return {info.name: info.created_at_ns async for info in self.engine.snapshots.walk(["kind==committed"])}

    async def _usage(self, chain_id: str) -> int | None:
        try:
            return (await self.engine.snapshots.usage(chain_id)).size
        except WharfError as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            raise

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
        size = await documents.size(self.engine, desc.digest)
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
