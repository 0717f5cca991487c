"""Imported and exported caches: in an image (``inline``), in a registry, in a directory of the client (``local``)."""

import base64
import json
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from engine.api.client import Engine
from engine.api.labels import UNCOMPRESSED
from engine.api.services.content import Content
from engine.api.types import Descriptor
from engine.common import jsontext
from engine.common.errors import WharfError, invalid, not_implemented
from server.builder.cache import cache_config
from server.builder.cache.cache_config import CacheHit, Document
from server.builder.jobs.job import Job, SolvedTarget
from server.builder.jobs.progress import Vertex
from server.builder.neighbours import Images
from server.builder.plan.imageconfig import parse_utc, utc
from server.builder.plan.llbkey import Key
from server.builder.plan.steps import Layer, Result, Step
from server.builder.session.pb import control_pb2 as pb
from server.builder.session.session import Session
from server.builder.sources.layouts import ClientStore, copy_blobs
from server.registry import documents, oci
from server.registry.reference import parse

log = logging.getLogger(__name__)

_CREATED = "buildkit/createdat"


class Store(Protocol):
    """The source of a cache: a registry's repository, or a client's directory."""

    async def manifest(self, selector: str) -> tuple[bytes, str]:
        """Return (data, media type) of a manifest, by its digest."""

    def blob(self, digest: str) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        """Return (0, pieces) of a blob."""


@dataclass(frozen=True, slots=True)
class ImportedCache:
    """One imported cache of a build (server.builder.cache.remote.Remote)."""

    document: Document
    store: Store

    @property
    def has_llb(self) -> bool:
        return bool(self.document.records)

    def llb(self, key: Key) -> Sequence[CacheHit]:
        return self.document.llb(key)

    def find_by_definition(self, key: str) -> CacheHit | None:
        return self.document.own.get(key)

    def find(self, key: str, step: Step, parent: Result, files: str) -> CacheHit | None:
        return self.document.own.get(key)

    async def fetch(self, descriptor: Descriptor) -> AsyncIterator[bytes]:
        async with self.store.blob(descriptor.digest) as (_, pieces):
            async for piece in pieces:
                yield piece


@dataclass(frozen=True, slots=True)
class _Folder:
    """A client's directory as a store."""

    content: Content

    async def manifest(self, selector: str) -> tuple[bytes, str]:
        data = await self.content.read_all(selector)
        return data, oci.media_type_of(oci.load(data, selector))

    @asynccontextmanager
    async def blob(self, digest: str) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        yield 0, self.content.read(digest)


def refuse_exports(exports: Iterable[pb.CacheOptionsEntry]) -> None:
    """Refuse unsupported options of a cache export. Raises NOT_IMPLEMENTED with the option's name."""
    for export in exports:
        if export.Type not in ("inline", "registry", "local"):
            raise not_implemented(f"cache export of type {export.Type} is not supported")
        for name, only in (("image-manifest", "true"), ("oci-mediatypes", "true"), ("compression", "gzip")):
            if export.Attrs.get(name, only) != only:
                raise not_implemented(f"cache export with {name}={export.Attrs[name]} is not supported: only {only} is")
        if export.Attrs.get("force-compression", "false") != "false":
            raise not_implemented("cache export with force-compression is not supported")


