"""``Manifests`` of a list and of inspect: what an index has for each platform, local or not."""

from dataclasses import dataclass
from typing import Any

from engine.api.types import Descriptor, Platform
from server.images.context import ImageContext
from server.images.model import Image
from server.images.sizes import Sizes
from server.registry import documents, oci

Json = dict[str, Any]

_UNKNOWN = Platform("unknown", "unknown")


@dataclass(frozen=True, slots=True)
class _Content:
    """The blobs of a manifest: whether all are local, the bytes of those that are, and whether it is known that none of
    its layers is a part of a file system."""

    available: bool
    size: int
    no_image: bool


@dataclass(frozen=True, slots=True)
class Manifests:
    """Describes the manifests below a target."""

    context: ImageContext
    sizes: Sizes

    async def describe(self, target: Descriptor, *, identity: Json | None = None) -> list[Json]:
        """Describe each manifest. ``identity``: ``Identity`` of the target, shown for images that are complete."""
        return [await self._describe(target, desc, identity) async for desc in self.context.resolver.manifests(target)]

    async def _describe(self, target: Descriptor, desc: Descriptor, identity: Json | None) -> Json:
        image = await self.context.resolver.image(target, desc)
        content = await self._content(desc)
        unpacked = await self.sizes.unpacked(image) if image is not None else 0
        entry: Json = {
            "ID": desc.digest,
            "Descriptor": oci.to_json(desc),
            "Available": content.available,
            "Size": {"Content": content.size, "Total": content.size + unpacked},
            "Kind": "unknown",
        }
        if desc.annotations.get(oci.ATTESTATION):
            if of := desc.annotations.get(oci.ATTESTATION_OF):
                entry |= {"Kind": "attestation", "AttestationData": {"For": of}}
        elif desc.platform != _UNKNOWN and not content.no_image:
            entry |= {"Kind": "image", "ImageData": self._image_data(desc, image, unpacked)}
            if identity is not None and content.available:
                entry["ImageData"]["Identity"] = identity
        return entry

    def _image_data(self, desc: Descriptor, image: Image | None, unpacked: int) -> Json:
        platform = desc.platform or (image.platform if image is not None else Platform("", ""))
        users = [u.id for u in self.context.users() if (u.image_manifest or {}).get("digest") == desc.digest]
        return {
            "Platform": oci.platform_json(platform),
            "Containers": users or None,  # null, as dockerd shows it
            "Size": {"Unpacked": unpacked},
        }

    async def _content(self, desc: Descriptor) -> _Content:
        engine = self.context.engine
        size = await documents.size(engine, desc.digest)
        if size is None:
            return _Content(available=False, size=0, no_image=False)
        available, total = True, size
        children = oci.children(await documents.read(engine, desc), desc.media_type)
        for child in children:
            if (size := await documents.size(engine, child.digest)) is not None:
                total += size
            elif not oci.is_foreign(child.media_type):
                available = False
        layers = children[1:]  # the first is the config
        return _Content(available, total, no_image=bool(layers) and not any(oci.is_layer(x.media_type) for x in layers))
