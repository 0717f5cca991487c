"""Small blobs of the content store: documents read with their digest checked, and written with the labels that
keep alive what they refer to."""

from collections.abc import Mapping

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.errors import Kind, WharfError, invalid
from engine.registry import oci
from engine.registry.oci import Json


async def read(engine: Engine, desc: Descriptor) -> Json:
    """A manifest, an index or a config.

    :raises WharfError: NOT_FOUND; INVALID_ARGUMENT for one that is too large or no JSON object.
    """
    if desc.size > oci.DOCUMENT_MAX:
        raise invalid(f"{desc.digest}: {desc.size} bytes are too many for a {desc.media_type}")
    return oci.load(await engine.content.read_all(desc.digest), desc.digest)


async def has(engine: Engine, digest: str) -> bool:
    try:
        await engine.content.info(digest)
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            return False
        raise
    return True


async def write(
    engine: Engine, data: bytes, media_type: str, *, labels: Mapping[str, str] | None = None, expected: str = ""
) -> Descriptor:
    """Writes a document; a manifest or an index gets its labels. Under a lease.

    :raises WharfError: INVALID_ARGUMENT when it is not what ``expected`` says.
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
    """The label by which a config keeps the image's root file system; none for an image without layers."""
    return {f"containerd.io/gc.ref.snapshot.{engine.snapshots.snapshotter}": chain_id} if chain_id else {}


async def hold_snapshot(engine: Engine, config_digest: str, chain_id: str) -> None:
    """From now on the config keeps the image's root file system."""
    await engine.content.update_labels(config_digest, snapshot_label(engine, chain_id))
