"""Images from an archive: what ``docker save`` writes in any of its versions, and OCI layouts.

The archive is read once, from a stream: large files go into the content store as they pass, small ones are kept in
memory until the end, when the manifest tells what they were.
"""

import asyncio
import posixpath
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from engine import jsontext
from engine.api.client import Engine
from engine.api.types import Descriptor, Platform
from engine.errors import Kind, WharfError, invalid, not_found
from engine.layers import header as tar
from engine.layers.compression import Compression, detect
from engine.registry import documents, oci
from engine.registry.asynctar import AsyncTar, plain, regular
from engine.registry.reference import check_digest, parse
from engine.system import heap

_SMALL = 1 << 20
_SMALL_TOTAL = 64 << 20
_LAYER_SUFFIX = {Compression.NONE: "", Compression.GZIP: ".gzip", Compression.ZSTD: ".zstd"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """One image of the archive; ``name`` is canonical, "" for one without a valid name."""

    name: str
    target: Descriptor


@dataclass(frozen=True, slots=True)
class _Blob:
    digest: str
    size: int
    compression: Compression


@dataclass(slots=True)
class _Contents:
    small: dict[str, bytes] = field(default_factory=dict)
    big: dict[str, _Blob] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def follow(self, name: str) -> str:
        """A layer that several images of an old archive share is a link in all but one."""
        for _ in range(8):
            if name not in self.links:
                return name
            name = self.links[name]
        raise invalid(f"{name}: too many links")


async def load(engine: Engine, body: AsyncIterator[bytes], *, platform: Platform | None = None) -> list[Loaded]:
    """Reads the archive into the content store, in the order of its index. Call under a lease.

    :raises WharfError: INVALID_ARGUMENT for what is no image archive, is broken, or holds wrong digests;
        NOT_FOUND when it has no image for ``platform``.
    """
    with heap.Transfer():
        contents = await _read(engine, AsyncTar(plain(body)))
    if "oci-layout" in contents.small and "index.json" in contents.small:
        return await _oci(engine, contents, platform)
    if "manifest.json" in contents.small:
        return await _docker(engine, contents)
    raise invalid("unrecognized image format")


async def _read(engine: Engine, archive: AsyncTar) -> _Contents:
    contents = _Contents()
    held = 0
    async for header in archive:
        name = posixpath.normpath("/" + header.name).lstrip("/")
        if header.type == tar.SYMLINK:
            contents.links[name] = posixpath.normpath(
                "/" + posixpath.join(posixpath.dirname(name), header.linkname)
            ).lstrip("/")
            continue
        if header.type == tar.HARDLINK:
            contents.links[name] = posixpath.normpath("/" + header.linkname).lstrip("/")
            continue
        if not regular(header):
            continue
        digest = _blob_digest(name)
        if not digest and header.size <= _SMALL and held + header.size <= _SMALL_TOTAL:
            held += header.size
            contents.small[name] = await archive.read(_SMALL)
            continue
        contents.big[name] = await _ingest(engine, archive, header.size, digest, name)
    return contents


def _blob_digest(name: str) -> str:
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "blobs":
        return ""
    try:
        return check_digest(f"{parts[1]}:{parts[2]}")
    except WharfError:
        return ""


async def _ingest(engine: Engine, archive: AsyncTar, size: int, digest: str, name: str) -> _Blob:
    """One large file into the store. Its digest is found, or checked against the file's name."""
    # Another client may be sending the same file, and stall: each has a ref of its own, and the first to end wins.
    ref = f"load-{secrets.token_hex(8)}"
    head = b""
    written = 0
    try:
        async with engine.content.writer(ref, expected=digest, total=size) as writer:
            async for piece in archive.data():
                if len(head) < 6:
                    head += bytes(piece[:6])
                await writer.write(piece)
                written += len(piece)
            # Asked before the commit: of a blob that it has already the store would not say which it is.
            found = digest or await writer.found()
            await writer.commit(size=size, digest=found)
    except BaseException as error:  # also a client that has gone: nobody can go on from here
        await asyncio.shield(engine.content.throw_away(ref))
        refused = isinstance(error, WharfError) and error.kind in (Kind.FAILED_PRECONDITION, Kind.INVALID_ARGUMENT)
        if not refused or written < size:
            raise
        raise invalid(f"{name}: {error}") from None
    return _Blob(found, size, detect(head))


# OCI layout


async def _oci(engine: Engine, contents: _Contents, platform: Platform | None) -> list[Loaded]:
    index = oci.load(contents.small["index.json"], "index.json")
    loaded = []
    for desc in oci.parse_index(index, "index.json"):
        if await adopt(engine, desc, platform) is None:
            continue
        target = replace(
            desc,
            platform=None,
            annotations={
                key: value
                for key, value in desc.annotations.items()
                if key not in (oci.ANNOTATION_NAME, oci.ANNOTATION_REF)
            },
        )
        loaded.append(Loaded(_name_of(desc.annotations), target))
    if not loaded:
        raise invalid("unrecognized image format: the index has no image")
    return loaded


def _name_of(annotations: Mapping[str, str]) -> str:
    name = annotations.get(oci.ANNOTATION_NAME, "")
    if not name:
        name = annotations.get(oci.ANNOTATION_REF, "")
        if ":" not in name and "/" not in name:
            return ""  # only a tag, of no known repository
    try:
        return str(parse(name).tagged())
    except WharfError:
        return ""


async def adopt(engine: Engine, desc: Descriptor, platform: Platform | None = None) -> Descriptor | None:
    """Labels what is in the store below ``desc`` so that it is kept together. None: the blob itself is missing.

    Children of an index may be missing (other platforms); a manifest must be whole.

    :raises WharfError: INVALID_ARGUMENT for documents that are not what they should be; NOT_FOUND for a missing
        layer or config, or when the index has nothing for ``platform``.
    """
    if not await documents.has(engine, desc.digest):
        return None
    document = await documents.read(engine, desc)
    media_type = desc.media_type or oci.media_type_of(document)
    if oci.is_index(media_type):
        labels = {}
        wanted = oci.parse_index(document)
        if platform is not None:
            wanted = tuple(oci.best(wanted, platform)[:1])
            if not wanted:
                raise not_found(
                    f"requested platform ({oci.format_platform(platform)}) not found: image might be filtered out"
                )
        for number, child in enumerate(wanted):
            if await adopt(engine, child, platform) is not None:
                labels[f"{oci.REF}.m.{number}"] = child.digest
        await engine.content.update_labels(desc.digest, labels)
        return desc
    if not oci.is_manifest(media_type):
        raise invalid(f"{desc.digest}: unexpected media type {media_type}")
    manifest = oci.parse_manifest(document, desc.digest)
    for part in (manifest.config, *manifest.layers):
        try:
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


# docker-archive


async def _docker(engine: Engine, contents: _Contents) -> list[Loaded]:
    try:
        images = jsontext.loads(contents.small["manifest.json"])
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


async def _docker_image(engine: Engine, contents: _Contents, image: dict[str, Any]) -> Descriptor:
    config_name = contents.follow(posixpath.normpath(str(image.get("Config") or "")))
    if config_name in contents.small:
        data = contents.small[config_name]
    elif config_name in contents.big:
        data = await engine.content.read_all(contents.big[config_name].digest)
    else:
        raise invalid(f"image config {config_name!r} not found: unrecognized image format")
    diff_ids = oci.diff_ids(oci.load(data, config_name))
    names = image.get("Layers") or []
    if not isinstance(names, list) or len(names) != len(diff_ids):
        raise invalid(f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(names)}")
    layers = [await _docker_layer(engine, contents, str(name)) for name in names]
    config = await documents.write(engine, data, oci.DOCKER_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.DOCKER_MANIFEST,
        "config": oci.to_json(config),
        "layers": [oci.to_json(layer) for layer in layers],
    }
    return await documents.write(engine, orjson.dumps(manifest), oci.DOCKER_MANIFEST)


async def _docker_layer(engine: Engine, contents: _Contents, name: str) -> Descriptor:
    path = contents.follow(posixpath.normpath(name))
    if path in contents.small:
        data = contents.small[path]
        digest = oci.digest_of(data)
        await engine.content.write_blob(f"load-{digest}", data, digest=digest)
        blob = _Blob(digest, len(data), detect(data))
    elif path in contents.big:
        blob = contents.big[path]
    else:
        raise invalid(f"layer {name!r} not found: unrecognized image format")
    suffix = _LAYER_SUFFIX.get(blob.compression)
    if suffix is None:
        raise invalid(f"layer {name!r}: {blob.compression.value} is no compression of a layer")
    return Descriptor(oci.DOCKER_LAYER + suffix, blob.digest, blob.size)
