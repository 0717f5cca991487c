"""Whether a user has the bytes of layers, whose snapshots and blobs all owners share."""

from collections.abc import AsyncIterator

from engine.api.client import Engine
from engine.api.labels import UNCOMPRESSED
from engine.api.types import Descriptor
from engine.common.errors import invalid
from server.images.archive.version1 import diff_id
from server.images.model import Image
from server.registry import oci
from server.registry.proof import is_blob

# The number of layers that are remembered.
_KEPT = 10_000


async def receive(pieces: AsyncIterator[bytes], blob: Descriptor) -> None:
    """Read a blob that is stored already from a client or a registry, which shows that the sender has its bytes: its
    digest alone, which a manifest of any user may contain, does not.

    :raises WharfError: INVALID_ARGUMENT: other bytes.
    """
    if not await is_blob(pieces, blob):
        raise invalid(f"{blob.digest}: other bytes were received")


async def check_layer(engine: Engine, layer: Descriptor, claimed: str) -> None:
    """Compare a stored layer with the diff id that a configuration claims for it.

    :raises WharfError: INVALID_ARGUMENT: it has another; NOT_FOUND: the blob is missing.
    """
    # Set when the engine unpacks or writes the layer, never from a client's configuration.
    known = (await engine.content.info(layer.digest)).labels.get(UNCOMPRESSED, "")
    found = known or (layer.digest if layer.digest == claimed else await diff_id(engine, layer))
    if found != claimed:
        raise invalid(f"layer {layer.digest} has the diff id {found}, the configuration has {claimed}")


class ProvenLayers:
    """Remembers which layers were compared with their diff ids.

    All owners share snapshots, whose names are chain ids, computed from the diff ids in an image's configuration.
    Anybody can write a configuration with the diff ids of another user's layers beside layers of the own, so a user
    may use a snapshot only if the layers of the image have these diff ids.
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
            if (layer.digest, claimed) not in self._pairs:
                await check_layer(self._engine, layer, claimed)
                if len(self._pairs) >= _KEPT:
                    self._pairs.clear()
                self._pairs.add((layer.digest, claimed))
