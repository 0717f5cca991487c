"""Layers that a remote snapshotter provides without a download: it fetches their files from the registry as containers
read them, by its own configuration and credentials. The content store lacks their blobs; the label of a layer's
snapshot says which image had it.

Imported with a remote snapshotter only (``engine.snapshots.remote``).
"""

from collections.abc import Sequence

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError
from server.registry import documents, oci
from server.registry.reference import Reference, parse
from server.registry.unpack import TARGET, extraction_key, lease_snapshot

#: The labels by which remote snapshotters find a layer (``pkg/snapshotters/annotations.go`` of containerd).
_REFERENCE = "containerd.io/snapshot/cri.image-ref"
_MANIFEST = "containerd.io/snapshot/cri.manifest-digest"
_LAYER = "containerd.io/snapshot/cri.layer-digest"
_LAYERS = "containerd.io/snapshot/cri.image-layers"
#: Annotations of a layer that are for its snapshotter, as the digest of an eStargz layer's table of contents.
_INHERITED = "containerd.io/snapshot/"
#: containerd's limit for the name and value of a label.
_LABEL = 4096


async def provide(
    engine: Engine, reference: Reference, manifest: Descriptor, layers: Sequence[Descriptor], diff_ids: Sequence[str]
) -> int:
    """Asks the snapshotter for the layers of an image, from the base up to the first that it can't provide. Returns how
    many have snapshots then, which the caller's lease protects.

    :raises WharfError: UNAVAILABLE: the snapshotter does not answer.
    """
    names = oci.chain_ids(diff_ids)
    for index, name in enumerate(names):
        if await lease_snapshot(engine, name):
            continue
        key = extraction_key(name)
        labels = _labels(reference, manifest, layers[index:])
        try:
            await engine.snapshots.prepare(key, names[index - 1] if index else "", {**labels, TARGET: name})
        except WharfError as error:
            if error.kind is not Kind.ALREADY_EXISTS:
                raise
            continue
        await engine.snapshots.remove(key)  # it would be unpacked now
        return index
    return len(names)


async def provide_again(
    engine: Engine, config: str, manifest: Descriptor, layers: Sequence[Descriptor], diff_ids: Sequence[str]
) -> None:
    """Asks a remote snapshotter for the layers of a local image, which has lost them. ``config``: the digest of its
    config, whose labels say where it was pulled from."""
    prefix = f"{oci.SOURCE}."
    labels = (await engine.content.info(config)).labels
    places = ((name.removeprefix(prefix), paths) for name, paths in labels.items() if name.startswith(prefix))
    for domain, paths in places:
        reference = Reference(domain, paths.split(",")[-1], digest=manifest.digest)
        if await provide(engine, reference, manifest, layers, diff_ids) == len(layers):
            return


async def origins(engine: Engine, target: Descriptor) -> dict[str, Reference]:
    """Returns the images that had the layers below a target which the content store lacks, by the layers' digests.
    Without the layers of platforms that are not local."""
    try:
        document = await documents.read(engine, target)
        if oci.is_index(target.media_type):
            found: dict[str, Reference] = {}
            for child in oci.parse_index(document):
                found |= await origins(engine, child)
            return found
        manifest = oci.parse_manifest(document, target.digest)
        config = await documents.read(engine, manifest.config) if manifest.is_image else {}
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            return {}
        raise
    names = oci.chain_ids(oci.diff_ids(config)) if config else []
    pairs = zip(manifest.layers, names, strict=False)
    missing = {layer.digest: name for layer, name in pairs if not await documents.has(engine, layer.digest)}
    return {digest: image for digest, name in missing.items() if (image := await _origin(engine, name)) is not None}


async def _origin(engine: Engine, name: str) -> Reference | None:
    try:
        info = await engine.snapshots.stat(name)
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            return None
        raise
    image = info.labels.get(_REFERENCE)
    return parse(image) if image else None


def _labels(reference: Reference, manifest: Descriptor, layers: Sequence[Descriptor]) -> dict[str, str]:
    """Where the first of these layers is; the others are above it, for a snapshotter that fetches ahead."""
    digests = ""
    for layer in layers:
        longer = f"{digests},{layer.digest}".lstrip(",")
        if len(_LAYERS) + len(longer) > _LABEL:
            break
        digests = longer
    inherited = {name: value for name, value in layers[0].annotations.items() if name.startswith(_INHERITED)}
    return {
        **inherited,
        _REFERENCE: str(reference),
        _MANIFEST: manifest.digest,
        _LAYER: layers[0].digest,
        _LAYERS: digests,
    }
