"""Pushes an image: missing blobs, mounted from another repository where possible, then the manifests."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from urllib.parse import urljoin

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError, not_found
from engine.common.system import heap
from engine.common.system.task_groups import run_all
from server.registry import documents, oci
from server.registry.client import Repository
from server.registry.download import read_ahead
from server.registry.progress import Report
from server.registry.pull import remember_source
from server.registry.reference import Reference
from server.registry.responses import RegistryError, pause, retried

_BAR_SECONDS = 0.1
#: A blob of at most this many bytes is sent in the request that completes its upload, which saves an exchange.
_AT_ONCE = 1 << 20


class Pusher:
    """One push of one target to one repository."""

    def __init__(
        self,
        engine: Engine,
        repository: Repository,
        report: Report,
        *,
        limit: int,
        origins: Mapping[str, Reference],
        fetch: Callable[[Descriptor], Awaitable[None]],
    ) -> None:
        """``origins``: the images that had the layers which the store lacks. ``fetch`` downloads one of them."""
        self._engine = engine
        self._origins = origins
        self._fetch = fetch
        self._repository = repository
        self._report = report
        self._slots = asyncio.Semaphore(max(1, limit))

    async def run(self, target: Descriptor, selector: str) -> None:
        """Runs the push.

        :raises WharfError: the registry's error; NOT_FOUND for content that neither side has.
        """
        manifests: list[Descriptor] = []
        blobs: dict[str, Descriptor] = {}
        urls: set[str] = set()
        await self._collect(target, manifests, blobs, urls)
        layers = [blob for blob in blobs.values() if oci.is_layer(blob.media_type)]
        for layer in layers:
            await self._report.part("Preparing", layer.digest.partition(":")[2][:12])
        await run_all(self._blob(blob) for blob in blobs.values() if blob.digest not in urls)
        for desc in manifests:
            await self._manifest(desc, desc.digest)
        await self._manifest(target, selector)
        await remember_source(self._engine, self._repository.reference, (target, *blobs.values()))

    async def _collect(
        self, desc: Descriptor, manifests: list[Descriptor], blobs: dict[str, Descriptor], urls: set[str]
    ) -> None:
        """Depth first: a manifest's references must be pushed before it."""
        document = await documents.read(self._engine, desc)
        if oci.is_index(desc.media_type):
            for child in oci.parse_index(document):
                await self._collect(child, manifests, blobs, urls)
                manifests.append(child)
            return
        manifest = oci.parse_manifest(document)
        for blob in (*manifest.layers, manifest.config):
            blobs.setdefault(blob.digest, blob)
            if oci.is_foreign(blob.media_type) and manifest.urls.get(blob.digest):
                urls.add(blob.digest)  # foreign layers are not pushed

    async def _manifest(self, desc: Descriptor, selector: str) -> None:
        data = await self._engine.content.read_all(desc.digest)
        media_type = desc.media_type or oci.media_type_of(oci.load(data, desc.digest))

        async def put() -> None:
            async with self._repository.request(
                "PUT",
                f"manifests/{selector}",
                headers={"content-type": media_type},
                content=data,
                ok=(200, 201, 202),
            ):
                pass

        await retried(put, self._repository.attempts)

    # blobs

    async def _blob(self, blob: Descriptor) -> None:
        id = blob.digest.partition(":")[2][:12] if oci.is_layer(blob.media_type) else ""
        async with self._slots:
            state = await retried(
                lambda: self._once(blob, id),
                self._repository.attempts,
                on_retry=lambda: self._report.offer("Retrying", id) if id else None,
            )
        if id:
            await self._report.part(state, id)

    async def _once(self, blob: Descriptor, id: str) -> str:
        if await self._is_there(blob.digest):
            return "Layer already exists"
        location, mounted = await self._begin(blob)
        if mounted:
            return f"Mounted from {mounted}"
        if not await documents.has(self._engine, blob.digest):
            if blob.digest not in self._origins:
                raise not_found(f"content digest {blob.digest}: not found")
            await self._fetch(blob)
        await self._upload(blob, id, location)
        return "Pushed"

    async def _is_there(self, digest: str) -> bool:
        try:
            async with self._repository.request("HEAD", f"blobs/{digest}"):
                return True
        except RegistryError as error:
            if error.status == 404:
                return False
            raise

    async def _begin(self, blob: Descriptor) -> tuple[str, str]:
        """The upload's location, or the repository that the blob was mounted from. Tries every repository that is known
        to have the blob: a registry that can't mount it starts an upload, which the next attempt replaces."""
        location = ""
        for source in await self._sources(blob.digest):
            try:
                mounted, begun = await self._mount(blob.digest, source)
            except RegistryError as error:
                if error.status not in (400, 401, 403, 404, 405):
                    raise
                continue
            if location:
                await self._cancel(location)
            if mounted:
                return "", source
            location = begun
        return location or await self._new(), ""

    async def _mount(self, digest: str, source: str) -> tuple[bool, str]:
        """Whether the blob was mounted from another repository; if not, the location of the upload."""
        async with self._repository.request(
            "POST",
            "blobs/uploads/",
            query={"mount": digest, "from": source},
            headers={"content-length": "0"},
            ok=(201, 202),
            scope=f"{self._repository.scope} repository:{source}:pull",
        ) as response:
            if response.status_code == 201:
                return True, ""
            return False, self._location(response.headers.get("location", ""), str(response.url))

    async def _cancel(self, location: str) -> None:
        """Cancels an upload that isn't needed. Otherwise the registry would collect it later."""
        with suppress(RegistryError):
            async with self._repository.request("DELETE", location, ok=(200, 202, 204, 404)):
                pass

    async def _new(self) -> str:
        async with self._repository.request(
            "POST", "blobs/uploads/", headers={"content-length": "0"}, ok=(202,)
        ) as response:
            return self._location(response.headers.get("location", ""), str(response.url))

    def _location(self, location: str, url: str) -> str:
        if not location:
            raise RegistryError(Kind.INVALID_ARGUMENT, "the registry sent no location for the upload", status=502)
        target = urljoin(url, location)
        if url.startswith("https:") and target.startswith("http:"):
            # registries behind a proxy that terminates TLS send http
            target = "https:" + target.removeprefix("http:")
        return target

    async def _sources(self, digest: str) -> list[str]:
        """Other repositories of this registry that are known to have the blob."""
        reference = self._repository.reference
        origin = self._origins.get(digest)
        if origin is not None and origin.domain == reference.domain and origin.path != reference.path:
            return [origin.path]
        try:
            info = await self._engine.content.info(digest)
        except WharfError as error:
            if error.kind is Kind.NOT_FOUND:
                return []
            raise
        known = info.labels.get(oci.source_label(reference), "").split(",")
        # the latest first: an old one may have been deleted
        return [path for path in reversed(known) if path and path != reference.path]

    async def _upload(self, blob: Descriptor, id: str, location: str) -> None:
        """Uploads a small blob in one PUT, a large one in one PATCH; after a break, the part that the registry
        lacks."""
        if blob.size <= _AT_ONCE:
            data = await self._engine.content.read_all(blob.digest)
            async with self._repository.request(
                "PUT",
                location,
                query={"digest": blob.digest},
                headers={"content-type": "application/octet-stream"},
                content=data,
                ok=(201, 204),
            ):
                return
        attempts = self._repository.attempts
        offset = 0
        for attempt in range(attempts):
            try:
                location = await self._patch(blob, id, location, offset)
                break
            except RegistryError as error:
                if not error.again or attempt + 1 == attempts:
                    raise
                await pause(attempt, error)
                try:
                    location, offset = await self._state(location)
                except RegistryError as lost:
                    if lost.status not in (400, 404, 416):
                        raise
                    # Many registries discard an upload whose request broke off.
                    location, offset = await self._new(), 0
        async with self._repository.request(
            "PUT", location, query={"digest": blob.digest}, headers={"content-length": "0"}, ok=(201, 204)
        ):
            pass

    async def _patch(self, blob: Descriptor, id: str, location: str, offset: int) -> str:
        shown = 0.0

        async def content() -> AsyncIterator[bytes]:
            nonlocal shown
            sent = offset
            async with aclosing(read_ahead(self._engine.content.read(blob.digest, offset=offset))) as pieces:
                async for piece in pieces:
                    yield piece
                    sent += len(piece)
                    if id and (now := time.monotonic()) - shown >= _BAR_SECONDS:
                        shown = now
                        self._report.bar("Pushing", id, sent, blob.size)

        headers = {"content-type": "application/octet-stream", "content-length": str(blob.size - offset)}
        if offset:
            headers["content-range"] = f"{offset}-{blob.size - 1}"
        if offset == blob.size:
            return location
        with heap.Transfer():
            return await self._send(location, headers, content)

    async def _send(self, location: str, headers: dict[str, str], content: Callable[[], AsyncIterator[bytes]]) -> str:
        async with self._repository.request(
            "PATCH", location, headers=headers, content=content, ok=(201, 202, 204)
        ) as response:
            return self._location(response.headers.get("location", "") or location, str(response.url))

    async def _state(self, location: str) -> tuple[str, int]:
        async with self._repository.request("GET", location, ok=(200, 202, 204)) as response:
            last = response.headers.get("range", "").removeprefix("bytes=").partition("-")[2]
            target = self._location(response.headers.get("location", "") or location, str(response.url))
            return target, int(last) + 1 if last.isdigit() and last != "0" else 0
