"""``squash`` of the classic builder: merges the layers of a build into one on its base, noted in the history."""

import asyncio
import json
import secrets
import time

from engine.api.client import Engine
from engine.api.labels import UNCOMPRESSED
from engine.common import jsontext
from engine.common.layers.chain import chain_id
from server.builder.classic.image import Documents, encode_manifest
from server.builder.operations.difference import GZIP_LAYER, clean_up
from server.builder.plan.imageconfig import utc
from server.builder.plan.steps import Base, Result, Step
from server.registry.unpack import lease_snapshot


def find_base(step: Step | None) -> Base | None:
    """Return the base image of a step; ``None`` for an empty root."""
    while step is not None and step.parent is not None:
        step = step.parent
    return step.operation if step is not None and isinstance(step.operation, Base) else None


async def squash(engine: Engine, found: Documents, result: Result, base: Base | None) -> Documents:
    """Create the image with a single layer above its base. Under a lease."""
    below, layers = (base.chain_id, base.layers) if base is not None else ("", ())
    if len(result.layers) <= len(layers) + 1:
        return found
    id = f"squash-{secrets.token_hex(8)}"
    views = [f"{id}-{side}" for side in ("left", "right")]
    try:
        left = await engine.snapshots.view(views[0], below) if below else ()
        right = await engine.snapshots.view(views[1], result.chain_id)
        descriptor = await engine.diff.diff(left, right, media_type=GZIP_LAYER, ref=id)
    finally:
        for view in views:
            await asyncio.shield(clean_up(engine.snapshots.remove(view)))
    info = await engine.content.info(descriptor.digest)
    diff_id = info.labels[UNCOMPRESSED]
    chain = chain_id(below, diff_id)
    if not await lease_snapshot(engine, chain):
        mounts = await engine.snapshots.prepare(id, below)
        try:
            await engine.diff.apply(descriptor, mounts)
            await engine.snapshots.commit(chain, id)
        except BaseException:
            await asyncio.shield(clean_up(engine.snapshots.remove(id)))
            raise
    document = jsontext.loads(found.config)
    kept, now = len(layers), utc(time.time_ns())
    for entry in document["history"]:
        if not entry.get("empty_layer"):
            kept -= 1
            if kept < 0:
                entry["empty_layer"] = True
    comment = f"merge {found.id} to {base.digest}" if base is not None else f"create new from {found.id}"
    document["history"].append({"created": now, "comment": comment})
    document["created"] = now
    document["rootfs"]["diff_ids"] = [*(layer.diff_id for layer in layers), diff_id]
    data = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    manifest = encode_manifest(data, [*(layer.descriptor for layer in layers), descriptor])
    return Documents(data, manifest, chain)
