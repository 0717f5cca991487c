"""Pulls an image: its documents, and its layers in parallel, each unpacked as soon as it and its parents are
complete."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from engine.api.client import Engine
from engine.api.types import Descriptor, Platform
from engine.common import limits
from engine.common.errors import Kind, Reason, WharfError, invalid, not_found
from engine.common.system.task_groups import first_error
from engine.common.timeline import current
from server.registry import documents, oci
from server.registry.download import Downloads, Fetched, OnBlobState, download_ref
from server.registry.progress import Report
from server.registry.proof import Proof
from server.registry.reference import Reference
from server.registry.responses import RegistryError, retried
from server.registry.source import Source
from server.registry.unpack import unpack

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_BAR_SECONDS = 0.1
#: The smallest layer, in bytes, that is unpacked while it is downloaded.
_ARRIVING_MIN = 4 << 20


@dataclass(frozen=True, slots=True)
class Pulled:
    target: Descriptor
    manifest: Descriptor


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]


class Puller:
    """One pull of one reference. Call ``run`` under a lease; the caller then names the image."""

    def __init__(
        self,
        engine: Engine,
        downloads: Downloads,
        repository: Source,
        report: Report,
        *,
        platform: Platform,
        exact: bool,
        proof: Proof | None = None,
    ) -> None:
        """``proof``: for users who may not have every stored blob."""
        self._engine = engine
        self._downloads = downloads
        self._repository = repository
        self._report = report
        self._platform = platform
        self._exact = exact
        self._proof = proof
        self._begun: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._siblings: tuple[Descriptor, ...] = ()  # the manifests of the index that has the chosen one

    async def run(self, reference: Reference) -> Pulled:
        """Runs the pull.

        :raises WharfError: the registry's error, in Docker's words; NOT_FOUND if no platform matches.
        """
        part = current()
        try:
            target = await self._top(reference)
        except RegistryError as error:
            raise dockerd_error(error, reference) from None
        # Before the first message: docker-py reads a status, but no errors in the stream.
        manifest = await self._choose(target)
        part.mark("manifest")
        await self._report.status(f"Pulling from {reference.path}", reference.tag or str(reference))
        await self._image(manifest)
        # The origin of the image as a whole is its target's.
        await self._remember(target)
        return Pulled(target, manifest)

    # documents

    async def _retried(self, step: Callable[[], Awaitable[_T]]) -> _T:
        # An unreachable registry isn't retried: nothing was received yet.
        return await retried(step, self._repository.attempts, unreachable=False)

    async def _top(self, reference: Reference) -> Descriptor:
        """Resolves the reference at the registry. Fetches the document only if it isn't in the store: a HEAD is
        cheaper.

        Asks the registry also for a stored digest: it may come from another repository.
        """
        head = await self._retried(lambda: self._repository.head(reference.selector))
        if head is not None and reference.digest in ("", head[0]):
            desc = await self._local(head[0], head[1])
            if desc is not None and await self._proven(desc):
                return desc
        return await self._document(reference.selector, expected=reference.digest)

    async def _local(self, digest: str, media_type: str) -> Descriptor | None:
        try:
            return await self._kept(digest, media_type)
        except WharfError as error:
            if error.kind is Kind.NOT_FOUND:  # also if the collector removes it meanwhile
                return None
            raise

    async def _kept(self, digest: str, media_type: str) -> Descriptor | None:
        info = await self._engine.content.info(digest)
        desc = Descriptor(media_type, digest, info.size)
        if not media_type:
            document = await documents.read(self._engine, desc)
            desc = Descriptor(oci.media_type_of(document), digest, info.size)
        if not (oci.is_index(desc.media_type) or oci.is_manifest(desc.media_type)):
            return None
        # Write it again, which transfers no bytes: this pull's lease then protects it.
        data = await self._engine.content.read_all(digest)
        return await documents.write(self._engine, data, desc.media_type)

    async def _document(self, selector: str, *, expected: str = "", size: int | None = None) -> Descriptor:
        data, media_type = await self._retried(lambda: self._repository.manifest(selector))
        if media_type in oci.SCHEMA1:
            oci.parse_manifest({"schemaVersion": 1})  # raises the sentence for this format
        if not (oci.is_index(media_type) or oci.is_manifest(media_type)):
            raise invalid(f'encountered remote "{media_type}"(unknown) when fetching')
        if size is not None and size != len(data):
            raise invalid(f"{selector}: {len(data)} bytes where the index says {size}")
        return await documents.write(self._engine, data, media_type, expected=expected)

    async def _choose(self, target: Descriptor) -> Descriptor:
        """The manifest of the platform; indexes may be nested."""
        for _ in range(4):
            if not oci.is_index(target.media_type):
                return target
            index = oci.parse_index(await documents.read(self._engine, target))
            self._siblings = index
            fitting = oci.best(index, self._platform)
            if not fitting:
                raise not_found(
                    f"no matching manifest for {oci.format_platform(self._platform)} in the manifest list entries"
                )
            child = fitting[0]
            if child.size > limits.DOCUMENT_BYTES:
                raise limits.exceeded("DOCUMENT_BYTES", f"{child.digest}: the size {child.size} of a manifest")
            await documents.has_sized(self._engine, child)
            local = await self._local(child.digest, child.media_type)
            if local is not None and not await self._proven(local):
                local = None
            target = local or await self._document(child.digest, expected=child.digest, size=child.size)
        raise invalid(f"{target.digest}: indexes within indexes")

    async def _remember(self, *blobs: Descriptor) -> None:
        if self._repository.is_registry:
            await remember_source(self._engine, self._repository.reference, blobs)

    # content

    async def _image(self, target: Descriptor) -> None:
        manifest = oci.parse_manifest(await documents.read(self._engine, target), target.digest)
        if not manifest.is_image:
            media_type = manifest.config.media_type
            raise invalid(f'encountered remote "{media_type}"(unknown) when fetching')
        oci.check_sizes(manifest, target.digest)
        layers = manifest.layers
        # Check stored layers first: one with another size is refused before any download.
        here = [await documents.has_sized(self._engine, layer) for layer in layers]
        quiet = all(here)
        if not quiet:
            for layer in layers:
                await self._report.part("Pulling fs layer", _short(layer.digest))
        try:
            with first_error():
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._attestation(target))
                    chain = await self._content(target, manifest, quiet=quiet)
        except WharfError as error:
            if error.kind is Kind.RESOURCE_EXHAUSTED:
                # The disk is full. The other downloads were cancelled: discard what they have written.
                await self._downloads.discard_stale({blob.digest for blob in (manifest.config, *layers)})
            raise
        if chain:
            await documents.reference_snapshot(self._engine, manifest.config.digest, chain)
        await self._remember(manifest.config, *layers)

    async def _attestation(self, image: Descriptor) -> None:
        """Fetch the attestation that the index has for the image. A registry may lack it, for example a mirror that
        copies only images; the image is complete without it."""
        desc = oci.attestation_of(self._siblings, image)
        if desc is None:
            return
        try:
            local = await self._local(desc.digest, desc.media_type)
            if local is not None and not await self._proven(local):
                local = None
            target = local or await self._document(desc.digest, expected=desc.digest, size=desc.size)
            manifest = oci.parse_manifest(await documents.read(self._engine, target), target.digest)
            oci.check_sizes(manifest, target.digest)
            blobs = (manifest.config, *manifest.layers)
            for blob in blobs:
                await self._fetch(blob)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            log.info("%s: no attestation: %s", image.digest, error.message)
            return
        await self._remember(*blobs)

    async def _content(self, target: Descriptor, manifest: oci.Manifest, *, quiet: bool) -> str:
        layers = manifest.layers
        # A layer without a download proves nothing about the user's access.
        if self._proof is None and self._repository.is_registry and self._engine.snapshots.remote:
            provided = await self._provide(target, manifest, quiet=quiet)
        else:
            provided = 0
        async with asyncio.TaskGroup() as group:
            config = group.create_task(self._fetch(manifest.config))
            tasks = [
                group.create_task(
                    self._layer(layer, manifest.urls.get(layer.digest, ()), quiet=quiet, wanted=index >= provided)
                )
                for index, layer in enumerate(layers)
            ]
            await config
            document = await documents.read(self._engine, manifest.config)
            self._check_platform(document)

            async def ready(index: int) -> None:
                await asyncio.shield(tasks[index])

            async def arriving(index: int) -> str:
                if layers[index].size < _ARRIVING_MIN:
                    return ""
                begun = asyncio.ensure_future(self._begun[layers[index].digest].wait())
                try:
                    await asyncio.wait((begun, tasks[index]), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    begun.cancel()
                return "" if tasks[index].done() else download_ref(layers[index].digest)

            def on_state(index: int, state: str) -> None:
                if quiet or index < provided:
                    return
                id, size = _short(layers[index].digest), layers[index].size
                if state == "extracting":
                    self._report.bar("Extracting", id, 0, size)
                    return
                if state == "done":
                    self._report.bar("Extracting", id, size, size)
                if state == "exists" and not tasks[index].done():  # its bytes are still arriving
                    tasks[index].add_done_callback(partial(self._complete, id))
                    return
                self._report.offer("Pull complete", id)

            def on_progress(index: int, size: int) -> None:
                if not quiet and tasks[index].done():  # until then the bar shows the download
                    self._report.bar("Extracting", _short(layers[index].digest), size, layers[index].size)

            ids = oci.diff_ids(document)
            return await unpack(
                self._engine, layers, ids, ready=ready, arriving=arriving, on_state=on_state, on_progress=on_progress
            )

    async def _provide(self, target: Descriptor, manifest: oci.Manifest, *, quiet: bool) -> int:
        """Returns how many layers, from the base, have snapshots without a download."""
        from server.registry import lazy

        await self._fetch(manifest.config)
        ids = oci.diff_ids(await documents.read(self._engine, manifest.config))
        if len(ids) != len(manifest.layers):
            return 0  # unpack refuses it
        with current().phase("provide"):
            provided = await lazy.provide(self._engine, self._repository.reference, target, manifest.layers, ids)
        for layer in () if quiet else manifest.layers[:provided]:
            self._report.offer("Already exists", _short(layer.digest))
        return provided

    async def _fetch(
        self, desc: Descriptor, *, watch: OnBlobState | None = None, urls: tuple[str, ...] = ()
    ) -> Fetched:
        """Fetches a blob; one that this pull did not download itself must be proven."""
        fetched = await self._downloads.fetch(self._repository, desc, watch=watch, urls=urls)
        if self._proof is not None and fetched is not Fetched.HERE:
            await self._proof.check(desc)
        return fetched

    async def _proven(self, desc: Descriptor) -> bool:
        """Whether a stored document may be used; else it must be fetched."""
        if self._proof is None:
            return True
        try:
            await self._proof.check(desc)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return False
        return True

    def _complete(self, id: str, fetched: "asyncio.Task[None]") -> None:
        if not fetched.cancelled() and fetched.exception() is None:
            self._report.offer("Pull complete", id)

    def _check_platform(self, config: oci.Json) -> None:
        """An image without an index must match a platform in the request."""
        offered = oci.platform_of(config)
        if self._exact and offered is not None and oci.rank(self._platform, offered) is None:
            raise not_found(
                f"image with reference {self._repository.reference} was found but does not provide the specified"
                f" platform ({oci.format_platform(self._platform)})"
            )

    async def _layer(self, layer: Descriptor, urls: tuple[str, ...], *, quiet: bool, wanted: bool) -> None:
        if not wanted:
            return
        id = _short(layer.digest)
        shown = 0.0

        def watch(state: str, size: int) -> None:
            nonlocal shown
            if state == "Downloading":
                self._begun[layer.digest].set()
                if (now := time.monotonic()) - shown >= _BAR_SECONDS:
                    shown = now
                    self._report.bar("Downloading", id, size, layer.size)
            else:
                self._report.offer(state, id)

        foreign = urls if oci.is_foreign(layer.media_type) else ()
        with current().phase(f"fetch {id}"):
            fetched = await self._fetch(layer, watch=watch, urls=foreign)
        if fetched is Fetched.STORED and not quiet:
            self._report.offer("Already exists", id)


async def remember_source(engine: Engine, reference: Reference, blobs: tuple[Descriptor, ...]) -> None:
    """Labels the blobs with their repository: a push to the same registry can then mount them."""
    label = oci.source_label(reference)
    for blob in blobs:
        try:
            info = await engine.content.info(blob.digest)
            known = [path for path in info.labels.get(label, "").split(",") if path]
            if reference.path not in known:
                await engine.content.update_labels(blob.digest, {label: ",".join((*known[-8:], reference.path))})
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise


def dockerd_error(error: RegistryError, reference: Reference) -> WharfError:
    """A registry's refusal in dockerd's sentences, which clients match."""
    if error.status == 404 and error.reason is not Reason.NAME_UNKNOWN:
        return not_found(f'failed to resolve reference "{reference}": {reference}: not found')
    if error.status in (401, 403, 404):
        detail = "denied: requested access to the resource is denied"
        if error.status != 404:
            detail = error.message
        return not_found(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require"
            f" 'docker login': {detail}"
        )
    return error
