"""Creates images: ``docker import`` of a file system, ``docker commit`` of a container, results of builds."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson

from engine.api.client import Engine
from engine.api.labels import UNCOMPRESSED
from engine.api.types import Descriptor, ImageRecord, Mount, Platform
from engine.common.errors import Kind, WharfError, invalid
from engine.common.layers.compression import Compression, detect
from engine.common.layers.tar_end import TarEnd
from engine.common.system import heap
from server.images.archive.repack import repack_if_needed
from server.images.context import ImageContext
from server.images.model import PARENT_LABEL, Image, dangling_name
from server.images.timestamps import format_ns
from server.registry import documents, oci
from server.registry.progress import Report
from server.registry.reference import Reference, parse

_SUFFIX = {Compression.NONE: "", Compression.GZIP: "+gzip", Compression.ZSTD: "+zstd"}


async def name_image(
    context: ImageContext, target: Descriptor, names: Sequence[Reference], labels: Mapping[str, str] | None = None
) -> None:
    """Give the target its names; without names it becomes a dangling image."""
    for reference in names:
        await context.names.assign(ImageRecord(str(reference.tagged()), target, dict(labels or {})))
    if not names and not await context.names.find_by_digest(target.digest):
        await context.names.put(ImageRecord(dangling_name(target.digest), target, dict(labels or {})))


async def write_image(context: ImageContext, config: Mapping[str, Any], layers: Sequence[Descriptor]) -> Descriptor:
    """Write the config and the manifest. Under a lease; the layers' snapshots exist or are being unpacked."""
    engine = context.engine
    ids = oci.diff_ids(dict(config))
    chain = oci.chain_ids(ids)
    labels = documents.snapshot_label(engine, chain[-1] if chain else "")
    stored = await documents.write(engine, orjson.dumps(config), oci.OCI_CONFIG, labels=labels)
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.OCI_MANIFEST,
        "config": oci.to_json(stored),
        "layers": [oci.to_json(replace(layer, platform=None)) for layer in layers],
    }
    return await documents.write(engine, orjson.dumps(manifest), oci.OCI_MANIFEST)


# import


async def import_image(
    context: ImageContext,
    body: AsyncIterator[bytes],
    report: Report,
    *,
    reference: Reference | None,
    message: str,
    changes: Sequence[str],
    platform: Platform | None,
) -> None:
    """Import the tar of a file system as an image of one layer.

    :raises WharfError: INVALID_ARGUMENT for a broken archive or change.
    """
    config = await context.apply_changes({}, changes)
    async with context.engine.leases.acquire():
        layer, diff_id = await _import_layer(context, body)
        where = platform or oci.host_platform()
        created = format_ns(time.time_ns())
        document: dict[str, Any] = {
            "created": created,
            **oci.platform_json(where),
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": created, "comment": message}],
        }
        target = await write_image(context, document, [layer])
        await name_image(context, target, [reference] if reference else [])
    await report.status(target.digest)
    if reference is not None:
        await context.publish_with_labels("tag", target.digest, reference.tagged().familiar)
    await context.publish_with_labels("import", target.digest, target.digest)


async def _import_layer(context: ImageContext, body: AsyncIterator[bytes]) -> tuple[Descriptor, str]:
    """Store the blob; return it with its diff id. An engine that can apply a layer while it is written does so."""
    engine = context.engine
    ref = f"import-{secrets.token_hex(8)}"
    key = f"extract-{ref}"
    mounts = await engine.snapshots.prepare(key, "")
    applying: asyncio.Task[Descriptor] | None = None
    try:
        with heap.Transfer():
            async with engine.content.writer(ref) as writer:
                kind, size, end = Compression.NONE, 0, TarEnd()
                async for data in repack_if_needed(body):
                    piece = memoryview(data)
                    if not size:
                        kind = detect(data)
                    if kind is Compression.NONE:
                        # The digest changes anyway, so drop the padding after the archive, which may be large.
                        piece = piece[: end.archive_bytes(piece)]
                        if not piece:
                            continue
                    await writer.write(piece)
                    size += len(piece)
                    if applying is None and engine.extensions.applies_ingests:
                        layer = Descriptor(oci.OCI_LAYER + _SUFFIX[kind], "", 0)
                        applying = asyncio.create_task(engine.diff.apply(layer, mounts, arriving=ref))
                digest = await writer.current_digest()
                await writer.commit(size=size, digest=digest)
        layer = Descriptor(oci.OCI_LAYER + _SUFFIX[kind], digest, size)
        applied = await _wait_applied(applying) if applying is not None else None
        if applied is None:
            if applying is not None:  # it has started
                await engine.snapshots.remove(key)
                mounts = await engine.snapshots.prepare(key, "")
            applied = await engine.diff.apply(layer, mounts)
        try:
            await engine.snapshots.commit(applied.digest, key)
        except WharfError as error:
            if error.kind is not Kind.ALREADY_EXISTS:
                raise
            await engine.snapshots.remove(key)
    except BaseException:
        await asyncio.shield(_undo(engine, ref, key, applying))
        raise
    await engine.content.update_labels(digest, {UNCOMPRESSED: applied.digest})
    return layer, applied.digest


