"""Images: the Engine API's operations on images, on top of the engine's content store and snapshotter."""

import copy
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from engine.api.client import Engine
from engine.api.types import Descriptor, ImageRecord, Mount
from engine.common.errors import Kind, WharfError
from server.access.caller import Caller
from server.config.model import Config
from server.events.bus import EventBus
from server.images import creation, rootfs
from server.images.archive import loading, saving
from server.images.attestations import attestations
from server.images.context import ApplyChanges, ImageContext
from server.images.identity import build_label
from server.images.listing import ImageList
from server.images.local import LocalImages
from server.images.model import PARENT_LABEL, Image, Users, owner_of
from server.images.names import Names
from server.images.ownership.layers import ProvenLayers
from server.images.ownership.names import OwnedNames
from server.images.remove import Removal
from server.images.resolve import Resolver
from server.images.sizes import Sizes
from server.images.store import KnownStore
from server.images.transfer import Transfer
from server.images.trees import Trees
from server.images.unpacker import Unpacker
from server.registry import oci
from server.registry.auth import (
    ANONYMOUS,
    Ask,
    Credentials,
    ask_credentials,
    credentials_key,
    find_entry,
    from_document,
)
from server.registry.client import Repository
from server.registry.progress import Message, Report
from server.registry.reference import Reference, parse
from server.registry.source import Source

Messages = AsyncIterator[Message]


# The number of owners whose views are kept.
_KEPT = 256


class BuildMessages(Protocol):
    """Receives the progress of a build's pull, as messages of the classic stream."""

    async def put(self, message: Mapping[str, Any], /) -> None:
        """Accept one message; wait while the reader is behind."""


