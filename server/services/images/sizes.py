"""What images take on the disk: their blobs, and their layers unpacked."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.api.client import Engine
from engine.errors import Kind, WharfError
from engine.registry import documents, oci
from server.services.images.model import Image
from server.services.images.unpacking import Unpacking


@dataclass(slots=True)
class Sizes:
    """Sizes of committed snapshots never change: they are asked for once."""

    engine: Engine
    unpacking: Unpacking
    _snapshots: dict[str, int] = field(default_factory=dict)
    _blobs: dict[str, dict[str, int]] = field(default_factory=dict)  # by manifest, where all of them are here

    async def snapshot(self, chain_id: str) -> int | None:
        """One layer's own size; None if it is not unpacked."""
        size = self._snapshots.get(chain_id)
        if size is None:
            size = await self._usage(chain_id)
            if size is None and await self.unpacking.finished(chain_id):
                size = await self._usage(chain_id)
            if size is not None:
                self._snapshots[chain_id] = size
        return size

    async def _usage(self, chain_id: str) -> int | None:
        try:
            return (await self.engine.snapshots.usage(chain_id)).size
        except WharfError as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            raise

    def forget(self) -> None:
        """Layers were removed: one with the same chain id may be unpacked with another size later."""
        self._snapshots.clear()
        self._blobs.clear()

    async def unpacked(self, image: Image) -> int:
        """All layers of the image; 0 if it is not unpacked."""
        total = 0
        for chain in oci.chain_ids(image.diff_ids):
            total += await self.snapshot(chain) or 0
        return total

    async def blobs(self, image: Image) -> dict[str, int]:
        """The blobs of a manifest that are here, itself, config and layers, and their sizes."""
        manifest = image.manifest_descriptor
        found = self._blobs.get(manifest.digest)
        if found is None:
            parts = {d.digest: d for d in (manifest, *oci.children(dict(image.manifest), manifest.media_type))}
            found = {d.digest: d.size for d in parts.values() if await documents.has(self.engine, d.digest)}
            if len(found) == len(parts):
                self._blobs[manifest.digest] = found
        return found

    async def content(self, image: Image) -> int:
        """What those blobs take together."""
        return sum((await self.blobs(image)).values())

    async def of(self, image: Image) -> int:
        return await self.unpacked(image) + await self.content(image)


def distinct_chains(images: Iterable[Image]) -> list[str]:
    """Every layer of some images, once for each image that has it."""
    return [chain for image in images for chain in dict.fromkeys(oci.chain_ids(image.diff_ids))]
