"""Layers become snapshots, named by their chain ids: each on the one below it, as soon as its blob is there."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.errors import Kind, WharfError, invalid
from engine.registry.oci import UNCOMPRESSED, chain_ids

#: Called with (index, "extracting" | "done" | "exists") for each layer.
Told = Callable[[int, str], None]

#: Chain ids that are being made in this process: a second pull of the same layers waits instead of unpacking too.
_making: dict[tuple[int, str], asyncio.Lock] = {}


async def is_unpacked(engine: Engine, chain_id: str) -> bool:
    try:
        await engine.snapshots.stat(chain_id)
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            return False
        raise
    return True


async def unpack(
    engine: Engine,
    layers: Sequence[Descriptor],
    diff_ids: Sequence[str],
    *,
    ready: Callable[[int], Awaitable[None]] | None = None,
    told: Told | None = None,
) -> str:
    """Makes the snapshot of every layer that has none yet; returns the last one's name ("" without layers).

    ``ready(i)`` is awaited before layer i is read: it may still be on its way. Call under a lease, which holds the
    snapshots until an image's config refers to the last.

    :raises WharfError: INVALID_ARGUMENT when a layer is not what the config says.
    """
    if len(layers) != len(diff_ids):
        raise invalid("mismatched image rootfs and manifest layers")
    chain = chain_ids(diff_ids)
    if not chain:
        return ""
    # From the top down to the first that is there: an image on a known base is found in a few steps.
    start = 0
    for index in range(len(chain) - 1, -1, -1):
        if await is_unpacked(engine, chain[index]):
            start = index + 1
            break
    if told is not None:
        for index in range(start):
            told(index, "exists")
    for index in range(start, len(chain)):
        if ready is not None:
            await ready(index)
        parent = chain[index - 1] if index else ""
        key = (id(engine), chain[index])
        lock = _making.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                if told is not None:
                    told(index, "extracting")
                await _layer(engine, layers[index], diff_ids[index], chain[index], parent)
        finally:
            if not lock.locked():
                _making.pop(key, None)
        if told is not None:
            told(index, "done")
    return chain[-1]


async def _layer(engine: Engine, layer: Descriptor, diff_id: str, name: str, parent: str) -> None:
    if await is_unpacked(engine, name):
        return
    # The words of the key and the label are containerd's: its own tools then know an unpack in progress.
    key = f"extract-{time.time_ns() % 1_000_000_000}-{secrets.token_urlsafe(3)} {name}"
    try:
        mounts = await engine.snapshots.prepare(key, parent, {"containerd.io/snapshot.ref": name})
    except WharfError as error:
        if error.kind is Kind.ALREADY_EXISTS:  # a snapshotter may know the finished layer by the label
            return
        raise
    try:
        applied = await engine.diff.apply(layer, mounts)
        if applied.digest != diff_id:
            raise invalid(
                f"failed to extract layer ({layer.media_type} {layer.digest}) to {engine.snapshots.snapshotter} as"
                f" {key!r}: wrong diff id calculated on extraction {applied.digest!r}, expected {diff_id!r}"
            )
        try:
            await engine.snapshots.commit(name, key)
        except WharfError as error:
            if error.kind is not Kind.ALREADY_EXISTS:
                raise
            await engine.snapshots.remove(key)
    except BaseException:
        with suppress(WharfError):
            await asyncio.shield(engine.snapshots.remove(key))
        raise
    with suppress(WharfError):  # the layer's plain digest, for whoever has only the blob
        await engine.content.update_labels(layer.digest, {UNCOMPRESSED: diff_id})
