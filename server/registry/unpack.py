"""Unpacks layers to snapshots named by their chain ids, each on its parent, as soon as its blob is complete."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from engine.api.client import Engine
from engine.api.labels import UNCOMPRESSED
from engine.api.rpc import current_lease
from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError, invalid
from engine.common.timeline import current
from server.registry.oci import chain_ids

#: The label of an active snapshot with the name of the layer that it becomes.
TARGET = "containerd.io/snapshot.ref"

#: Called with (index, "extracting" | "done" | "exists") for each layer.
OnLayerState = Callable[[int, str], None]
#: Called with (index, bytes of the layer unpacked so far).
OnLayerProgress = Callable[[int, int], None]

#: Chain ids being unpacked in this process: a second pull of the same layers waits.
_making: dict[tuple[int, str], asyncio.Lock] = {}


def extraction_key(name: str) -> str:
    """A key for the active snapshot from which the layer will be committed.

    In containerd's format, as is its label: its own tools then recognize an unpack in progress.
    """
    return f"extract-{time.time_ns() % 1_000_000_000}-{secrets.token_urlsafe(3)} {name}"


async def lease_snapshot(engine: Engine, chain_id: str) -> bool:
    """Whether the snapshot of that chain exists; the caller's lease protects it from now on.

    It is added to the lease before the check: the collector may run between the two.
    """
    lease = current_lease.get()
    if lease:
        await engine.leases.add_resource(lease, chain_id, f"snapshots/{engine.snapshots.snapshotter}")
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
    arriving: Callable[[int], Awaitable[str]] | None = None,
    on_state: OnLayerState | None = None,
    on_progress: OnLayerProgress | None = None,
) -> str:
    """Creates the missing snapshots of all layers; returns the last one's name ("" without layers).

    ``ready(i)`` is awaited before layer i is read: it may still be downloading. ``arriving(i)`` waits for its first
    bytes and returns the ref under which more are being written ("": none); an engine that supports it unpacks them
    while they arrive. Call it under a lease, which protects the snapshots until an image's config references the last
    one.

    :raises WharfError: INVALID_ARGUMENT when a layer doesn't match the config.
    """
    if len(layers) != len(diff_ids):
        raise invalid("mismatched image rootfs and manifest layers")
    chain = chain_ids(diff_ids)
    if not chain:
        return ""
    # From the top down to the first existing one: an image on a known base needs few checks.
    start = 0
    for index in range(len(chain) - 1, -1, -1):
        if await lease_snapshot(engine, chain[index]):
            start = index + 1
            break
    if on_state is not None:
        for index in range(start):
            on_state(index, "exists")
    for index in range(start, len(chain)):
        with current().phase(f"unpack {layers[index].digest.partition(':')[2][:12]}") as part:
            ref = await arriving(index) if arriving is not None and engine.extensions.applies_ingests else ""
            part.waited("wait", "its first bytes")
            layer = _Layer(layers[index], diff_ids[index], chain[index], chain[index - 1] if index else "")
            whole = partial(ready, index) if ready is not None else _is_there
            progress = partial(on_progress, index) if on_progress is not None else None
            key = (id(engine), chain[index])
            lock = _making.setdefault(key, asyncio.Lock())
            try:
                async with lock:
                    part.waited("wait", "another pull, which unpacks the layer")
                    made = bool(ref) and await _made(engine, layer, whole, ref, progress=progress)
                    if not made:
                        await whole()
                        part.waited("wait", "its download")
                        if on_state is not None:
                            on_state(index, "extracting")
                        await _made(engine, layer, whole, progress=progress)
            finally:
                if not lock.locked():
                    _making.pop(key, None)
        if on_state is not None:
            on_state(index, "done")
    return chain[-1]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer, its diff id, and the chain ids of itself and of its parent."""

    blob: Descriptor
    diff_id: str
    name: str
    parent: str


async def _is_there() -> None:
    """For a blob that is complete already."""


async def _made(
    engine: Engine,
    layer: _Layer,
    whole: Callable[[], Awaitable[None]],
    arriving: str = "",
    *,
    progress: Callable[[int], None] | None,
) -> bool:
    """Creates the snapshot unless it exists. Returns False if its bytes did not arrive under the ref ``arriving``; then
    the extraction is removed. ``whole`` waits for the blob, which must be verified before the snapshot is committed."""
    if await lease_snapshot(engine, layer.name):
        return True
    key = extraction_key(layer.name)
    try:
        mounts = await engine.snapshots.prepare(key, layer.parent, {TARGET: layer.name})
    except WharfError as error:
        if error.kind is Kind.ALREADY_EXISTS:  # a snapshotter may recognize the complete layer by the label
            return True
        raise
    try:
        try:
            applied = await engine.diff.apply(layer.blob, mounts, arriving=arriving, progress=progress)
        except WharfError:
            if not arriving:
                raise
            await engine.snapshots.remove(key)
            return False
        await whole()
        if applied.digest != layer.diff_id:
            blob = layer.blob
            raise invalid(
                f"failed to extract layer ({blob.media_type} {blob.digest}) to {engine.snapshots.snapshotter} as"
                f" {key!r}: wrong diff id calculated on extraction {applied.digest!r}, expected {layer.diff_id!r}"
            )
        try:
            await engine.snapshots.commit(layer.name, key)
        except WharfError as error:
            if error.kind is not Kind.ALREADY_EXISTS:
                raise
            await engine.snapshots.remove(key)
    except BaseException:
        with suppress(WharfError):
            await asyncio.shield(engine.snapshots.remove(key))
        raise
    with suppress(WharfError):  # the diff id, for clients that have only the blob
        await engine.content.update_labels(layer.blob.digest, {UNCOMPRESSED: layer.diff_id})
    return True