async def _wait_applied(applying: "asyncio.Task[Descriptor]") -> Descriptor | None:
    """Return the layer that the engine applied during the write; ``None`` if it could not."""
    try:
        return await applying
    except WharfError as error:
        if error.kind is not Kind.UNAVAILABLE:
            raise
        return None


async def _undo(engine: Engine, ref: str, key: str, applying: "asyncio.Task[Descriptor] | None") -> None:
    """Undo an unfinished import."""
    if applying is not None:
        applying.cancel()
        await asyncio.wait((applying,))
        if not applying.cancelled():
            applying.exception()  # retrieve it: the import's own error is reported
    await engine.content.discard_ingest(ref)
    with suppress(WharfError):
        await engine.snapshots.remove(key)


# commit


async def commit_snapshot(
    context: ImageContext,
    key: str,
    image: Image | None,
    *,
    config: Mapping[str, Any],
    author: str = "",
    comment: str = "",
    created_by: str = "",
    reference: Reference | None = None,
) -> Descriptor:
    """Commit the snapshot ``key`` (a container's) as a layer on its image. ``config``: the new ``config`` object.

    :raises WharfError: NOT_FOUND for a missing snapshot or a missing blob of the image.
    """
    engine = context.engine
    async with engine.leases.acquire():
        layer, diff_id = await _difference(context, key)
        base: Mapping[str, Any] = image.config if image is not None else {}
        layers = list(oci.parse_manifest(dict(image.manifest)).layers) if image is not None else []
        ids = [*oci.diff_ids(dict(base)), diff_id]
        layers.append(layer)
        context.unpacker.begin(layers, ids)
        now = format_ns(time.time_ns())
        step: dict[str, Any] = {"created": now, "created_by": created_by}
        if author:
            step["author"] = author
        if comment:
            step["comment"] = comment
        document: dict[str, Any] = {"created": now}
        if author or base.get("author"):
            document["author"] = author or base.get("author")
        where = image.platform if image is not None else oci.host_platform()
        document |= {
            **oci.platform_json(where),
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": ids},
            "history": [*(base.get("history") or ()), step],
        }
        target = await write_image(context, document, layers)
        labels = {PARENT_LABEL: image.id} if image is not None else {}
        await name_image(context, target, [reference] if reference else [], labels)
    return target


async def _difference(context: ImageContext, key: str) -> tuple[Descriptor, str]:
    """Create the layer; return it with its diff id. The temporary view is removed with the lease."""
    engine = context.engine
    parent = (await engine.snapshots.stat(key)).parent
    view = f"commit-{secrets.token_hex(8)}"
    upper, lower = await asyncio.gather(engine.snapshots.mounts(key), _parent_view(engine, view, parent))
    layer = await engine.diff.diff(lower, upper, media_type=oci.OCI_LAYER + "+gzip", ref=view)
    info = await engine.content.info(layer.digest)
    diff_id = info.labels.get(UNCOMPRESSED, "")
    if not diff_id:
        raise invalid("invalid differ response with no diffID")
    return Descriptor(layer.media_type, layer.digest, info.size), diff_id


async def _parent_view(engine: Engine, view: str, parent: str) -> Sequence[Mount]:
    return await engine.snapshots.view(view, parent) if parent else ()


def names_of(texts: Sequence[str]) -> list[Reference]:
    return [parse(text) for text in texts]
