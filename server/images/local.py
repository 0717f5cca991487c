"""``docker images``, ``inspect``, ``history``, ``tag``: reads and names images in the store."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api_models.filters import Filters
from engine.api.types import Descriptor, ImageRecord
from engine.common.errors import Kind, WharfError, invalid
from server.images.context import ImageContext
from server.images.filters import LIST_FILTERS, selector
from server.images.identity import read as read_identity
from server.images.manifests import Manifests
from server.images.model import PARENT_LABEL, Image, is_dangling
from server.images.sizes import Sizes, distinct_chains
from server.images.timestamps import format_ns, parse_ns
from server.registry import oci
from server.registry.reference import Reference, parse_canonical

Json = dict[str, Any]


class LocalImages:
    def __init__(self, context: ImageContext, sizes: Sizes) -> None:
        self._context = context
        self._sizes = sizes
        self._manifests = Manifests(context, sizes)

    # list

    async def summaries(
        self,
        filters: Filters,
        *,
        show_all: bool = False,
        shared_size: bool = False,
        manifests: bool = False,
        identity: bool = False,
        count: bool = True,
    ) -> list[Json]:
        """Return one summary per target, newest first. ``identity``: show it in the manifests.

        :raises WharfError: INVALID_ARGUMENT for a filter, NOT_FOUND for an image that a filter names.
        """
        filters.validate(LIST_FILTERS)
        test = await selector(self._context.resolver, filters, several=True)
        records = await self._context.names.all()
        hidden = set() if show_all else {r.labels[PARENT_LABEL] for r in records if r.labels.get(PARENT_LABEL)}
        by_digest: dict[str, list[ImageRecord]] = {}
        for record in sorted(records, key=lambda r: r.name):
            if is_dangling(record) and record.target.digest in hidden:
                continue
            if await test(record):
                by_digest.setdefault(record.target.digest, []).append(record)
        found: list[tuple[Json, Descriptor, list[Image]]] = []
        for group in by_digest.values():
            images, others = await self._below(group[0].target)
            summary = await self._summary(group, images, others, count=count)
            target = group[0].target
            if manifests:
                shown = await read_identity(self._context.engine, target.digest) if identity else None
                summary["Manifests"] = await self._manifests.describe(target, identity=shown)
            found.append((summary, target, images))
        if shared_size:
            parts = [await self._parts(target, images) for _, target, images in found]
            users = Counter(part for each in parts for part, _ in each)
            for (summary, _, _), each in zip(found, parts, strict=True):
                summary["SharedSize"] = sum(size for part, size in each if users[part] > 1)
        return [summary for summary, _, _ in sorted(found, key=lambda row: -row[0]["Created"])]

    async def _parts(self, target: Descriptor, images: list[Image]) -> list[tuple[tuple[str, str], int]]:
        """Return a target's parts with their sizes: its blobs by digest, its unpacked layers by chain id.

        A layer occurs once for each unpacked platform that has it, as it is counted in the target's size.
        """
        blobs = await self._sizes.below(target)
        unpacked = [image for image in images if await self._sizes.unpacked(image)]
        layers = [(("layer", chain), await self._sizes.snapshot(chain) or 0) for chain in distinct_chains(unpacked)]
        return [(("blob", digest), size) for digest, size in blobs.items()] + layers

    async def _below(self, target: Descriptor) -> tuple[list[Image], list[Descriptor]]:
        """Return the local images below a target, and the manifests that are no image or not local."""
        images: list[Image] = []
        others: list[Descriptor] = []
        async for desc in self._context.resolver.manifests(target):
            image = await self._context.resolver.image(target, desc)
            if image is not None:
                images.append(image)
            else:
                others.append(desc)
        return images, others

    async def _summary(
        self, group: list[ImageRecord], images: list[Image], others: list[Descriptor], *, count: bool
    ) -> Json:
        record = group[0]
        best = await self._context.resolver.resolve_record(record) if images else None
        tags, digests = _names(group)
        total = sum([await self._sizes.get(image) for image in images])
        total += sum([sum((await self._sizes.below(desc)).values()) for desc in others])
        created = parse_ns(best.config.get("created")) if best is not None else None
        return {
            "Containers": self._users(record.target, [*(i.manifest_descriptor for i in images), *others])
            if count
            else -1,
            "Created": created // 1_000_000_000 if created is not None else 0,
            "Id": record.target.digest,
            "Labels": dict(best.labels) if best is not None else {},
            "ParentId": record.labels.get(PARENT_LABEL, ""),
            "Descriptor": oci.to_json(record.target),
            "RepoDigests": digests,
            "RepoTags": tags,
            "SharedSize": -1,
            "Size": total,
        }

    async def count(self) -> int:
        """Return the number of images in a list of all images."""
        return len({record.target.digest for record in await self._context.names.all()})

    async def chains(self) -> set[str]:
        """Return the chain ids of all layers of all images."""
        records = {record.target.digest: record for record in await self._context.names.all()}.values()
        return {
            c
            for record in records
            async for i in self._context.resolver.platforms(record)
            for c in distinct_chains([i])
        }

    async def layers_size(self) -> int:
        """Return the bytes of all images, each blob and layer counted once, including running downloads."""
        blobs: dict[str, int] = {}
        chains: set[str] = set()
        for record in {record.target.digest: record for record in await self._context.names.all()}.values():
            blobs |= await self._sizes.below(record.target)
            async for image in self._context.resolver.platforms(record):
                chains.update(distinct_chains([image]))
        # The init layers, which the containers of an image share.
        tops = {f"{chain}-init" for chain in chains}
        chains |= {info.name async for info in self._context.engine.snapshots.walk(['name~="-init$"'])} & tops
        layers = sum([await self._sizes.snapshot(chain) or 0 for chain in chains])
        return sum(blobs.values()) + layers + await self._sizes.arriving()

    def _users(self, target: Descriptor, manifests: list[Descriptor]) -> int:
        """Return the number of containers that use one of the manifests, by whatever name or index."""
        digests = {desc.digest for desc in manifests}
        return sum(
            1
            for user in self._context.users()
            if (user.image_manifest.get("digest") in digests if user.image_manifest else user.image_id == target.digest)
        )

    # inspect

    async def inspect(
        self, text: str, *, platform: str | None = None, manifests: bool = False, identity: bool = False
    ) -> Json:
        """Return all fields that any API version has; ``Manifests`` and ``Identity`` only if wanted.

        :raises WharfError: NOT_FOUND, INVALID_ARGUMENT.
        """
        if platform and manifests:
            raise invalid("conflicting options: manifests and platform options cannot both be set")
        resolver = self._context.resolver
        record = await resolver.record(text)
        target = record.target
        try:
            image = await resolver.resolve(text, platform=platform)
        except WharfError as error:
            if platform or error.kind is not Kind.NOT_FOUND:
                raise
            image = None  # nothing but the index is local
        group = await self._context.names.find_by_digest(target.digest)
        tags, digests = _names(group)
        updated = max((r.updated_at_ns for r in group), default=0)
        shown = target
        size = sum((await self._sizes.below(target)).values())
        if image is not None and oci.is_index(target.media_type):
            size = await self._sizes.content(image) + target.size
            shown = image.manifest_descriptor if platform else target
        document: Json = {
            "Id": shown.digest,
            "RepoTags": tags,
            "RepoDigests": digests,
            "Parent": record.labels.get(PARENT_LABEL, ""),
            **_from_config(image),
            "Size": size,
            "GraphDriver": {"Data": None, "Name": self._context.engine.snapshots.snapshotter},
            "Metadata": {"LastTagTime": _time(updated)},
            "Descriptor": oci.to_json(shown),
        }
        if manifests:
            document["Manifests"] = await self._manifests.describe(target)
        if identity and (known := await read_identity(self._context.engine, target.digest)) is not None:
            document["Identity"] = known
        return document

    # history

    async def history(self, text: str, *, platform: str | None = None) -> list[Json]:
        """Return the history, newest first. Steps of local parent images have their ids."""
        resolver = self._context.resolver
        record = await resolver.record(text)
        requested = oci.parse_platform(platform) if platform else None
        image = await resolver.resolve_record(record, requested, text=text, exact=False)
        sizes = [await self._sizes.snapshot(chain) or 0 for chain in oci.chain_ids(image.diff_ids)]
        rows: list[Json] = []
        for step in image.config.get("history") or ():
            created = parse_ns(step.get("created"))
            size = 0
            if not step.get("empty_layer") and sizes:
                size = sizes.pop(0)
            row = {
                "Comment": step.get("comment") or "",
                "Created": created // 1_000_000_000 if created is not None else 0,
                "CreatedBy": step.get("created_by") or "",
                "Id": "<missing>",
                "Size": size,
                "Tags": None,
            }
            rows.append(row)
        rows.reverse()
        current: ImageRecord | None = record
        for row in rows:
            if current is None:
                break
            row["Id"] = current.target.digest
            tags, _ = _names(await self._context.names.find_by_digest(current.target.digest))
            row["Tags"] = tags or None
            parent = current.labels.get(PARENT_LABEL, "")
            parents = await self._context.names.find_by_digest(parent) if parent else []
            current = parents[0] if parents else None
        return rows

    # tag

    async def tag(self, text: str, reference: Reference) -> None:
        """:raises WharfError: NOT_FOUND; INVALID_ARGUMENT for a name that could be taken for a digest."""
        if reference.familiar_name == "sha256":
            raise invalid("refusing to create an ambiguous tag using digest algorithm as name")
        record = await self._context.resolver.record(text)
        named = replace(record, name=str(reference.tagged()), created_at_ns=0, updated_at_ns=0)
        await self._context.names.assign(named)
        await self._context.publish_with_labels("tag", record.target.digest, reference.tagged().familiar)

    async def children(self, digest: str) -> list[str]:
        """Return the ids of child images: by the parent label of build steps, or because their first layers are
        equal."""
        records = await self._context.names.all()
        try:
            of = await self._context.names.find_by_digest(digest)
            base = (await self._context.resolver.resolve_record(of[0])).diff_ids if of else ()
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            base = ()
        found: dict[str, None] = {}
        for record in records:
            if record.target.digest == digest:
                continue
            if record.labels.get(PARENT_LABEL) == digest:
                found[record.target.digest] = None
            elif base:
                async for image in self._context.resolver.platforms(record):
                    if len(image.diff_ids) > len(base) and image.diff_ids[: len(base)] == base:
                        found[record.target.digest] = None
                await asyncio.sleep(0)
        return list(found)


def _names(group: list[ImageRecord]) -> tuple[list[str], list[str]]:
    """Return RepoTags and RepoDigests of a target's names."""
    tags: list[str] = []
    digests: dict[str, None] = {}
    for record in group:
        if is_dangling(record):
            continue
        name = parse_canonical(record.name)
        if name is None:
            tags.append(record.name)  # another client's name: shown unchanged
            continue
        if name.tag and not name.digest:
            tags.append(f"{name.familiar_name}:{name.tag}")
        digests[f"{name.familiar_name}@{record.target.digest}"] = None
    return tags, list(digests)


