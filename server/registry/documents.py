"""Small blobs of the content store: documents are read with their digest verified, and written with the labels that
protect the blobs they reference."""

from collections.abc import Mapping

from engine.api.client import Engine
from engine.api.labels import GC_REF
from engine.api.types import ContentInfo, Descriptor
from engine.common import limits
from engine.common.errors import Kind, WharfError, invalid
from server.registry import oci
from server.registry.oci import Json


async def read(engine: Engine, desc: Descriptor) -> Json:
    """Reads a manifest, an index or a config.

    :raises WharfError: NOT_FOUND; INVALID_ARGUMENT if it is too large or not a JSON object.
    """
    if desc.size > limits.DOCUMENT_BYTES:
        raise limits.exceeded("DOCUMENT_BYTES", f"{desc.digest}: the size {desc.size} of a {desc.media_type}")
    return oci.load(await engine.content.read_all(desc.digest), desc.digest)


async def has(engine: Engine, digest: str) -> bool:
    return await size(engine, digest) is not None


async def size(engine: Engine, digest: str) -> int | None:
    """The size of a blob in bytes; None if it isn't in the store. A manifest may state a wrong size."""
    info = await find(engine, digest)
    return info.size if info is not None else None


async def stored(engine: Engine, digest: str) -> int | None:
    """The bytes that a blob takes in the store; None if it isn't there."""
    info = await find(engine, digest)
    return info.stored if info is not None else None


async def find(engine: Engine, digest: str) -> ContentInfo | None:
    """What the store knows of a blob; None if it isn't there."""
    try:
        return await engine.content.info(digest)
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            return None
        raise


async def has_sized(engine: Engine, desc: Descriptor) -> bool:
    """Whether a blob is in the store, with the size in a manifest or an index.

    :raises WharfError: INVALID_ARGUMENT if its size differs.
    """
    found = await size(engine, desc.digest)
    if found is not None and found != desc.size:
        raise invalid(f"{desc.digest}: {found} bytes where the manifest says {desc.size}")
    return found is not None


async def write(
    engine: Engine, data: bytes, media_type: str, *, labels: Mapping[str, str] | None = None, expected: str = ""
) -> Descriptor:
    """Writes a document; a manifest or an index gets its labels. Call it under a lease.

    :raises WharfError: INVALID_ARGUMENT if its digest is not ``expected``.
    """
    digest = oci.digest_of(data)
    if expected and expected != digest:
        raise invalid(f"unexpected digest: got {digest}, expected {expected}")
    words = dict(labels or {})
    if oci.is_index(media_type) or oci.is_manifest(media_type):
        words.update(oci.ref_labels(oci.load(data, digest), media_type))
    await engine.content.write_blob(f"document-{digest}", data, digest=digest, labels=words)
    return Descriptor(media_type, digest, len(data))


def snapshot_label(engine: Engine, chain_id: str) -> dict[str, str]:
    """The label with which a config protects the image's snapshot; none for an image without layers."""
    return {f"{GC_REF}snapshot.{engine.snapshots.snapshotter}": chain_id} if chain_id else {}


async def reference_snapshot(engine: Engine, config_digest: str, chain_id: str) -> None:
    """Labels the config so that it protects the image's snapshot."""
    await engine.content.update_labels(config_digest, snapshot_label(engine, chain_id))
