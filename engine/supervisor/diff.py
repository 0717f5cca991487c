"""The diff service: applies layers to snapshots and writes their changes as layers. ``engine.common.layers`` implements
it; this module provides files, threads and mounts."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from engine.api.extensions import ARRIVING
from engine.api.labels import UNCOMPRESSED
from engine.api.types import Descriptor, Mount
from engine.common.errors import Kind, WharfError, invalid, not_implemented
from engine.common.files.mount_thread import MountThread
from engine.common.layers import diff as layer_diff
from engine.common.layers import extract
from engine.common.layers.blob import Written
from engine.common.layers.compression import Compression, detect, of_media_type
from engine.common.layers.target import Target, Whiteouts, overlay_target
from engine.common.system import heap
from engine.common.threads import run_to_completion
from engine.supervisor.blobs import Follower
from engine.supervisor.call import Call
from engine.supervisor.content import Content
from engine.supervisor.ingest import Ingest, client_error
from engine.supervisor.snapshots.layer_sync import sync_file_system

T = TypeVar("T")

log = logging.getLogger(__name__)

_TAR = "application/vnd.oci.image.layer.v1.tar"
_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
_WRITTEN = {
    "": (_GZIP, Compression.GZIP),
    _TAR: (_TAR, Compression.NONE),
    _GZIP: (_GZIP, Compression.GZIP),
    _ZSTD: (_ZSTD, Compression.ZSTD),
    "application/vnd.docker.image.rootfs.diff.tar": ("application/vnd.docker.image.rootfs.diff.tar", Compression.NONE),
    "application/vnd.docker.image.rootfs.diff.tar.gzip": (
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        Compression.GZIP,
    ),
}

_MAGIC = 8  # bytes that identify a compression

#: Layers that are applied while they arrive. They may stall for long, so each has its own thread.
_ARRIVING_MAX = 8

#: The number of layers unpacked or written at a time; each also has a thread that writes files.
_WORKERS = 2


class Differ:
    """Runs at most ``_WORKERS`` extractions and comparisons at a time, and ``_ARRIVING_MAX`` extractions of layers that
    are still written."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="diff")
        self._followers = ThreadPoolExecutor(_ARRIVING_MAX, thread_name_prefix="diff-arriving")
        self._following = 0
        self._extracted: dict[tuple[str, str], int] = {}

    def extracted(self, namespace: str, digest: str) -> int:
        """The number of bytes read so far from a layer that is being applied."""
        return self._extracted.get((namespace, digest), 0)

    async def apply(self, namespace: str, layer: Descriptor, mounts: Sequence[Mount], *, sync: bool) -> Descriptor:
        """Unpacks the layer onto the mounts and returns the descriptor of its plain tar (the digest is the diff id).

        Writes directly into an overlay's upper directory or a bind's source, without mounting. ``sync``: the files are
        on the disk when this returns.
        """
        if layer.media_type.endswith(("+encrypted", ".foreign")) or "tar" not in layer.media_type:
            raise not_implemented(f"currently unsupported media type: {layer.media_type}: not implemented")
        key = (namespace, layer.digest)
        self._extracted[key] = 0
        try:
            return await self._apply(namespace, layer, _target(mounts), sync=sync)
        finally:
            self._extracted.pop(key, None)

    async def _apply(self, namespace: str, layer: Descriptor, target: Target, *, sync: bool) -> Descriptor:
        key = (namespace, layer.digest)
        ref = layer.annotations.get(ARRIVING, "")
        if ref:
            follower = self._content.arriving(namespace, ref) if self._following < _ARRIVING_MAX else None
            if follower is None:
                raise WharfError(Kind.UNAVAILABLE, f"ingest {ref}: no open write, or too many layers wait: unavailable")
            return await self._apply_arriving(key, follower, layer.media_type, target)
        info = self._content.info(namespace, layer.digest)
        # Stored when the layer was written or unpacked before.
        known = info.labels.get(UNCOMPRESSED, "")

        fd = await self._content.open_blob(layer.digest)

        def work(cancelled: Callable[[], bool]) -> extract.Applied:
            kind = of_media_type(layer.media_type) or detect(os.pread(fd, _MAGIC, 0))
            if kind is Compression.NONE and layer.digest.startswith("sha256:"):
                size = os.fstat(fd).st_size
                end = self._counted(key, lambda _: size)
                applied = extract.apply_file(fd, end, target, cancelled=cancelled)
                return replace(applied, diff_id=layer.digest)  # the digest of a plain tar is its diff id
            return extract.apply(
                self._read(key, lambda size: os.read(fd, size)),
                target,
                compression=kind,
                diff_id=known if known.startswith("sha256:") else "",
                cancelled=cancelled,
            )

        began = time.monotonic()
        try:
            applied = await self._run(work)
        finally:
            os.close(fd)
        if sync:
            await self._run(lambda _: sync_file_system(target.root))
        log.debug("diff: applied %s in %.0f ms", layer.digest, (time.monotonic() - began) * 1000)
        return Descriptor(_TAR, applied.diff_id, applied.size)

    def _read(self, key: tuple[str, str], read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """Wraps ``read`` to count the bytes."""
        at = 0

        def counted(size: int) -> bytes:
            nonlocal at
            data = read(size)
            at += len(data)
            self._extracted[key] = at
            return data

        return counted

    def _counted(self, key: tuple[str, str], end: Callable[[int], int]) -> Callable[[int], int]:
        def counted(at: int) -> int:
            self._extracted[key] = at
            return end(at)

        return counted

    async def _apply_arriving(
        self, key: tuple[str, str], follower: Follower, media_type: str, target: Target
    ) -> Descriptor:
        def work(cancelled: Callable[[], bool]) -> extract.Applied:
            try:
                kind = of_media_type(media_type) or detect(follower.peek(_MAGIC))
                if kind is not Compression.NONE:
                    return extract.apply(self._read(key, follower.read), target, compression=kind, cancelled=cancelled)
                applied = extract.apply_file(follower.fd, self._counted(key, follower.end), target, cancelled=cancelled)
                return replace(applied, diff_id=follower.digest)  # the write of a plain tar computes its digest anyway
            except WharfError:
                follower.end(-1)  # raises the reason if the write was restarted meanwhile
                raise
            finally:
                follower.close()

        self._following += 1
        try:
            applied = await self._run(work, pool=self._followers, wake=follower.stop)
        finally:
            self._following -= 1
        return Descriptor(_TAR, applied.diff_id, applied.size)

    async def diff(
        self,
        call: Call,
        left: Sequence[Mount],
        right: Sequence[Mount],
        *,
        media_type: str,
        ref: str,
        labels: Mapping[str, str],
        epoch_ns: int | None,
    ) -> Descriptor:
        """Writes the changes from ``left`` to ``right`` as a blob, labelled with its diff id."""
        if media_type not in _WRITTEN:
            raise not_implemented(f"unsupported diff media type: {media_type}: not implemented")
        if epoch_ns is not None:
            raise not_implemented("source_date_epoch of a diff: not implemented")
        kind, compression = _WRITTEN[media_type]
        ingest = await self._content.open(call, ref or f"wharf-diff-{time.time_ns():x}", "", 0)
        try:
            if ingest.offset:
                await ingest.write(0, b"")
            try:
                written = await self._write(ingest, left, right, compression)
            except OSError as error:
                raise client_error(error, ingest.ref) from None
            words = {**labels, UNCOMPRESSED: written.diff_id}
            with contextlib.suppress(_AlreadyThere):
                await _commit(ingest, written, words)
            return Descriptor(kind, written.digest, written.size)
        finally:
            await ingest.close()

    async def _write(
        self, ingest: Ingest, left: Sequence[Mount], right: Sequence[Mount], compression: Compression
    ) -> Written:
        upper = _upper_of(left, right)
        if upper is not None:
            try:
                return await self._run(
                    lambda _: layer_diff.write_upper(
                        upper, ingest.file.append, compression=compression, hashed=lambda: ingest.file.digest
                    )
                )
            except WharfError as error:
                if error.kind is not Kind.FAILED_PRECONDITION:
                    raise
                await ingest.write(0, b"")  # unreadable without the lower layers: compare the mounted trees
        async with MountThread("diff") as thread:
            before = await thread.mount(left) if left else None
            after = await thread.mount(right)
            return await thread.run(
                layer_diff.write_changes, before, after, ingest.file.append, compression=compression
            )

    async def _run(
        self,
        work: Callable[[Callable[[], bool]], T],
        *,
        pool: ThreadPoolExecutor | None = None,
        wake: Callable[[], None] | None = None,
    ) -> T:
        """Runs ``work`` in a worker thread. If the caller is cancelled, stops the work and waits for its end: the next
        owner of the snapshot must find it unchanging."""
        stop = threading.Event()

        def cancel() -> None:
            stop.set()
            if wake is not None:
                wake()

        with heap.Transfer():
            future = asyncio.get_running_loop().run_in_executor(pool or self._workers, work, stop.is_set)
            return await run_to_completion(future, cancel)

    async def close(self) -> None:
        for pool in (self._followers, self._workers):
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)


