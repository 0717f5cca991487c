"""Whether a user has the bytes of layers, whose snapshots and blobs all owners share."""

import hashlib
from collections.abc import AsyncIterator

from engine.api.client import Engine
from engine.api.labels import UNCOMPRESSED
from engine.api.types import Descriptor
from engine.common.errors import invalid
from server.images.archive.version1 import diff_id
from server.images.model import Image
from server.registry import oci

# The number of layers that are remembered.
_KEPT = 10_000


async def receive(pieces: AsyncIterator[bytes], blob: Descriptor) -> None:
    """Read a blob that is stored already from a client or a registry: a digest alone is no right to it.

    :raises WharfError: INVALID_ARGUMENT: other bytes.
    """
    found, size = hashlib.sha256(), 0
    async for piece in pieces:
        size += len(piece)
        if size > blob.size:
            break
        found.update(piece)
    if size != blob.size or f"sha256:{found.hexdigest()}" != blob.digest:
        raise invalid(f"{blob.digest}: other bytes were received")


async def check_layer(engine: Engine, layer: Descriptor, claimed: str) -> None:
    """Compare a stored layer with the diff id that a configuration claims for it.

    :raises WharfError: INVALID_ARGUMENT: it has another; NOT_FOUND: the blob is missing.
    """
    # The label is of who unpacked or wrote the layer, never what a client claims.
    known = (await engine.content.info(layer.digest)).labels.get(UNCOMPRESSED, "")
    found = known or (layer.digest if layer.digest == claimed else await diff_id(engine, layer))
    if found != claimed:
        raise invalid(f"layer {layer.digest} has the diff id {found}, the configuration has {claimed}")


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
            if (layer.digest, claimed) not in self._pairs:
                await check_layer(self._engine, layer, claimed)
                if len(self._pairs) >= _KEPT:
                    self._pairs.clear()
                self._pairs.add((layer.digest, claimed))
