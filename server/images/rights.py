"""What a user may have of the content, which is stored once for all owners."""

from engine.api.client import Engine
from engine.api.labels import UNCOMPRESSED
from engine.common.errors import invalid
from server.images.archive.version1 import diff_id
from server.images.context import ImageContext
from server.images.model import Image
from server.registry import oci

# The number of layers that are remembered.
_KEPT = 10_000


async def digests_of(context: ImageContext) -> set[str]:
    """The digests of all documents and blobs below the images that exist for the owner."""
    trees = await context.trees.get_all(record.target for record in await context.names.all())
    return {digest for tree in trees.values() for digest in tree.blobs}


class ProvenLayers:
    """Layers of which it is known that their bytes have the diff id.

    A snapshot is known by its chain id, which follows from the diff ids in the image's configuration, and all owners
    share it. A configuration, which anybody can write, may have the diff ids of another user's layers beside layers
    of its own: whoever has not the bytes may not have the snapshot.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pairs: set[tuple[str, str]] = set()

    async def check(self, image: Image) -> None:
        """:raises WharfError: INVALID_ARGUMENT: a layer has another diff id; NOT_FOUND: a layer's blob is missing."""
        layers = oci.parse_manifest(dict(image.manifest)).layers
        if len(layers) != len(image.diff_ids):
            raise invalid("mismatched image rootfs and manifest layers")
        for layer, claimed in zip(layers, image.diff_ids, strict=True):
            if (layer.digest, claimed) in self._pairs:
                continue
            known = (await self._engine.content.info(layer.digest)).labels.get(UNCOMPRESSED, "")
            # The label is of who unpacked or wrote the layer.
            found = known or (layer.digest if layer.digest == claimed else await diff_id(self._engine, layer))
            if found != claimed:
                raise invalid(f"layer {layer.digest} has the diff id {found}, the configuration has {claimed}")
            if len(self._pairs) >= _KEPT:
                self._pairs.clear()
            self._pairs.add((layer.digest, claimed))
