"""Disk usage of images: their blobs and their unpacked layers."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError
from server.images.model import Image
from server.images.unpacker import Unpacker
from server.registry import documents, oci


@dataclass(slots=True)
class Sizes:
    """Caches sizes of committed snapshots, which never change."""

    engine: Engine
    unpacker: Unpacker
    _snapshots: dict[str, int] = field(default_factory=dict)
    _blobs: dict[str, dict[str, int]] = field(default_factory=dict)  # by target, if complete

    async def snapshot(self, chain_id: str) -> int | None:
        """Return one layer's own size; ``None`` if it is not unpacked."""
        size = self._snapshots.get(chain_id)
        if size is None:
            size = await self._usage(chain_id)
            if size is None and await self.unpacker.finished(chain_id):
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
        """Drop cached sizes after layers were removed: a layer may be unpacked again with another size."""
        self._snapshots.clear()
        self._blobs.clear()

    async def unpacked(self, image: Image) -> int:
        """Return the size of all layers of the image; 0 if not all of them are unpacked."""
        total = 0
        for chain in reversed(oci.chain_ids(image.diff_ids)):  # the last one exists only if the others do
            size = await self.snapshot(chain)
            if size is None:
                return 0
            total += size
        return total

    async def blobs(self, image: Image) -> dict[str, int]:
        """Return the sizes of the local blobs of a manifest: itself, config and layers."""
        return await self.below(image.manifest_descriptor)

    async def below(self, target: Descriptor) -> dict[str, int]:
        """Return the sizes of all local blobs of a target: indexes, manifests of images and other artifacts, and the
        blobs that they refer to."""
        found = self._blobs.get(target.digest)
        if found is None:
            found = {}
            if await self._walk(target, found):
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

    async def content(self, image: Image) -> int:
        """Return the sum of the sizes of :meth:`blobs`."""
        return sum((await self.blobs(image)).values())

    async def get(self, image: Image) -> int:
        return await self.unpacked(image) + await self.content(image)


def distinct_chains(images: Iterable[Image]) -> list[str]:
    """Return every layer of some images, once per image that has it."""
    return [chain for image in images for chain in dict.fromkeys(oci.chain_ids(image.diff_ids))]
