"""Root file systems of images: unpacked when first needed, one writable snapshot for each container."""

from collections.abc import Mapping

from engine.api.client import Engine
from engine.api.types import Mount
from engine.common.errors import Kind, WharfError
from server.images.model import Image
from server.registry import documents, oci
from server.registry.unpack import Told, unpack


async def unpacked(engine: Engine, image: Image, *, told: Told | None = None) -> None:
    """Makes sure that the image's layers are snapshots, kept by its config. Under a lease.

    :raises WharfError: NOT_FOUND when a layer's blob isn't here.
    """
    layers = oci.parse_manifest(dict(image.manifest)).layers
    await unpack(engine, layers, image.diff_ids, told=told)
    if image.chain_id:
        await documents.hold_snapshot(engine, image.config_digest, image.chain_id)


async def prepare(engine: Engine, image: Image, key: str, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
    """A writable snapshot under ``key``. Usually one call: the layers are there."""
    try:
        return await engine.snapshots.prepare(key, image.chain_id, labels)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND or not image.chain_id:
            raise
    async with engine.leases.hold():
        await unpacked(engine, image)
    # Outside of the lease above: the snapshot belongs to the caller's.
    return await engine.snapshots.prepare(key, image.chain_id, labels)
