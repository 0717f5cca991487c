"""Base images of a client's build: local ones, or pulled with the credentials of its session."""

from dataclasses import dataclass, field

from engine.api.client import Engine
from engine.common import jsontext
from engine.common.errors import Kind, WharfError, invalid
from server.builder.classic.build import host_platform
from server.builder.jobs.job import Job
from server.builder.jobs.progress import Vertex
from server.builder.neighbours import Images
from server.builder.plan.model import INPUT, LAYOUT
from server.builder.plan.plan import BaseImage
from server.builder.plan.steps import Base, Layer
from server.builder.sources.layouts import layout
from server.builder.sources.sources import Sources
from server.images.model import Image
from server.images.rootfs import unpack_image
from server.messages import Progress
from server.registry import oci
from server.registry.reference import parse as parse_reference


@dataclass(slots=True)
class Bases:
    """Base images of one build (server.builder.plan.plan.Bases): local, or pulled with its client's credentials."""

    images: Images
    engine: Engine
    job: Job
    sources: Sources
    pull: bool
    platform: str
    found: dict[str, Image] = field(default_factory=dict)

    def named_context(self, name: str) -> str | None:
        names = (name.lower(), oci_name(name))
        # A named context may apply to one platform only.
        for known in (*(f"{item}::{self.platform}" for item in names), *names):
            if known in self.sources.named:
                return self.sources.named[known]
        return None

    async def image(self, ref: str, *, platform: str, step: str) -> BaseImage:
        if ref.startswith(INPUT):
            return self._input(ref.removeprefix(INPUT))
        key = f"{ref} {platform}"
        if key not in self.found:
            name = f"[internal] load metadata for {oci_name(ref)}"
            with Vertex(self.job.send, name, f"{self.job.ref} {name}").running():
                if ref.startswith(LAYOUT):
                    found, digest = layout(self.engine, self.images, self.sources.session, ref)
                    image = await found.image(digest, platform)
                else:
                    image = await self._find(ref, platform)
            self.found[key] = image
        image = self.found[key]
        layers = tuple(
            Layer(oci.descriptor(document, "layer"), diff_id, 0)
            for document, diff_id in zip(image.layers, image.diff_ids, strict=True)
        )
        shown = f"{oci_name(ref)}@{image.target.digest}" if "@" not in ref else ref
        return BaseImage(Base(shown, image.id, image.chain_id, layers), image.config)

    async def unpack(self, base: Base) -> None:
        """Unpacks a base image, for server.builder.operations.base_snapshots."""
        for image in self.found.values():
            if image.chain_id == base.chain_id:
                await unpack_image(self.engine, image)

    def _input(self, name: str) -> BaseImage:
        """The result of another build that the client passes as an input."""
        made = self.job.inputs.get(name)
        if made is None:
            raise invalid(f"invalid input context {name}: the build has no input of that name")
        documents = made.documents
        return BaseImage(Base(name, documents.id, documents.chain_id, made.layers), jsontext.loads(documents.config))

    async def _find(self, ref: str, platform: str) -> Image:
        explicit = platform if platform != host_platform() else None
        if not self.pull and (local := await self._local(ref, platform)):
            return local
        messages = Progress(limit=0)  # discarded: the vertex shows the pull

        async def ask(registry: str) -> tuple[str, str]:
            return await self.sources.session.credentials(registry)

        try:
            await self.images.pull_for_build(ref, platform=explicit, credentials=ask, messages=messages)
        except WharfError as error:
            if explicit and error.kind is Kind.NOT_FOUND and (only := await self._only(ref)):
                return only
            sentence = f"{ref}: failed to resolve source metadata for {oci_name(ref)}: {error.message}"
            raise WharfError(error.kind, sentence) from None
        found = await self._local(ref, platform)
        return found or await self.images.resolve(ref, platform=explicit)

    async def _local(self, ref: str, platform: str) -> Image | None:
        """Return the local image for the platform. For the host's platform, BuildKit prefers amd64 without a variant;
        any other platform that is local serves too."""
        for requested in (platform, None) if platform == host_platform() else (platform,):
            try:
                return await self.images.resolve(ref, platform=requested)
            except WharfError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
        return None

    async def _only(self, ref: str) -> Image | None:
        """Return an image that exists for a single platform: BuildKit uses it for any, and a build check warns."""
        try:
            image = await self.images.resolve(ref)
        except WharfError:
            return None
        return None if oci.is_index(image.target.media_type) else image


def oci_name(ref: str) -> str:
    """Return the full name of an image, as BuildKit shows it."""
    try:
        return str(parse_reference(ref).tagged())
    except WharfError:
        return ref
