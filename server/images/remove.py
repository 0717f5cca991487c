"""``docker rmi`` and ``docker image prune``: delete names, and the image with its last name.

The removal does not wait for the data: the engine's collector removes unreferenced content in the background.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from api_models.filters import Filters
from engine.api.types import Descriptor, ImageRecord, Platform
from engine.common.errors import WharfError, conflict
from server.images.context import ImageContext
from server.images.filters import PRUNE_FILTERS, selector
from server.images.model import (
    PARENT_LABEL,
    dangling_name,
    is_dangling,
    mounted,
    no_such_image,
    owner_of,
    reference_of,
    short_id,
)
from server.images.sizes import Sizes
from server.registry import documents, oci
from server.registry.download import Downloads
from server.registry.reference import DigestReference, Reference, parse_any

Lines = list[dict[str, str]]


def _is_id(digest: str, text: str) -> bool:
    return bool(text) and (digest.startswith(text) or digest.partition(":")[2].startswith(text))


def _conflict(reference: str, reason: str, *, hard: bool = False) -> WharfError:
    force = "cannot be forced" if hard else "must be forced"
    return conflict(f"conflict: unable to delete {reference} ({force}) - {reason}")


class Removal:
    def __init__(self, context: ImageContext, sizes: Sizes, downloads: Downloads) -> None:
        self._context = context
        self._sizes = sizes
        self._downloads = downloads
        self._pruning = False

    # remove

    async def remove(self, text: str, *, force: bool = False, prune: bool = True) -> Lines:
        """Remove an image; return the lines of the answer in dockerd's order.

        :raises WharfError: NOT_FOUND; CONFLICT in dockerd's words if it is in use or has other names.
        """
        names = self._context.names
        record = await self._context.resolver.record(text)
        digest = record.target.digest
        group = await names.find_by_digest(digest)
        mine = [one for one in group if names.owns(one)]
        if not mine:
            await names.delete(record.name)  # refuses it
        parsed = parse_any(text) if not text.startswith("moby-dangling@") else DigestReference(digest)
        by_name = isinstance(parsed, Reference) and (
            record.name == str(parsed.tagged()) or (bool(parsed.digest) and not is_dangling(record))
        )
        if not by_name and _is_id(digest, text.removeprefix("moby-dangling@")):
            if len(mine) != len(group):
                return [line for one in mine for line in await self._untag(one)]
            return await self._remove_image(digest, group, force=force, prune=prune, several=not force)
        assert isinstance(parsed, Reference)
        same = _same(parsed, [one for one in mine if owner_of(one) == owner_of(record)])
        if not same:
            raise no_such_image(parsed)
        if len(same) != len(group):
            return [line for one in same for line in await self._untag(one)]
        users = self._context.users()
        user = next((user for user in users if user.image_id == digest or digest in mounted(user)), None)
        if user is not None:
            familiar = parsed.tagged().familiar
            if not force:
                raise _conflict(familiar, f"container {user.id[:12]} is using its referenced image {short_id(digest)}")
            # The container keeps its image, which becomes a dangling one.
            await names.ensure_dangling(record)
            return [line for one in same for line in await self._untag(one)]
        return await self._remove_image(digest, group, force=force, prune=prune, several=False)

    async def remove_platforms(self, text: str, platforms: Sequence[Platform], *, force: bool = False) -> Lines:
        """Remove single platforms of an index; its names stay (API 1.50). An image of one platform is removed
        completely.

        Content that other images refer to stays; the answer does not list it.

        :raises WharfError: NOT_FOUND for a missing image or platform; CONFLICT for one in use.
        """
        context = self._context
        record = await context.resolver.record(text)
        lines: Lines = []
        for platform in platforms:
            image = await context.resolver.resolve_record(record, platform, text=text)
            manifest = image.manifest_descriptor.digest
            if manifest == record.target.digest:
                return await self._remove_image(
                    manifest, await context.names.find_by_digest(manifest), force=force, prune=False, several=False
                )
            for user in context.users():
                if not force and user.image_id == image.id and (user.image_manifest or {}).get("digest") == manifest:
                    reason = f"container {user.id[:12]} is using its referenced image {short_id(image.id)}"
                    raise _conflict(text, reason)
            await self._remove_labels(record.target, manifest)
            try:
                await self._collect()
            finally:
                context.resolver.forget(record.target.digest)
                self._forget_sizes()
            if not await documents.has(context.engine, manifest):
                lines.append({"Deleted": manifest})
        return lines

    async def _remove_labels(self, index: Descriptor, child: str) -> None:
        """Remove the labels by which an index, or an index below it, refers to a manifest."""
        engine = self._context.engine
        if not oci.is_index(index.media_type) or not await documents.has(engine, index.digest):
            return
        info = await engine.content.info(index.digest)
        references: dict[str, str | None] = {
            key: None for key, digest in info.labels.items() if digest == child and key.startswith(oci.REF)
        }
        if references:
            await engine.content.update_labels(index.digest, references)
        for nested in oci.parse_index(await documents.read(engine, index)):
            await self._remove_labels(nested, child)

    async def _untag(self, record: ImageRecord) -> Lines:
        await self._context.names.delete(record.name)
        name = reference_of(record)
        familiar = name.familiar if name is not None else record.name
        self._context.publish("untag", record.target.digest, familiar)
        return [{"Untagged": familiar}]

    def _check(self, digest: str, group: list[ImageRecord], *, force: bool, several: bool) -> None:
        shown = short_id(digest)
        users = [user for user in self._context.users() if user.image_id == digest]
        for user in users:
            if user.state.running:
                raise _conflict(shown, f"image is being used by running container {user.id[:12]}", hard=True)
        if not force:
            for user in self._context.users():
                if user.image_id == digest:
                    raise _conflict(shown, f"image is being used by stopped container {user.id[:12]}")
                if digest in mounted(user):
                    raise _conflict(shown, f"container {user.id[:12]} has it as a mount")
            parsed = [name for r in group if (name := reference_of(r)) is not None]
            if several and (len({name.name for name in parsed}) > 1 or len([n for n in parsed if n.tag]) > 1):
                raise _conflict(shown, "image is referenced in multiple repositories")

    async def _remove_image(
        self, digest: str, group: list[ImageRecord], *, force: bool, prune: bool, several: bool
    ) -> Lines:
        self._check(digest, group, force=force, several=several)
        lines: Lines = []
        parent = next((r.labels[PARENT_LABEL] for r in group if r.labels.get(PARENT_LABEL)), "")
        children = [c for c in await self._named_children(digest) if c != digest]
        if children and not force:
            # It is the parent of other images: delete only its names.
            await self._context.names.ensure_dangling(group[0])
            for record in group:
                if not is_dangling(record):
                    lines += await self._untag(record)
            return lines
        for record in group:
            if is_dangling(record):
                await self._context.names.delete(record.name)
            else:
                lines += await self._untag(record)
        self._removed(digest)
        lines.append({"Deleted": digest})
        if prune:
            lines += await self._parents(parent)
        return lines

    async def _named_children(self, digest: str) -> list[str]:
        records = await self._context.names.all()
        return [r.target.digest for r in records if r.labels.get(PARENT_LABEL) == digest]

    async def _parents(self, digest: str) -> Lines:
        """Remove intermediate images without names that only this image needed."""
        lines: Lines = []
        while digest:
            group = await self._context.names.find_by_digest(digest)
            used = any(user.image_id == digest or digest in mounted(user) for user in self._context.users())
            if not group or used or not all(is_dangling(r) for r in group) or await self._named_children(digest):
                break
            for record in group:
                await self._context.names.delete(record.name)
            self._removed(digest)
            lines.append({"Deleted": digest})
            digest = group[0].labels.get(PARENT_LABEL, "")
        return lines

    def _removed(self, digest: str) -> None:
        self._context.resolver.forget(digest)
        self._forget_sizes()
        self._context.publish("delete", digest, digest)

    def _forget_sizes(self) -> None:
        self._sizes.forget()
        self._context.trees.forget()

    # prune

    async def prune(self, filters: Filters) -> dict[str, object]:
        """Remove images that no container uses: dangling ones, or with ``dangling=false`` all.

        :raises WharfError: CONFLICT while another prune runs; INVALID_ARGUMENT for a filter.
        """
        filters.validate(PRUNE_FILTERS)
        if self._pruning:
            raise conflict("a prune operation is already running")
        self._pruning = True
        try:
            return await self._prune(filters)
        finally:
            self._pruning = False

    async def _prune(self, filters: Filters) -> dict[str, object]:
        only_dangling = filters.flag("dangling", default=True)
        rest = Filters({key: filters.get(key) for key in filters if key != "dangling"})
        select = await selector(self._context, rest)
        names = await self._context.names.own()
        selected = await select(record for record in names if not only_dangling or is_dangling(record))
        chosen = self._unused(names, {record.name: record for record in selected})
        trees = await self._context.trees.get_all(record.target for record in chosen.values())
        layers = await self._sizes.layers(chain for tree in trees.values() for chain in tree.chains)
        deleted: Lines = []
        before: dict[str, int] = {}
        for record in chosen.values():
            if await self._named_children(record.target.digest) and is_dangling(record):
                continue
            before |= trees[record.target.digest].blobs
            digest = record.target.digest
            left = [r for r in await self._context.names.find_by_digest(digest) if r.name != record.name]
            await self._context.names.delete(record.name)
            name = reference_of(record)
            untagged = digest if is_dangling(record) else name.familiar if name is not None else record.name
            deleted.append({"Untagged": untagged})
            if not is_dangling(record):
                self._context.publish("untag", digest, untagged)
            if not left:
                self._removed(digest)
        if chosen:
            # Run the collector now, so that the answer can report the reclaimed space.
            await self._collect()
        reclaimed = 0
        left_over = {info.digest async for info in self._context.engine.content.walk()} if before else set()
        for digest, size in before.items():
            if digest not in left_over:
                deleted.append({"Deleted": digest})
                reclaimed += size
        if layers:
            self._sizes.forget()
            kept = await self._sizes.layers(layers)
            reclaimed += sum(size for chain, size in layers.items() if chain not in kept)
        if not list(rest):  # a target without documents here matches no filter
            reclaimed += await self._downloads.discard_stale()
        self._context.publish("prune", "", "", {"reclaimed": str(reclaimed)})
        return {"ImagesDeleted": deleted or None, "SpaceReclaimed": reclaimed}

    def _unused(self, names: Sequence[ImageRecord], chosen: Mapping[str, ImageRecord]) -> dict[str, ImageRecord]:
        """Return those of ``chosen`` that may be removed. A container that was created by name keeps that name; one
        created by id or digest keeps the last of the image's names."""
        left = dict(chosen)
        used: set[str] = set()
        for user in self._context.users():
            for digest in mounted(user):
                left = {name: record for name, record in left.items() if record.target.digest != digest}
            left.pop(dangling_name(user.image_id), None)
            requested = user.config.image or ""
            if user.image_id.startswith("sha256:" + requested.removeprefix("sha256:")) or requested.endswith(
                f"@{user.image_id}"
            ):
                used.add(user.image_id)
            try:
                parsed = parse_any(requested)
            except WharfError:
                continue
            if isinstance(parsed, Reference):
                left.pop(str(parsed.tagged()), None)
                if parsed.tag and parsed.digest:
                    left.pop(str(parsed.trimmed().with_tag(parsed.tag)), None)
        count = Counter(record.target.digest for record in names)
        for name in sorted(left):
            digest = left[name].target.digest
            if count[digest] == 1 and digest in used:
                del left[name]
            count[digest] -= 1
        return left

    async def _collect(self) -> None:
        async with self._context.engine.leases.acquire(sync=True):
            pass


def _same(reference: Reference, group: list[ImageRecord]) -> list[ImageRecord]:
    """Return the names that a reference removes: its tag; with a digest, all of the repository. The repository's names
    by digest are removed with its last tag."""
    tag = "" if reference.digest else reference.tagged().tag
    same: list[ImageRecord] = []
    by_digest: list[ImageRecord] = []
    others = False
    for record in group:
        name = reference_of(record)
        if name is None or name.name != reference.name:
            if is_dangling(record):
                same.append(record)
            continue
        if not tag or name.tag == tag:
            same.append(record)
        elif name.tag:
            others = True
        else:
            by_digest.append(record)
    return same if others else same + by_digest
