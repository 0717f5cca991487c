"""``docker image inspect``, ``history``, ``tag``: reads and names single images in the store."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.api.services.content import Content
from engine.api.types import ImageRecord
from engine.common.errors import Kind, WharfError, invalid
from server.images.context import ImageContext
from server.images.identity import read as read_identity
from server.images.manifests import describe, used_manifests
from server.images.model import PARENT_LABEL, Image
from server.images.names import repo_names
from server.images.sizes import Sizes
from server.images.timestamps import format_ns, parse_ns
from server.registry import oci
from server.registry.reference import Reference

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SharedImage:
    """An image as other machines read it. ``digest``: of its target. ``blobs``: the sizes of all local documents,
    configs and layers below it, in bytes by digest."""

    digest: str
    blobs: Mapping[str, int]
    _content: Content

    def read(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """The bytes of one of its blobs, from an offset on."""
        return self._content.read(digest, offset=offset)


class LocalImages:
    def __init__(self, context: ImageContext, sizes: Sizes) -> None:
        self._context = context
        self._sizes = sizes

    async def shared(self, text: str) -> SharedImage:
        """:raises WharfError: NOT_FOUND."""
        record = await self._context.resolver.record(text)
        tree = await self._context.trees.get(record.target)
        return SharedImage(record.target.digest, tree.blobs, self._context.engine.content)

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
        tags, digests = repo_names(group)
        updated = max((r.updated_at_ns for r in group), default=0)
        shown = target
        if image is not None and oci.is_index(target.media_type):
            size = await self._sizes.content(image) + target.size
            shown = image.manifest_descriptor if platform else target
        else:
            size = sum((await self._sizes.below(target)).values())
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
            tree = await self._context.trees.get(target)
            users = used_manifests(self._context.users())
            document["Manifests"] = describe(tree, await self._sizes.layers(tree.chains), users)
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
        sizes = [await self._sizes.layer(chain) or 0 for chain in oci.chain_ids(image.diff_ids)]
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
            tags, _ = repo_names(await self._context.names.find_by_digest(current.target.digest))
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
