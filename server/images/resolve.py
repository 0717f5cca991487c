"""Resolves references of clients to images: names, ids, prefixes of ids, platforms."""

import copy
import re
from collections.abc import AsyncIterator
from dataclasses import replace

from engine.api.client import Engine
from engine.api.types import Descriptor, ImageRecord, Platform
from engine.common.errors import Kind, WharfError, not_found
from server.access.owners import unqualified
from server.images.model import Image, is_dangling, no_such_image, reference_of
from server.images.names import ImageNames
from server.registry import documents, oci
from server.registry.reference import DigestReference, Reference, parse_any

_TRUNCATED_ID = re.compile(r"(?:sha256:)?([a-f0-9]{4,64})")
#: The number of images with cached documents: lists of some hundreds need no call to the store.
_CACHE = 512


class Resolver:
    def __init__(self, engine: Engine, names: ImageNames) -> None:
        self._engine = engine
        self._names = names
        self.host = oci.highest_host_platform()
        self._images: dict[tuple[str, str], Image] = {}  # by target and requested platform
        self._parsed: dict[tuple[str, str], Image] = {}  # by target and manifest

    def of(self, names: ImageNames) -> "Resolver":
        """The same resolver, with the same caches, for other names."""
        view = copy.copy(self)
        view._names = names
        return view

    # records

    async def record(self, text: str) -> ImageRecord:
        """Return the record of a reference, in dockerd's order: a digest, a name, then a prefix of an id.

        :raises WharfError: NOT_FOUND "No such image: …", INVALID_ARGUMENT for an invalid reference.
        """
        if text.startswith("moby-dangling@"):
            found = await self._names.get(text)
            if found is None:
                raise no_such_image(text)
            return found
        parsed = parse_any(text)
        if isinstance(parsed, DigestReference) or parsed.digest:
            return await self._by_digest(parsed)
        found = await self._names.get(str(parsed.tagged()))
        if found is not None:
            return found
        match = _TRUNCATED_ID.fullmatch(text)
        if match is None:
            raise no_such_image(parsed)
        records = await self._names.find_by_prefix(match[1])
        if not records:
            raise no_such_image(parsed)
        if len({record.target.digest for record in records}) > 1:
            raise not_found("ambiguous reference")
        return records[0]

    async def _by_digest(self, parsed: Reference | DigestReference) -> ImageRecord:
        records = await self._names.find_by_digest(parsed.digest)
        if isinstance(parsed, DigestReference):
            if not records:
                raise no_such_image(parsed)
            return records[0]
        for record in records:
            name = reference_of(record)
            if name is not None and name.name == parsed.name:
                return record
        raise no_such_image(parsed)

    # images

    async def resolve(self, text: str, *, platform: str | None = None, manifest: str = "") -> Image:
        """See ``Images.resolve``."""
        record = await self.record(text)
        if manifest:
            async for image in self.platforms(record):
                if image.manifest_descriptor.digest == manifest:
                    return image
            raise not_found(f"image with reference {text} was found but does not provide the manifest {manifest}")
        requested = oci.parse_platform(platform) if platform else None
        return await self.resolve_record(record, requested, text=text)

    async def resolve_record(
        self, record: ImageRecord, requested: Platform | None = None, *, text: str = "", exact: bool = True
    ) -> Image:
        """Return the local image of one platform of a record; without a request, that which fits this host best.

        ``exact``: a platform in the request must match exactly; else the best of those that run on it is returned.

        :raises WharfError: NOT_FOUND if no local image matches.
        """
        key = record.target.digest, f"{oci.format_platform(requested) if requested else ''} {exact}"
        image = self._images.get(key)
        if image is None:
            image = await self._read(record, requested, text or _familiar(record), exact=exact)
            _keep(self._images, key, image)
        name = "" if is_dangling(record) else unqualified(record.name)[1]
        return image if image.name == name else replace(image, name=name)

    def forget(self, digest: str) -> None:
        """Drop cached documents of a target that lost its last name or was pulled again."""
        for cache in (self._images, self._parsed):
            for key in [key for key in cache if key[0] == digest]:
                del cache[key]

    async def _read(self, record: ImageRecord, requested: Platform | None, text: str, *, exact: bool) -> Image:
        candidates: list[tuple[int, Image]] = []
        async for image in self.platforms(record):
            if requested is not None:
                distance = oci.rank(requested, image.platform)
                if distance is None or (exact and distance):
                    continue
            else:
                distance = oci.rank(self.host, image.platform)
                distance = 1000 if distance is None else distance
            candidates.append((distance, image))
            if distance == 0:
                break
        if candidates:
            return min(candidates, key=lambda pair: pair[0])[1]
        wanted = "any platform" if requested is None else f"the specified platform ({oci.format_platform(requested)})"
        raise not_found(f"image with reference {text} was found but does not provide {wanted}")

    async def platforms(self, record: ImageRecord) -> AsyncIterator[Image]:
        """Yield the images of all platforms with local manifest and config, in the order of the index. Attestations and
        other artifacts are skipped."""
        async for desc in self.manifests(record.target):
            image = await self.image(record.target, desc)
            if image is not None:
                yield image

    async def manifests(self, target: Descriptor) -> AsyncIterator[Descriptor]:
        """Yield the manifests below a target, local or not."""
        if not oci.is_index(target.media_type):
            yield target
            return
        try:
            index = oci.parse_index(await documents.read(self._engine, target))
        except WharfError as error:
            if error.kind is Kind.NOT_FOUND:
                return
            raise
        for desc in index:
            async for found in self.manifests(desc):
                yield found

    async def image(self, target: Descriptor, desc: Descriptor) -> Image | None:
        """Return the image of a manifest; ``None`` if a document is missing or it is no image."""
        found = self._parsed.get((target.digest, desc.digest))
        if found is None:
            found = await self._parse(target, desc)
            if found is not None:
                _keep(self._parsed, (target.digest, desc.digest), found)
        return found

    async def _parse(self, target: Descriptor, desc: Descriptor) -> Image | None:
        if desc.annotations.get(oci.ATTESTATION) or not oci.is_manifest(desc.media_type):
            return None
        try:
            document = await documents.read(self._engine, desc)
            manifest = oci.parse_manifest(document, desc.digest)
            if not manifest.is_image:
                return None
            config = await documents.read(self._engine, manifest.config)
            ids = oci.diff_ids(config)
        except WharfError as error:
            if error.kind in (Kind.NOT_FOUND, Kind.INVALID_ARGUMENT):
                return None
            raise
        platform = desc.platform or oci.platform_of(config) or Platform("linux", "")
        chain = oci.chain_ids(ids)
        return Image(
            id=target.digest,
            name="",
            target=target,
            manifest_descriptor=replace(desc, platform=platform),
            manifest=document,
            config=config,
            config_digest=manifest.config.digest,
            diff_ids=ids,
            chain_id=chain[-1] if chain else "",
            platform=platform,
        )


def _familiar(record: ImageRecord) -> str:
    reference = reference_of(record)
    return reference.familiar if reference is not None else record.name


def _keep(cache: dict[tuple[str, str], Image], key: tuple[str, str], image: Image) -> None:
    while len(cache) >= _CACHE:
        cache.pop(next(iter(cache)))
    cache[key] = image