def _from_config(image: Image | None) -> Json:
    """Return the fields of inspect that the image's config has; empty ones if no platform of the image is local."""
    config = image.config if image is not None else {}
    history = config.get("history") or []
    comment = config.get("comment") or (history[-1].get("comment") if history else "") or ""
    document: Json = {
        "Comment": comment,
        "DockerVersion": config.get("docker_version") or "",
        "Author": config.get("author") or "",
        "Config": _config(image.container_config if image is not None else {}),
        "Architecture": config.get("architecture") or "",
        "Os": config.get("os") or "",
        "RootFS": {"Type": "layers", **({"Layers": list(image.diff_ids)} if image is not None else {})},
    }
    if isinstance(config.get("created"), str):
        document["Created"] = config["created"]
    if config.get("variant"):
        document["Variant"] = config["variant"]
    if config.get("os.version"):
        document["OsVersion"] = config["os.version"]
    return document


def _config(config: Mapping[str, Any]) -> Json:
    """Return ``Config`` of the image, with the fields that dockerd shows even if empty."""
    shown = {key: value for key, value in config.items() if value is not None}
    for key in ("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"):
        shown.setdefault(key, None)
    for key in ("User", "WorkingDir"):
        shown.setdefault(key, "")
    return shown


def _time(ns: int) -> str:
    return format_ns(ns) if ns else "0001-01-01T00:00:00Z"