class _AlreadyThere(Exception):
    """The content store has the layer already."""


async def _commit(ingest: Ingest, written: Written, labels: Mapping[str, str]) -> None:
    try:
        await ingest.commit(written.size, written.digest, labels)
    except WharfError as error:
        if error.kind is Kind.ALREADY_EXISTS:
            raise _AlreadyThere from None
        raise


def _target(mounts: Sequence[Mount]) -> Target:
    """The directory to which writes through the mounts would go."""
    if len(mounts) != 1:
        raise invalid(f"a layer is applied to one mount, not to {len(mounts)}")
    mount = mounts[0]
    if mount.type == "overlay":
        target = overlay_target(mount.options)
        if target is not None:
            return target
    elif mount.type in ("bind", "rbind") or {"bind", "rbind"} & set(mount.options):
        if "ro" not in mount.options:
            return Target(mount.source, Whiteouts.APPLY)
    else:
        raise not_implemented(f"applying a layer to a mount of type {mount.type}: not implemented")
    raise invalid("a layer can't be applied to a read-only mount")


def _upper_of(left: Sequence[Mount], right: Sequence[Mount]) -> str | None:
    """The directory that *is* the difference: ``right`` is an overlay, and its lower layers are the tree of
    ``left``."""
    if len(right) != 1 or right[0].type != "overlay" or len(left) != 1:
        return None
    target = overlay_target(right[0].options)
    if target is None:
        return None
    below = left[0]
    if below.type == "bind" and target.lowers == (below.source,):
        return target.root
    if below.type == "overlay" and overlay_target(below.options) is None:
        lowers = next((option[9:] for option in below.options if option.startswith("lowerdir=")), "")
        if tuple(lowers.split(":")) == target.lowers:
            return target.root
    return None
