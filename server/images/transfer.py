"""``docker pull``, ``docker push``, ``docker login`` and other requests to registries."""

import copy
import re
from dataclasses import dataclass
from typing import Any

from engine.api.types import Descriptor, ImageRecord
from engine.common import jsontext, limits
from engine.common.errors import Kind, Reason, WharfError, conflict, invalid, not_found
from engine.common.system.task_groups import run_all
from engine.common.timeline import Timeline
from server.config.model import Config
from server.images.context import ImageContext
from server.images.model import is_tag, no_such_image
from server.registry import documents, oci
from server.registry.auth import ANONYMOUS, Credentials
from server.registry.client import Repository
from server.registry.download import Downloads
from server.registry.hosts import is_insecure
from server.registry.progress import Report
from server.registry.proof import Proof
from server.registry.pull import Puller, dockerd_error
from server.registry.push import Pusher
from server.registry.reference import DEFAULT_DOMAIN, Reference, parse
from server.registry.responses import RegistryError, limited
from server.registry.source import Source


@dataclass(slots=True)
class _Settings:
    """The configuration, which a reload replaces for the transfers of all owners."""

    config: Config


class Transfer:
    """Pulls, pushes and other requests to registries, by the daemon's configuration."""

    def __init__(self, context: ImageContext, config: Config) -> None:
        self._context = context
        self._settings = _Settings(config)
        self.downloads = Downloads(
            context.engine, limit=config.max_concurrent_downloads, attempts=config.max_download_attempts
        )

    def of(self, context: ImageContext) -> "Transfer":
        """The same transfers for another owner's names: downloads, limits and configuration are shared."""
        view = copy.copy(self)
        view._context = context
        return view

    @property
    def config(self) -> Config:
        return self._settings.config

    def reload(self, config: Config) -> None:
        """Apply the settings that dockerd reloads; running transfers keep the old ones."""
        self._settings.config = config
        self.downloads.set_limits(limit=config.max_concurrent_downloads, attempts=config.max_download_attempts)

    # pull

    async def pull(
        self, reference: Reference, report: Report, *, credentials: Credentials = ANONYMOUS, platform: str | None = None
    ) -> None:
        """Pull one tag or digest; every tag if the reference has neither.

        :raises WharfError: NOT_FOUND in dockerd's words for a missing or inaccessible repository.
        """
        async with Repository(self.config, reference, credentials) as repository:
            if not reference.name_only:
                await self._pull_one(repository, reference, report, platform)
                return
            try:
                tags = await repository.tags()
            except RegistryError as error:
                raise dockerd_error(error, reference) from None
            for tag in tags:
                await self._pull_one(repository, reference.with_tag(tag), report, platform)

    async def pull_from(self, source: Source, reference: Reference) -> None:
        """Pull one tag or digest from elsewhere than its registry, for administrators.

        :raises WharfError: the source's.
        """
        report = Report()
        async for _ in report.run(self._pull_one(source, reference, report, None)):
            continue

    async def _pull_one(self, repository: Source, reference: Reference, report: Report, platform: str | None) -> None:
        context = self._context
        requested = oci.parse_platform(platform) if platform else context.resolver.host
        name = str(reference)
        async with context.engine.leases.acquire():
            own = await context.own_digests()
            proof = None
            if own is not None:
                assert isinstance(repository, Repository)  # only administrators pull from elsewhere
                proof = Proof(context.engine, repository, own)
            puller = Puller(
                context.engine,
                self.downloads,
                repository,
                report,
                platform=requested,
                exact=platform is not None,
                proof=proof,
            )
            with Timeline("pull", reference.familiar, context.owner):
                pulled = await puller.run(reference)
            context.resolver.forget(pulled.target.digest)
            changed = await context.names.assign(ImageRecord(name, pulled.target))
        await report.status(f"Digest: {pulled.target.digest}")
        word = "Downloaded newer image" if changed else "Image is up to date"
        await report.status(f"Status: {word} for {reference.familiar}")
        await context.publish_with_labels("pull", reference.familiar, reference.familiar_name)

    # push

    async def push(
        self, reference: Reference, report: Report, *, credentials: Credentials = ANONYMOUS, platform: str | None = None
    ) -> None:
        """Push one tag; every tag of the repository if the reference has none."""
        await report.status(f"The push refers to repository [{reference.name}]")
        if not reference.name_only:
            await self._push_one(reference, report, credentials, platform)
            return
        for full in await self._tags(reference):
            await self._push_one(parse(full), report, credentials, platform)

    async def _tags(self, reference: Reference) -> list[str]:
        """Return the local tags of a repository. NOT_FOUND if there are none."""
        names = sorted(record.name for record in await self._context.names.all() if is_tag(record, reference))
        if not names:
            raise not_found(f"An image does not exist locally with the tag: {reference.familiar_name}")
        return names

    async def _push_one(
        self, reference: Reference, report: Report, credentials: Credentials, platform: str | None
    ) -> None:
        context = self._context
        record = await context.names.get(str(reference))
        if record is None:
            if not reference.tag:
                raise no_such_image(reference)
            await self._tags(reference)
            raise not_found(f"tag does not exist: {reference.familiar}")
        async with context.engine.leases.acquire():
            target = await self._pushable(record, platform, report)
            await self.push_target(reference, target, report, credentials)
        if reference.tag:
            await report.status(f"{reference.tag}: digest: {target.digest} size: {target.size}")
        await report.aux({"Tag": reference.tag, "Digest": target.digest, "Size": target.size})
        await context.publish_with_labels("push", reference.familiar, reference.familiar_name)

    async def push_target(
        self, reference: Reference, target: Descriptor, report: Report, credentials: Credentials
    ) -> None:
        """Push a target under a tag, or by digest only. The caller holds its content by a lease."""
        engine = self._context.engine
        origins = await self._origins(target)

        async def fetch(layer: Descriptor) -> None:
            origin = origins[layer.digest]
            await self._fetch(layer, origin, credentials if origin.domain == reference.domain else ANONYMOUS)

        async with Repository(self.config, reference, credentials, push=True) as repository:
            pusher = Pusher(
                engine, repository, report, limit=self.config.max_concurrent_uploads, origins=origins, fetch=fetch
            )
            await pusher.run(target, reference.tag or target.digest)

    async def complete(self, target: Descriptor) -> None:
        """Download the layers below a target that a remote snapshotter has provided. Under a lease.

        :raises WharfError: a registry's error, with the layer's digest.
        """
        if origins := await self._origins(target):
            layers = await self._layers(target)
            await run_all(self._fetch(layers[digest], origin) for digest, origin in origins.items())

    async def _origins(self, target: Descriptor) -> dict[str, Reference]:
        """The images that had the layers below a target which the store lacks, by the layers' digests."""
        engine = self._context.engine
        if not engine.snapshots.remote:
            return {}
        from server.registry import lazy

        return await lazy.origins(engine, target)

    async def _layers(self, target: Descriptor) -> dict[str, Descriptor]:
        """The layers below a target, by digest."""
        tree = await self._context.trees.get(target)
        found: dict[str, Descriptor] = {}
        for member in tree.members:
            if member.facts is not None:
                document = await documents.read(self._context.engine, member.descriptor)
                found |= {layer.digest: layer for layer in oci.parse_manifest(document).layers}
        return found

    async def _fetch(self, layer: Descriptor, origin: Reference, credentials: Credentials = ANONYMOUS) -> None:
        async with Repository(self.config, origin, credentials) as repository:
            try:
                await self.downloads.fetch(repository, layer)
            except WharfError as error:
                raise error.worded(
                    f"layer {layer.digest} of {origin.familiar} is not on this host: {error.message}"
                ) from None

    async def _pushable(self, record: ImageRecord, platform: str | None, report: Report) -> Descriptor:
        """Return what to push: an index if all its content is local, else the single local platform or the one of this
        host.

        :raises WharfError: NOT_FOUND: no platform is local; CONFLICT: several are, but none runs on this host.
        """
        target = record.target
        if not oci.is_index(target.media_type):
            if platform:
                await self._context.resolver.resolve_record(record, oci.parse_platform(platform), text=record.name)
            return target
        resolver = self._context.resolver
        if platform:
            image = await resolver.resolve_record(record, oci.parse_platform(platform), text=record.name)
            return image.manifest_descriptor
        missing = [d async for d in resolver.manifests(target) if not await self._whole(d)]
        if not missing:
            return target
        absent = {desc.digest for desc in missing}
        images = [i async for i in resolver.platforms(record) if i.manifest_descriptor.digest not in absent]
        if len(images) > 1:
            ranked = [(place, i) for i in images if (place := oci.rank(resolver.host, i.platform)) is not None]
            if not ranked:
                raise conflict("multiple matching manifests found but no specific platform requested")
            images = [min(ranked, key=lambda pair: pair[0])[1]]
        if not images:
            await resolver.resolve_record(record)  # raises the sentence, unless only a part of a platform is local
            raise not_found(f"content digest {missing[0].digest}: not found")
        chosen = images[0].manifest_descriptor
        plain = Descriptor(chosen.media_type, chosen.digest, chosen.size)
        await report.aux(
            {
                "manifestPushedInsteadOfIndex": True,
                "originalIndex": oci.to_json(target),
                "selectedManifest": oci.to_json(chosen),
            }
        )
        return plain

    async def _whole(self, desc: Descriptor) -> bool:
        engine = self._context.engine
        if not await documents.has(engine, desc.digest):
            return False
        children = oci.children(await documents.read(engine, desc), desc.media_type)
        absent = {
            c.digest for c in children if not (oci.is_foreign(c.media_type) or await documents.has(engine, c.digest))
        }
        return not absent or absent <= (await self._origins(desc)).keys()

    # other requests

    async def login(self, credentials: Credentials) -> str:
        """Check credentials; return the identity token, if the registry issues one.

        :raises WharfError: UNAUTHENTICATED for wrong credentials.
        """
        domain = _server(credentials.server)
        async with Repository(self.config, Reference(domain, ""), credentials, mirrors=False) as repository:
            return await repository.ping(offline=True)

    async def distribution(self, reference: Reference, credentials: Credentials = ANONYMOUS) -> dict[str, Any]:
        """Return the descriptor and the platforms of a name in a registry.

        :raises WharfError: the registry's errors; TOO_MANY_REQUESTS only here, because dockerd answers 500 to a pull
            and a login that the registry limits.
        """
        async with Repository(self.config, reference, credentials) as repository:
            try:
                data, media_type = await repository.manifest(reference.selector)
            except RegistryError as error:
                if error.status != 429:
                    raise
                raise WharfError(error.kind, error.message, reason=Reason.TOO_MANY_REQUESTS) from None
            document = oci.load(data, reference.selector)
            desc = {"mediaType": media_type, "digest": oci.digest_of(data), "size": len(data)}
            platforms: list[dict[str, Any]] = []
            if oci.is_index(media_type):
                platforms = [dict(item["platform"]) for item in document.get("manifests", ()) if item.get("platform")]
            elif oci.is_manifest(media_type):
                config = oci.parse_manifest(document).config
                if oci.is_config(config.media_type) and config.size <= limits.DOCUMENT_BYTES:
                    platforms = [await self._config_platform(repository, config)]
        return {"Descriptor": desc, "Platforms": platforms}

    async def _config_platform(self, repository: Repository, config: Descriptor) -> dict[str, Any]:
        async with repository.blob(config.digest) as (_, pieces):
            parts: list[bytes] = []
            size = 0
            async for piece in pieces:
                size += len(piece)
                if size > config.size:
                    raise invalid(f"{config.digest}: more than the {config.size} bytes that the manifest says")
                parts.append(piece)
        data = b"".join(parts)
        if oci.digest_of(data) != config.digest and config.digest.startswith("sha256:"):
            raise invalid(f"config verification failed for digest {config.digest}")
        document = oci.load(data, config.digest)
        keys = ("architecture", "os", "os.version", "os.features", "variant")
        return {key: document[key] for key in keys if document.get(key)}

    async def search(self, term: str, limit: int, credentials: Credentials = ANONYMOUS) -> list[dict[str, Any]]:
        """Search the old index. Current registries offer no search; their error is passed on.

        :raises WharfError: INTERNAL, NOT_FOUND.
        """
        head, slash, rest = term.partition("/")
        is_host = bool(slash) and ("." in head or ":" in head or head == "localhost")
        domain, text = (head, rest) if is_host else ("index.docker.io", term)
        host = Reference(domain if is_host else "index.docker.io", "")
        async with Repository(self.config, host, credentials, mirrors=False) as repository:
            schemes = ("https", "http") if is_insecure(self.config, domain) else ("https",)
            last: WharfError | None = None
            for scheme in schemes:
                try:
                    query = {"q": text, "n": str(limit or 25)}
                    async with repository.request("GET", f"{scheme}://{domain}/v1/search", query=query) as response:
                        document = oci.load(await limited(response, limits.DOCUMENT_BYTES), "search")
                        return [item for item in document.get("results") or () if isinstance(item, dict)]
                except RegistryError as error:
                    if error.status:
                        raise WharfError(Kind.INTERNAL, f"Unexpected status code {error.status}") from None
                    last = last or error
            assert last is not None
            raise last


# A host or an address with a port, as Go's net/url accepts it.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]*[A-Za-z0-9_-]|\[[0-9A-Fa-f:.%]+\])(?::[0-9]{1,5})?")


def _server(address: str) -> str:
    """Return the registry of a login: a host, or the URL of the old index."""
    bare = address.partition("://")[2] or address
    bare = bare.split("/", 1)[0]
    if bare and _HOST.fullmatch(bare) is None:
        # The name is used in a URL, a header and the path of the certificates.
        raise invalid(f"unable to parse server address: parse {jsontext.dumps(bare).decode()}: invalid host name")
    return DEFAULT_DOMAIN if bare in ("", "index.docker.io", "registry-1.docker.io") else bare
