"""Root file systems of images: unpacked on first use; one writable snapshot per container."""

from collections.abc import Mapping

from engine.api.client import Engine
from engine.api.types import Mount
from engine.common.errors import Kind, WharfError
from server.images.model import Image
from server.registry import documents, oci
from server.registry.unpack import OnLayerState, unpack


async def unpack_image(engine: Engine, image: Image, *, on_state: OnLayerState | None = None) -> None:
    """Unpack the image's layers to snapshots, referenced by its config's labels. Under a lease.

    :raises WharfError: NOT_FOUND when a layer's blob is missing.
    """
    layers = oci.parse_manifest(dict(image.manifest)).layers
    if engine.snapshots.remote:
        from server.registry import lazy

        await lazy.provide_again(engine, image.config_digest, image.manifest_descriptor, layers, image.diff_ids)
    await unpack(engine, layers, image.diff_ids, on_state=on_state)
    if image.chain_id:
        await documents.reference_snapshot(engine, image.config_digest, image.chain_id)


async def prepare(engine: Engine, image: Image, key: str, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
    """Create a writable snapshot ``key``. Usually a single call, as the layers are unpacked."""
    try:
        return await engine.snapshots.prepare(key, image.chain_id, labels)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND or not image.chain_id:
            raise
    async with engine.leases.acquire():
        await unpack_image(engine, image)
    # Outside of the lease above: the caller's lease holds the snapshot.
    return await engine.snapshots.prepare(key, image.chain_id, labels)