class Images:
    """``users`` lists the containers, whose images can't be removed; ``apply_changes`` is the builder's;
    ``store`` keeps what lists show. Call ``start`` before use, ``stop`` at the end.

    ``list`` reads all images, ``local`` single ones (inspect, history, tag); ``removal`` deletes, ``transfer`` talks to
    registries.
    """

    def __init__(
        self,
        engine: Engine,
        bus: EventBus,
        users: Users,
        config: Config,
        *,
        apply_changes: ApplyChanges,
        store: KnownStore,
    ) -> None:
        self._names = Names(engine)
        unpacker = Unpacker(engine)
        resolver = Resolver(engine, self._names)
        trees = Trees(engine, self._names, resolver, store)
        self._context = ImageContext(engine, self._names, resolver, trees, bus, users, unpacker, apply_changes)
        self._sizes = Sizes(engine, unpacker)
        self._names.on_removed = self._forget_sizes
        self._proven = ProvenLayers(engine)
        #: Whether a name of the administrators is published to all users.
        self.published: Callable[[str], bool] = lambda name: False
        self.transfer = Transfer(self._context, config)
        self._views: dict[str, Images] = {}  # by owner
        self._use(self._context)

    def _use(self, context: ImageContext) -> None:
        self.list = ImageList(context, self._sizes)
        self.local = LocalImages(context, self._sizes)
        self.removal = Removal(context, self._sizes, self.transfer.downloads)

    async def start(self) -> None:
        await self._names.start()

    async def stop(self) -> None:
        await self._context.unpacker.stop()
        await self._names.stop()

    def seen_by(self, caller: Caller) -> "Images":
        """The same service for one caller: a user's names, and the published ones; for an administrator all."""
        return self if caller.administrator else self._of(caller.owner)

    def _of(self, owner: str) -> "Images":
        found = self._views.get(owner)
        if found is None:
            if len(self._views) >= _KEPT:
                self._views.clear()
            found = self._views[owner] = self._bind(owner)
        return found

    def _bind(self, owner: str) -> "Images":
        context = self._context
        names = OwnedNames(self._names, owner, lambda name: self.published(name))
        bound = copy.copy(self)
        bound._context = replace(
            context,
            names=names,
            resolver=context.resolver.of(names),
            users=lambda: [user for user in context.users() if user.owner == owner],
            owner=owner,
        )
        bound.transfer = self.transfer.of(bound._context)
        bound._use(bound._context)
        return bound

    async def remove_owned(self) -> None:
        """Remove all names of the caller's owner; the content goes with its last name. For users only."""
        if self._context.owner:
            for record in await self._context.names.own():
                await self._context.names.delete(record.name)
                self._context.resolver.forget(record.target.digest)
            self._forget_sizes()

    def _forget_sizes(self) -> None:
        self._context.trees.forget()
        self._sizes.forget()

    # for containers

    def of(self, owner: str) -> "Images":
        """The images that a container of this owner may refer to: the owner's and the published ones."""
        return self._of(owner) if owner else self

    async def resolve(self, ref: str, *, platform: str | None = None, manifest: str = "") -> Image:
        """Return the image of a name, an id or a prefix of an id, for ``platform`` or else for this host. ``manifest``:
        instead of a platform, the digest of the manifest.

        :raises WharfError: NOT_FOUND "No such image: …"; INVALID_ARGUMENT for an invalid reference or platform, or if
            a user's image claims layers that it doesn't have.
        """
        image = await self._context.resolver.resolve(ref, platform=platform, manifest=manifest)
        await self.check_layers(image)
        return image

    async def find_id(self, ref: str) -> str | None:
        """Return the id of a reference's image, without a look at its documents; ``None`` if there is none, or the
        engine doesn't answer."""
        try:
            return (await self._context.resolver.record(ref)).target.digest
        except WharfError:
            return None

    async def references(self) -> AsyncIterator[set[str]]:
        """The names and digests of the administrators' images, now and after each change. Changes in quick succession
        come as one."""
        while True:
            records, changed = self._names.known()
            mine = [record for record in records if not owner_of(record)]
            yield {record.name for record in mine} | {record.target.digest for record in mine}
            await changed.wait()

    async def rootfs(self, image: Image, key: str, *, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """Create a writable root file system ``key``; the caller removes the snapshot.

        :raises WharfError: ALREADY_EXISTS: the key is in use; NOT_FOUND: a layer's blob is missing.
        """
        return await rootfs.prepare(self._context.engine, image, key, labels)

    async def children(self, digest: str) -> list[str]:
        """Return the ids of child images."""
        return await self.list.children(digest)

    async def apply_changes(self, config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
        """Apply a client's changes (``--change``) to a configuration.

        :raises WharfError: INVALID_ARGUMENT for an instruction that is not allowed.
        """
        return await self._context.apply_changes(config, changes)

    async def attestations(
        self, text: str, *, platform: str | None = None, types: Sequence[str] = (), statements: bool = False
    ) -> list[dict[str, Any]]:
        """See ``server.images.attestations``."""
        requested = oci.parse_platform(platform) if platform else None
        return await attestations(self._context, text, platform=requested, types=types, statements=statements)

    # archives

    def load(self, body: AsyncIterator[bytes], *, platforms: Sequence[str] = (), quiet: bool = True) -> Messages:
        """``docker load``: return the messages of the stream. ``platforms``: load nothing else of each image.
        ``quiet``: without the progress of the layers."""
        report = Report()
        requested = [oci.parse_platform(text) for text in platforms]
        return report.run(loading.load_archive(self._context, body, report, platforms=requested, quiet=quiet))

    async def save(self, names: Sequence[str], *, platforms: Sequence[str] = ()) -> AsyncIterator[bytes]:
        """``docker save``: check that all content is local, then return the archive's bytes. ``platforms``: save
        nothing else of each image.

        :raises WharfError: NOT_FOUND: an image, or one of its platforms.
        """
        images = await saving.select_images(self._context, names)
        requested = [oci.parse_platform(text) for text in platforms]
        for record, _ in images:
            for platform in requested or (None,):
                await self._context.resolver.resolve_record(record, platform)
        return saving.save(self._context, images, complete=self.transfer.complete, platforms=requested)

    def import_(
        self,
        body: AsyncIterator[bytes],
        *,
        reference: Reference | None,
        message: str = "",
        changes: Sequence[str] = (),
        platform: str | None = None,
        report: Report | None = None,
    ) -> Messages:
        """``docker import``: return the messages; the last one has the image's id."""
        report = report or Report()
        requested = oci.parse_platform(platform) if platform else None
        return report.run(
            creation.import_image(
                self._context, body, report, reference=reference, message=message, changes=changes, platform=requested
            )
        )

    # registries

    def pull(
        self, reference: Reference, *, credentials: Credentials = ANONYMOUS, platform: str | None = None
    ) -> Messages:
        report = Report()
        return report.run(self.transfer.pull(reference, report, credentials=credentials, platform=platform))

    async def pull_from(self, source: Source, reference: Reference) -> None:
        """See ``Transfer.pull_from``."""
        await self.transfer.pull_from(source, reference)

    def push(
        self, reference: Reference, *, credentials: Credentials = ANONYMOUS, platform: str | None = None
    ) -> Messages:
        report = Report()
        return report.run(self.transfer.push(reference, report, credentials=credentials, platform=platform))

    async def pull_for_build(
        self,
        ref: str,
        *,
        platform: str | None,
        credentials: Mapping[str, Mapping[str, Any]] | Ask,
        messages: BuildMessages,
    ) -> None:
        """Pull a base image. ``credentials``: the object of ``X-Registry-Config`` by registry, or a function to
        call."""
        reference = parse(ref).tagged()
        if isinstance(credentials, Mapping):
            client_credentials = from_document(find_entry(credentials, reference))
        else:
            client_credentials = await ask_credentials(credentials, credentials_key(reference))
        async for message in self.pull(reference, credentials=client_credentials, platform=platform):
            await messages.put(message)

    # for the builder

    async def check_layers(self, image: Image) -> None:
        """Check that a user's image claims no layers of others.

        :raises WharfError: INVALID_ARGUMENT: a layer has another diff id; NOT_FOUND: its blob is missing.
        """
        if self._context.owner:
            await self._proven.check(image)

    async def may_read(self, digest: str) -> bool:
        """Whether the caller may have stored content: what is below the images that exist for it; an administrator
        all."""
        own = await self._context.own_digests()
        return own is None or digest in own

    async def chains(self) -> set[str]:
        """Return the chain ids of all layers of all images: the build cache shares these."""
        return await self.list.chains()

    async def is_built(self, digest: str, tags: Sequence[str]) -> bool:
        """Whether the target already has these names, or any name if none are given: then :meth:`built` changes
        nothing."""
        names = self._context.names
        if not tags:
            return bool(await names.find_by_digest(digest))
        found = [await names.get(str(reference.tagged())) for reference in creation.names_of(tags)]
        return all(record is not None and record.target.digest == digest for record in found)

    async def built(self, target: Descriptor, tags: Sequence[str], *, parent: str = "", ref: str = "") -> None:
        """Name the result of a build, whose documents are in the store under a lease; without tags it becomes a
        dangling image. ``ref``: the build's record in the history, shown in ``Identity``."""
        self._context.resolver.forget(target.digest)
        if ref:
            await self._context.engine.content.update_labels(target.digest, build_label(ref, time.time_ns()))
        labels = {PARENT_LABEL: parent} if parent else {}
        references = creation.names_of(tags)
        await creation.name_image(self._context, target, references, labels)
        await self._context.publish_with_labels("create", target.digest, target.digest)
        for reference in references:
            await self._context.publish_with_labels("tag", target.digest, reference.tagged().familiar)

    def archive(self, target: Descriptor, tags: Sequence[str]) -> AsyncIterator[bytes]:
        """Save an image, which may lack a name, under these names as :meth:`save` does."""
        names = creation.names_of(tags)
        records = [(ImageRecord(str(name.tagged()), target), name.tagged()) for name in names]
        images: saving.Named = records or [(ImageRecord(target.digest, target), None)]
        return saving.save(self._context, images, complete=self.transfer.complete, quiet=True)

    async def repository(self, ref: str, ask: Ask) -> Repository:
        """Return a repository for reading: an async context manager."""
        reference = parse(ref)
        return Repository(self.transfer.config, reference, await ask_credentials(ask, credentials_key(reference)))

    async def push_built(self, ref: str, target: Descriptor, ask: Ask) -> None:
        """Push the result of a build under a name.

        :raises WharfError: the registry's errors.
        """
        reference = parse(ref)
        client_credentials = await ask_credentials(ask, credentials_key(reference))
        report = Report()
        async for _ in report.run(self.transfer.push_target(reference, target, report, client_credentials)):
            continue

    async def commit(
        self,
        key: str,
        image_id: str,
        *,
        config: Mapping[str, Any],
        author: str = "",
        comment: str = "",
        created_by: str = "",
        reference: Reference | None = None,
        manifest: str = "",
    ) -> str:
        """Commit the container's snapshot ``key`` as an image on ``image_id`` ("" for none); return the new id.

        ``manifest``: the digest of the image's manifest that the container has; "" selects this host's. ``config``: the
        new image's ``config`` object. The caller pauses the container and publishes the container's event.

        :raises WharfError: NOT_FOUND for a missing blob of the image.
        """
        image: Image | None = None
        if image_id:
            try:
                image = await self._context.resolver.resolve(image_id, manifest=manifest)
            except WharfError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
                raise WharfError(
                    Kind.NOT_FOUND, f"failed to commit: the container's image {image_id} is gone"
                ) from None
        target = await creation.commit_snapshot(
            self._context,
            key,
            image,
            config=config,
            author=author,
            comment=comment,
            created_by=created_by,
            reference=reference,
        )
        self._context.resolver.forget(target.digest)
        await self._context.publish_with_labels("create", target.digest, target.digest)
        if reference is not None:
            await self._context.publish_with_labels("tag", target.digest, reference.tagged().familiar)
        return target.digest
