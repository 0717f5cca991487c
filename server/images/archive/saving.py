"""``docker save``: an OCI layout that is also a docker-archive. Equal images give equal bytes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from dataclasses import replace
from typing import Any

import orjson

from engine.api.types import Descriptor, ImageRecord, Platform
from engine.common.errors import WharfError
from engine.common.layers import header as tar
from engine.common.layers.header import Header
from engine.common.layers.tarwrite import encode
from engine.common.system import heap
from server.images.context import ImageContext
from server.images.model import Image, is_tag, no_such_image, reference_of
from server.registry import documents, oci
from server.registry.reference import Reference, parse

_BLOCK = 512

#: Images, each with its name (None: by id).
Named = Sequence[tuple[ImageRecord, Reference | None]]


async def select_images(context: ImageContext, texts: Sequence[str]) -> list[tuple[ImageRecord, Reference | None]]:
    """Return the images to save, each with its name (``None``: by id). A repository without a tag means all its tags.

    :raises WharfError: NOT_FOUND "No such image: …".
    """
    found: list[tuple[ImageRecord, Reference | None]] = []
    for text in texts:
        try:
            record: ImageRecord | None = await context.resolver.record(text)
        except WharfError as error:
            record, missing = None, error
        try:
            reference: Reference | None = parse(text)
        except WharfError:
            reference = None
        by_id = record is not None and (
            record.target.digest.startswith(text)
            or record.target.digest.partition(":")[2].startswith(text)
            or bool(reference and reference.digest)
        )
        if not by_id and reference is not None and reference.name_only:
            tags = [
                (one, reference_of(one))
                for one in sorted(await context.names.all(), key=lambda r: r.name)
                if is_tag(one, reference)
            ]
            if not tags:
                raise no_such_image(reference)
            found += tags
            continue
        if record is None:
            raise missing
        found.append((record, None if by_id else reference_of(record)))
    return found


async def save(
    context: ImageContext,
    images: Named,
    *,
    complete: Callable[[Descriptor], Awaitable[None]],
    platforms: Sequence[Platform] = (),
    quiet: bool = False,
) -> AsyncIterator[bytes]:
    """Yield the archive's bytes, under a lease until the end. ``complete`` downloads what is missing below a target.
    ``quiet`` publishes no event.

    Of one platform, the archive has its manifest; of several, the index with their manifests and attestations.

    :raises WharfError: NOT_FOUND when an image lacks one of the platforms.
    """
    async with context.engine.leases.acquire() as lease:
        blobs: dict[str, Descriptor] = {}
        entries: list[dict[str, Any]] = []
        legacy: dict[str, dict[str, Any]] = {}
        for record, name in images:
            chosen = [await context.resolver.resolve_record(record, platform) for platform in platforms]
            image = await _preferred(context, record, chosen)
            target = record.target
            if len(chosen) == 1:
                target = replace(image.manifest_descriptor, annotations={})
            manifests = {one.manifest_descriptor.digest for one in chosen} if len(chosen) > 1 else None
            await complete(target)
            await _collect(context, target, blobs, manifests)
            entries.append(_entry(target, name))
            row = legacy.setdefault(
                image.manifest_descriptor.digest,
                {
                    "Config": _path(image.config_digest),
                    "RepoTags": [],
                    "Layers": [_path(str(layer["digest"])) for layer in image.layers],
                },
            )
            if name is not None and name.tag and name.familiar not in row["RepoTags"]:
                row["RepoTags"].append(name.familiar)
        for digest in blobs:
            await context.engine.leases.add_resource(lease.id, digest, "content")
        rows = [{**row, "RepoTags": row["RepoTags"] or None} for row in legacy.values()]
        index = {"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": entries}
        yield _directories(blobs)
        for digest in sorted(blobs):
            size = blobs[digest].size
            yield encode(Header(_path(digest), mode=0o444, size=size))
            with heap.Transfer():
                async for piece in context.engine.content.read(digest):
                    yield piece
            if size % _BLOCK:
                yield bytes(-size % _BLOCK)
        yield _file("index.json", orjson.dumps(index))
        yield _file("manifest.json", orjson.dumps(rows))
        yield _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        yield bytes(2 * _BLOCK)
    for record, _ in () if quiet else images:
        await context.publish_with_labels("save", record.target.digest, record.target.digest)


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _entry(target: Descriptor, name: Reference | None) -> dict[str, Any]:
    annotations = {
        key: value for key, value in target.annotations.items() if key not in (oci.ANNOTATION_NAME, oci.ANNOTATION_REF)
    }
    if name is not None:
        annotations[oci.ANNOTATION_NAME] = str(name)
        annotations[oci.ANNOTATION_REF] = name.tag or str(name)
    return oci.to_json(replace(target, annotations=annotations))


async def _preferred(context: ImageContext, record: ImageRecord, chosen: Sequence[Image]) -> Image:
    """Return the image for ``manifest.json``, which names one platform: this host's if it is among the chosen ones."""
    if not chosen:
        return await context.resolver.resolve_record(record, exact=False)
    places = [oci.rank(context.resolver.host, image.platform) for image in chosen]
    return min(zip(places, chosen, strict=True), key=lambda pair: 1000 if pair[0] is None else pair[0])[1]


async def _collect(
    context: ImageContext, desc: Descriptor, blobs: dict[str, Descriptor], manifests: Set[str] | None
) -> None:
    """Collect the local blobs of a target; parts for other platforms may be missing. Of an index, take only the
    ``manifests`` and their attestations; all if it is ``None``."""
    if desc.digest in blobs or not await documents.has(context.engine, desc.digest):
        return
    if manifests is not None and oci.is_manifest(desc.media_type) and not _belongs(desc, manifests):
        return
    blobs[desc.digest] = desc
    if oci.is_index(desc.media_type) or oci.is_manifest(desc.media_type):
        for child in oci.children(await documents.read(context.engine, desc), desc.media_type):
            await _collect(context, child, blobs, manifests)


def _belongs(desc: Descriptor, manifests: Set[str]) -> bool:
    return desc.digest in manifests or desc.annotations.get(oci.ATTESTATION_OF) in manifests


def _directories(blobs: dict[str, Descriptor]) -> bytes:
    algorithms = sorted({digest.partition(":")[0] for digest in blobs})
    names = ["blobs/", *(f"blobs/{algorithm}/" for algorithm in algorithms)]
    return b"".join(encode(Header(name, type=tar.DIRECTORY, mode=0o755)) for name in names)


def _file(name: str, data: bytes) -> bytes:
    return encode(Header(name, mode=0o444, size=len(data))) + data + bytes(-len(data) % _BLOCK)
