"""Images in a client's OCI layout (``--build-context name=oci-layout://folder``): its session serves their blobs."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from engine.api.client import Engine
from engine.api.services.content import Content
from engine.api.types import Descriptor, Platform
from engine.common import limits, timeouts
from engine.common.errors import WharfError, internal, invalid, not_found
from server.builder.neighbours import Images
from server.builder.plan.model import LAYOUT
from server.builder.session import calls
from server.builder.session.session import Session
from server.images.model import Image
from server.images.ownership.layers import receive
from server.registry import documents, oci

STORE = "buildkit-attachable-store-id"

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


class ClientStore:
    """containerd's content service as a client serves it for one of its directories. ``store``: ``local:folder``, or
    ``oci:`` and the client's name of a layout."""

    def __init__(self, session: Session, store: str) -> None:
        self.namespace = ""
        self._session = session
        self._metadata = ((STORE, store),)

    async def call(self, method: str, request: Message, reply: type[R]) -> R:
        timeout = timeouts.seconds("engine.call")
        return await calls.ask(
            self._session.connection, method, request, reply, metadata=self._metadata, timeout=timeout
        )

    async def stream(self, method: str, request: Message, reply: type[R]) -> AsyncIterator[R]:
        call = calls.Call(self._session.connection, method, reply, self._metadata)
        try:
            await call.write(request)
            call.done_writing()
            while (answer := await call.read()) is not None:
                yield answer
            call.check()
        finally:
            call.cancel()

    def duplex(self, method: str, request: type[M], reply: type[R]) -> "_Duplex[M, R]":
        return _Duplex(calls.Call(self._session.connection, method, reply, self._metadata))


class _Duplex(Generic[M, R]):
    def __init__(self, call: calls.Call[R]) -> None:
        self._on = call

    async def exchange(self, request: M | bytes) -> R:
        await self._on.write(request)
        return await self.read()

    async def read(self) -> R:
        answer = await self._on.read()
        if answer is None:
            self._on.check()
            raise internal("the stream ended early")
        return answer

    async def finish(self) -> None:
        self._on.done_writing()
        with contextlib.suppress(WharfError):
            await self._on.drain()
        self._on.cancel()

    def cancel(self) -> None:
        self._on.cancel()


@dataclass(frozen=True, slots=True)
class Layout:
    """One OCI layout of a client."""

    engine: Engine
    images: Images
    content: Content
    shown: str

    async def image(self, digest: str, platform: str) -> Image:
        """Fetch an image into the content store, under the caller's lease. Raises NOT_FOUND if no image matches."""
        try:
            image = await self._image(digest, platform)
            await self.images.check_layers(image)
            return image
        except WharfError as error:
            raise invalid(f"failed to read {self.shown}: {error.message}") from error

    async def _image(self, digest: str, platform: str) -> Image:
        target, document = await self._document(digest)
        chosen = target
        if oci.is_index(target.media_type):
            fitting = oci.best(oci.parse_index(document), oci.parse_platform(platform))
            if not fitting:
                raise not_found(f"no match for platform in manifest: {self.shown} has no image for {platform}")
            chosen, document = await self._document(fitting[0].digest)
        manifest = oci.parse_manifest(document)
        data = await self._small(manifest.config.digest)
        config = oci.load(data, manifest.config.digest)
        await documents.write(self.engine, data, manifest.config.media_type, expected=manifest.config.digest)
        diff_ids = oci.diff_ids(config)
        for layer in manifest.layers:
            await self._blob(layer)
        chain = oci.chain_ids(diff_ids)
        return Image(
            id=chosen.digest,
            name="",
            target=chosen,
            manifest_descriptor=chosen,
            manifest=document,
            config=config,
            config_digest=manifest.config.digest,
            diff_ids=diff_ids,
            chain_id=chain[-1] if chain else "",
            platform=oci.normalized(_platform(config)),
        )

    async def _document(self, digest: str) -> tuple[Descriptor, oci.Json]:
        """Fetch a manifest or an index and verify its digest."""
        data = await self._small(digest)
        document = oci.load(data, digest)
        return Descriptor(oci.media_type_of(document), digest, len(data)), document

    async def _small(self, digest: str) -> bytes:
        info = await self.content.info(digest)
        if info.size > limits.DOCUMENT_BYTES:
            raise invalid(f"{digest}: {info.size} bytes exceed the limit of a document")
        data = await self.content.read_all(digest)
        if oci.digest_of(data) != digest:
            raise invalid(f"{self.shown}: the content does not match the digest {digest}")
        return data

    async def _blob(self, layer: Descriptor) -> None:
        name = f"layout-{layer.digest}"
        async with self.engine.content.writer(name, expected=layer.digest, total=layer.size) as writer:
            await writer.truncate()
            if not writer.exists:
                async for piece in self.content.read(layer.digest):
                    await writer.write(piece)
            elif not await self.images.may_read(layer.digest):
                await receive(self.content.read(layer.digest), layer)
            # Without the diff id: it is what the client claims.
            await writer.commit(size=layer.size, digest=layer.digest)


def _platform(config: Mapping[str, Any]) -> Platform:
    found = oci.platform_of(config)
    if found is None:
        raise invalid("the image's configuration names no platform")
    return found


def layout(engine: Engine, images: Images, session: Session, ref: str) -> tuple[Layout, str]:
    """Parse ``oci-layout://<store>[:tag]@<digest>`` to the layout and the digest.

    :raises WharfError: INVALID_ARGUMENT for another form.
    """
    name, _, digest = ref.removeprefix(LAYOUT).partition("@")
    store = name.partition(":")[0]
    if not store or not digest:
        raise invalid(f"could not parse oci-layout reference {ref}")
    return Layout(engine, images, Content(ClientStore(session, f"oci:{store}")), ref), digest


async def copy_blobs(source: Content, target: Content, blobs: Iterable[Descriptor]) -> None:
    """Copy blobs to a client's directory, each once, in this order."""
    # Another build may be copying the same blob to the same directory: use a name of this copy's own.
    own = secrets.token_hex(8)
    for blob in {blob.digest: blob for blob in blobs}.values():
        async with target.writer(f"copy-{own}-{blob.digest}", expected=blob.digest, total=blob.size) as writer:
            if writer.exists:
                continue
            await writer.truncate()
            async for piece in source.read(blob.digest):
                await writer.write(piece)
            await writer.commit(size=blob.size, digest=blob.digest)


async def copy_image(source: Content, target: Content, image: Descriptor) -> None:
    """Copy an image and all its blobs, referenced blobs first."""
    document = oci.load(await source.read_all(image.digest), image.digest)
    if oci.is_index(image.media_type):
        for child in oci.parse_index(document):
            await copy_image(source, target, child)
        await copy_blobs(source, target, [image])
        return
    manifest = oci.parse_manifest(document)
    await copy_blobs(source, target, [*manifest.layers, manifest.config, image])