class Caches:
    """Imports and exports caches. ``images`` opens repositories and pushes."""

    def __init__(self, engine: Engine, images: Images) -> None:
        self._engine, self._images = engine, images

    # import

    async def import_caches(self, job: Job, session: Session, options: Mapping[str, str]) -> list[ImportedCache]:
        """Open the caches that the client names. A failure does not fail the build; the cache's vertex shows the
        error."""
        found: list[ImportedCache] = []
        for kind, attrs in _requested_imports(job, options):
            where = attrs.get("ref") or attrs.get("src") or kind
            name = f"importing cache manifest from {where}"
            vertex = Vertex(job.send, name, f"{job.ref} {name}")
            vertex.start()
            try:
                found.append(await self._open(job, session, kind, attrs))
            except WharfError as error:
                log.info("build=%s %s: %s", job.ref, name, error.message)
                vertex.finish(error.message)
            else:
                vertex.finish()
        return found

    async def _open(self, job: Job, session: Session, kind: str, attrs: Mapping[str, str]) -> ImportedCache:
        if kind == "registry":
            repository = await self._images.repository(attrs.get("ref", ""), session.credentials)
            await job.lifetime.enter(repository)
            data, media_type = await repository.manifest(parse(attrs["ref"]).tagged().selector)
            return ImportedCache(await self._read_cache(repository, data, media_type), repository)
        if kind == "local":
            if not attrs.get("digest"):
                raise invalid(f"the cache folder {attrs.get('src', '')} has no index.json")
            folder = _Folder(Content(ClientStore(session, f"local:{attrs['src']}")))
            data, media_type = await folder.manifest(attrs["digest"])
            return ImportedCache(await self._read_cache(folder, data, media_type), folder)
        raise not_implemented(f"cache import of type {kind} is not supported")

    async def _read_cache(self, store: Store, data: bytes, media_type: str) -> Document:
        """Return the cache in a manifest's configuration or in an image's; of an index, the part for this host.
        BuildKit may also write an index of layers that contains the configuration."""
        if oci.is_index(media_type):
            manifests = oci.parse_index(oci.load(data, "cache"))
            for desc in manifests:
                if desc.media_type == cache_config.MEDIA_TYPE:
                    return cache_config.read(await _blob(store, desc.digest), _layers(manifests))
            for desc in oci.best([item for item in manifests if item.platform != _UNKNOWN], oci.host_platform())[:1]:
                child, _ = await store.manifest(desc.digest)
                return await self._read_cache(store, child, oci.media_type_of(oci.load(child, desc.digest)))
            return Document()
        manifest = oci.parse_manifest(oci.load(data, "cache"))
        text = await _blob(store, manifest.config.digest)
        if manifest.config.media_type == cache_config.MEDIA_TYPE:
            return cache_config.read(text, _layers(manifest.layers))
        config = oci.load(text, "config")
        inline, diff_ids = config.get(cache_config.INLINE), oci.diff_ids(config)
        if not isinstance(inline, str) or len(diff_ids) != len(manifest.layers):
            return Document()
        layers = [Layer(layer, diff_id, 0) for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)]
        return cache_config.read(base64.b64decode(inline), layers)

    # export

    async def export_caches(self, job: Job, session: Session | None, made: Sequence[SolvedTarget]) -> dict[str, str]:
        """Write the caches that the client requests, except inline ones; return the response fields for the client."""
        response: dict[str, str] = {}
        for entry in job.request.Cache.Exports:
            if entry.Type == "inline":
                continue
            if session is None:
                raise invalid(f"the cache export {entry.Type} needs a session")
            try:
                response |= await self._export(job, session, made, entry.Type, entry.Attrs)
            except WharfError as error:
                if entry.Attrs.get("ignore-error") != "true":
                    raise
                log.warning("build=%s exporting cache: %s", job.ref, error.message)
        return response

    async def _export(
        self, job: Job, session: Session, made: Sequence[SolvedTarget], kind: str, attrs: Mapping[str, str]
    ) -> dict[str, str]:
        vertex = Vertex(job.send, "exporting cache", f"{job.ref} exporting cache {kind}")
        with vertex.running():
            data = cache_config.write(_chains(made, everything=attrs.get("mode") == "max"))
            with vertex.status("preparing build cache for export"):
                target, blobs = await self._manifest(data)
            if kind == "registry":
                ref = attrs.get("ref", "")
                with vertex.status(f"writing cache to {ref}"):
                    await self._images.push_built(str(parse(ref).tagged()), target, session.credentials)
                return {}
            folder = attrs.get("dest", "")
            with vertex.status(f"writing cache to {folder}"):
                target_store = Content(ClientStore(session, f"local:{folder}"))
                await copy_blobs(self._engine.content, target_store, [*blobs, target])
            return {"cache.manifest": json.dumps(oci.to_json(target))}

    async def _manifest(self, data: bytes) -> tuple[Descriptor, list[Descriptor]]:
        config = await documents.write(self._engine, data, cache_config.MEDIA_TYPE)
        layers = {layer.descriptor.digest: layer for layer in cache_config.read_layers(data)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": oci.OCI_MANIFEST,
            "config": oci.to_json(config),
            "layers": [_cache_descriptor(layer) for layer in layers.values()],
        }
        text = json.dumps(manifest, separators=(",", ":")).encode()
        return await documents.write(self._engine, text, oci.OCI_MANIFEST), [
            *(layer.descriptor for layer in layers.values()),
            config,
        ]


def _cache_descriptor(layer: Layer) -> dict[str, object]:
    """Add the annotations that BuildKit expects on a cache's layers."""
    notes = {_CREATED: utc(layer.created_ns), UNCOMPRESSED: layer.diff_id}
    return {**oci.to_json(layer.descriptor), "annotations": notes}


def _layers(described: Sequence[Descriptor]) -> list[Layer]:
    """Return the descriptors that name their diff ids, as layers."""
    found = []
    for desc in described:
        if diff_id := desc.annotations.get(UNCOMPRESSED, ""):
            created = parse_utc(desc.annotations.get(_CREATED, ""))
            found.append(Layer(Descriptor(desc.media_type, desc.digest, desc.size), diff_id, created))
    return found


async def _blob(store: Store, digest: str) -> bytes:
    """Read a small document of a store."""
    async with store.blob(digest) as (_, pieces):
        return b"".join([piece async for piece in pieces])


_UNKNOWN = oci.platform_of({"os": "unknown", "architecture": "unknown"})


def _chains(made: Sequence[SolvedTarget], *, everything: bool) -> list[tuple[Result, ...]]:
    chains: list[tuple[Result, ...]] = [item.chain for item in made]
    if everything:
        chains += [chain for item in made for chain in item.others]
    return chains


def _requested_imports(job: Job, options: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Return the caches to import, without duplicates: from the front end's option, or from the older options."""
    found = [(entry.Type, dict(entry.Attrs)) for entry in job.request.Cache.Imports]
    if options.get("cache-imports"):
        try:
            document = jsontext.loads(options["cache-imports"])
            found += [(str(item["Type"]), {str(k): str(v) for k, v in item["Attrs"].items()}) for item in document]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise invalid("failed to unmarshal cache-imports") from None
    found += [("registry", {"ref": ref}) for ref in options.get("cache-from", "").split(",") if ref]
    unique = {json.dumps([kind, sorted(attrs.items())]): (kind, attrs) for kind, attrs in found}
    return list(unique.values())
