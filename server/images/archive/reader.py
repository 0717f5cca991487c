"""Reads images from archives: every version of ``docker save``, and OCI layouts."""

import posixpath
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from engine.api.client import Engine
from engine.api.types import Descriptor, Platform
from engine.common import jsontext
from engine.common.errors import Kind, WharfError, invalid, not_found
from engine.common.layers.compression import Compression, detect
from engine.common.system import heap
from server.images.archive import contents_reader, version1
from server.images.archive.asynctar import AsyncTar, plain
from server.images.archive.contents_reader import INDEX, LAYOUT, MANIFEST, REPOSITORIES, Blob, Contents
from server.images.archive.repack import repack
from server.registry import documents, oci
from server.registry.reference import parse

_LAYER_SUFFIX = {Compression.NONE: "", Compression.GZIP: ".gzip", Compression.ZSTD: ".zstd"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """One image of the archive; ``name`` is canonical, "" without a valid name."""

    name: str
    target: Descriptor


async def load(
    engine: Engine,
    body: AsyncIterator[bytes],
    *,
    platforms: Sequence[Platform] = (),
    own: Collection[str] | None = None,
    progress: contents_reader.Progress | None = None,
) -> list[Loaded]:
    """Read the archive into the content store; return its images in the order of its index. Call under a lease.

    ``platforms``: of an index, protect only their manifests and attestations from collection. ``own``: the digests that
    the archive may lack because the user has them already; None: all in the store.

    :raises WharfError: INVALID_ARGUMENT for an archive that is not an image archive, is broken, or has wrong digests;
        NOT_FOUND for a missing layer or config.
    """
    with heap.Transfer():
        contents = await contents_reader.read(engine, AsyncTar(plain(body)), progress)
    if LAYOUT in contents.small and INDEX in contents.small:
        allowed = None if own is None else contents.digests().union(own)
        return await _oci(engine, contents, platforms, allowed)
    if MANIFEST in contents.small:
        return await _docker(engine, contents)
    if REPOSITORIES in contents.small:
        return await _without_manifest(engine, contents)
    raise invalid("unrecognized image format")


# OCI layout


async def _oci(
    engine: Engine, contents: Contents, platforms: Sequence[Platform], allowed: Collection[str] | None
) -> list[Loaded]:
    index = oci.load(contents.small[INDEX], INDEX)
    loaded = []
    for desc in oci.parse_index(index, INDEX):
        if oci.ANNOTATION_SUBJECT in desc.annotations:
            continue  # an attestation that dockerd 29 saves beside its image; it is no image
        if await adopt(engine, desc, platforms, allowed) is None:
            continue
        loaded.append(Loaded(_name_from_annotations(desc.annotations), replace(desc, platform=None)))
    if not loaded:
        raise invalid("unrecognized image format: the index has no image")
    return loaded


def _name_from_annotations(annotations: Mapping[str, str]) -> str:
    name = annotations.get(oci.ANNOTATION_NAME, "")
    if not name:
        name = annotations.get(oci.ANNOTATION_REF, "")
        if ":" not in name and "/" not in name:
            return ""  # only a tag, without a repository
    try:
        return str(parse(name).tagged())
    except WharfError:
        return ""


async def adopt(
    engine: Engine, desc: Descriptor, platforms: Sequence[Platform] = (), allowed: Collection[str] | None = None
) -> Descriptor | None:
    """Set the labels that protect everything below ``desc`` from collection, of an index only what ``platforms`` need.
    Return ``None`` if the blob itself is missing. ``allowed``: other digests count as missing;
    None: all are allowed.

    Children of an index may be missing (other platforms); a manifest must be complete.

    :raises WharfError: INVALID_ARGUMENT for invalid documents; NOT_FOUND for a missing layer or config.
    """
    if not _allows(allowed, desc) or not await documents.has(engine, desc.digest):
        return None
    document = await documents.read(engine, desc)
    media_type = desc.media_type or oci.media_type_of(document)
    if oci.is_index(media_type):
        labels = {}
        selected = oci.parse_index(document)
        if platforms:
            selected = _of_platforms(selected, platforms)
        for number, child in enumerate(selected):
            if await adopt(engine, child, platforms, allowed) is not None:
                labels[f"{oci.REF}.m.{number}"] = child.digest
        await engine.content.update_labels(desc.digest, labels)
        return desc
    if not oci.is_manifest(media_type):
        raise invalid(f"{desc.digest}: unexpected media type {media_type}")
    manifest = oci.parse_manifest(document, desc.digest)
    oci.check_sizes(manifest, desc.digest)
    for part in (manifest.config, *manifest.layers):
        try:
            if not _allows(allowed, part):
                raise not_found(part.digest)
            info = await engine.content.info(part.digest)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            if oci.is_foreign(part.media_type):
                continue
            raise not_found(f"content digest {part.digest}: not found") from None
        if info.size != part.size:
            raise invalid(f"{part.digest}: {info.size} bytes where the manifest says {part.size}")
    await engine.content.update_labels(desc.digest, oci.ref_labels(document, media_type))
    return desc


def _allows(allowed: Collection[str] | None, desc: Descriptor) -> bool:
    return allowed is None or desc.digest in allowed


def _of_platforms(children: Sequence[Descriptor], platforms: Sequence[Platform]) -> tuple[Descriptor, ...]:
    """Return the best child for each platform, and their attestations, in the order of the index."""
    chosen = {child.digest for wanted in platforms for child in oci.best(children, wanted)[:1]}
    return tuple(
        child for child in children if child.digest in chosen or child.annotations.get(oci.ATTESTATION_OF) in chosen
    )


# docker-archive


async def _docker(engine: Engine, contents: Contents) -> list[Loaded]:
    try:
        images = jsontext.loads(contents.small[MANIFEST])
    except ValueError:
        raise invalid("manifest.json: invalid JSON") from None
    if not isinstance(images, list) or not images:
        raise invalid("manifest.json: not a list of images")
    loaded = []
    for image in images:
        if not isinstance(image, dict):
            raise invalid("manifest.json: not a list of images")
        target = await _docker_image(engine, contents, image)
        names = [name for tag in image.get("RepoTags") or () if (name := _canonical(tag))]
        loaded += [Loaded(name, target) for name in names or [""]]
    return loaded


def _canonical(tag: object) -> str:
    try:
        return str(parse(str(tag)).tagged())
    except WharfError:
        return ""


async def _docker_image(engine: Engine, contents: Contents, image: dict[str, Any]) -> Descriptor:
    config_name = contents.follow(posixpath.normpath(str(image.get("Config") or "")))
    if config_name in contents.small:
        data = contents.small[config_name]
    elif config_name in contents.big:
        data = await engine.content.read_all(contents.big[config_name].digest)
    else:
        raise contents.missing(config_name, "image config")
    diff_ids = oci.diff_ids(oci.load(data, config_name))
    names = image.get("Layers") or []
    if not isinstance(names, list) or len(names) != len(diff_ids):
        raise invalid(f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(names)}")
    layers = [await _docker_layer(engine, contents, str(name)) for name in names]
    return await _write(engine, data, layers)


async def _write(engine: Engine, data: bytes, layers: list[Descriptor]) -> Descriptor:
    """Write a config and the manifest that refers to it."""
    config = await documents.write(engine, data, oci.DOCKER_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.DOCKER_MANIFEST,
        "config": oci.to_json(config),
        "layers": [oci.to_json(layer) for layer in layers],
    }
    return await documents.write(engine, orjson.dumps(manifest), oci.DOCKER_MANIFEST)


async def _docker_layer(engine: Engine, contents: Contents, name: str) -> Descriptor:
    path = contents.follow(posixpath.normpath(name))
    if path in contents.small:
        data = contents.small[path]
        digest = oci.digest_of(data)
        await engine.content.write_blob(f"load-{digest}", data, digest=digest)
        blob = Blob(digest, len(data), detect(data))
    elif path in contents.big:
        blob = contents.big[path]
    else:
        raise contents.missing(path, "layer")
    blob = await repack(engine, blob)
    return Descriptor(oci.DOCKER_LAYER + _LAYER_SUFFIX[blob.compression], blob.digest, blob.size)


# docker-archive without a manifest, as Docker before 1.10 wrote it


async def _without_manifest(engine: Engine, contents: Contents) -> list[Loaded]:
    found = version1.parse(contents.small)
    layers: dict[str, Descriptor] = {}
    diff_ids: dict[str, str] = {}
    loaded = []
    for image in found.images():
        chain = found.chain(image)
        for layer in chain:
            if layer.id not in layers:
                layers[layer.id] = await _docker_layer(engine, contents, f"{layer.id}/layer.tar")
                diff_ids[layer.id] = await version1.diff_id(engine, layers[layer.id])
        data = version1.config(chain, [diff_ids[layer.id] for layer in chain])
        target = await _write(engine, data, [layers[layer.id] for layer in chain])
        names = [name for tag in found.names(image) if (name := _canonical(tag))]
        loaded += [Loaded(name, target) for name in names or [""]]
    return loaded
