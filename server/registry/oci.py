"""Manifests, indexes and image configs: media types, references, platforms, chain ids.

Documents are plain JSON objects from registries and archives; the functions here check the shapes that they use.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from engine.api.labels import GC_REF
from engine.api.types import Descriptor, Platform
from engine.common import jsontext, limits
from engine.common.errors import invalid
from engine.common.layers.chain import chain_id
from server.registry.reference import Reference, check_digest
from server.registry.variants import amd64_levels, runnable

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)

INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
#: The Accept header for manifests, in the order of preference.
ACCEPT = ", ".join((DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX, "*/*"))

#: Labels for the garbage collector: the blobs that a blob protects.
REF = f"{GC_REF}content"
SOURCE = "containerd.io/distribution.source"

#: Annotations that name an image in an index.
ANNOTATION_NAME = "io.containerd.image.name"
ANNOTATION_REF = "org.opencontainers.image.ref.name"
#: The annotation of a manifest in an archive's index that belongs to another one: containerd's, for referrers.
ANNOTATION_SUBJECT = "io.containerd.manifest.subject"
#: Annotations of an attestation manifest in an index: its kind, and the digest of the manifest that it is about.
ATTESTATION = "vnd.docker.reference.type"
ATTESTATION_MANIFEST = "attestation-manifest"
ATTESTATION_OF = "vnd.docker.reference.digest"

Json = dict[str, Any]


def is_index(media_type: str) -> bool:
    return media_type in INDEX_TYPES


def is_manifest(media_type: str) -> bool:
    return media_type in MANIFEST_TYPES


def is_config(media_type: str) -> bool:
    return media_type in (OCI_CONFIG, DOCKER_CONFIG)


def is_layer(media_type: str) -> bool:
    return media_type.startswith(("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."))


def is_foreign(media_type: str) -> bool:
    """Layers that must not be distributed by their licence."""
    return "nondistributable" in media_type or media_type.startswith(DOCKER_FOREIGN)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def source_label(reference: Reference) -> str:
    """The label of blobs with the repositories of one registry that have them, by ``,``."""
    return f"{SOURCE}.{reference.domain}"


def load(data: bytes, what: str) -> Json:
    """Parses a document.

    :raises WharfError: INVALID_ARGUMENT for anything but a JSON object of at most ``limits.DOCUMENT_VALUES``.
    """
    try:
        document = jsontext.loads(data)
    except ValueError:
        raise invalid(f"{what}: invalid JSON") from None
    if not isinstance(document, dict):
        raise invalid(f"{what}: not a JSON object")
    if jsontext.has_more(document, limits.DOCUMENT_VALUES):
        raise limits.exceeded("DOCUMENT_VALUES", f"{what}: the number of its values")
    return document


def platform_of(document: Mapping[str, Any] | None) -> Platform | None:
    if not isinstance(document, Mapping) or not document.get("architecture"):
        return None
    return normalized(
        Platform(str(document.get("os") or ""), str(document["architecture"]), str(document.get("variant") or ""))
    )


def descriptor(document: object, what: str) -> Descriptor:
    """Parses a descriptor in a manifest.

    :raises WharfError: INVALID_ARGUMENT.
    """
    if not isinstance(document, Mapping):
        raise invalid(f"{what}: descriptor is not an object")
    digest, size, media_type = document.get("digest"), document.get("size"), document.get("mediaType")
    if not isinstance(digest, str) or not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise invalid(f"{what}: descriptor without a valid digest and size")
    check_digest(digest)
    annotations = document.get("annotations")
    return Descriptor(
        media_type=str(media_type or ""),
        digest=digest,
        size=size,
        annotations={str(k): str(v) for k, v in annotations.items()} if isinstance(annotations, Mapping) else {},
        platform=platform_of(document.get("platform")),
    )


def to_json(desc: Descriptor) -> Json:
    """A descriptor as JSON, in the order of the OCI specification's struct."""
    document: Json = {"mediaType": desc.media_type, "digest": desc.digest, "size": desc.size}
    if desc.annotations:
        document["annotations"] = dict(sorted(desc.annotations.items()))  # sorted, as Go writes a map
    if desc.platform is not None:
        document["platform"] = platform_json(desc.platform)
    return document


def platform_json(platform: Platform) -> Json:
    document = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        document["variant"] = platform.variant
    return document


@dataclass(frozen=True, slots=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]
    urls: Mapping[str, tuple[str, ...]]  # digest → URLs of a foreign layer, from the manifest

    @property
    def is_image(self) -> bool:
        """False for attestations and other artifacts, which have no root file system."""
        return all(is_layer(layer.media_type) for layer in self.layers) and (
            is_config(self.config.media_type) or not self.config.media_type
        )


def parse_manifest(document: Json, what: str = "manifest") -> Manifest:
    """Parses a manifest.

    :raises WharfError: INVALID_ARGUMENT.
    """
    media_type = document.get("mediaType")
    if media_type is not None and media_type not in MANIFEST_TYPES:
        raise invalid(f"{what}: unexpected media type {media_type}")
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise invalid(
            "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 support is"
            " removed. Push the image again in a current format"
        )
    if "manifests" in document or not isinstance(document.get("layers", []), list):
        raise invalid(f"{what}: not an image manifest")
    config = descriptor(document.get("config"), what)
    layers = tuple(descriptor(layer, what) for layer in document.get("layers") or ())
    urls = {
        desc.digest: tuple(str(url) for url in layer.get("urls") or ())
        for desc, layer in zip(layers, document.get("layers") or (), strict=True)
    }
    return Manifest(config, layers, urls)


def parse_index(document: Json, what: str = "index") -> tuple[Descriptor, ...]:
    """Parses an index.

    :raises WharfError: INVALID_ARGUMENT.
    """
    media_type = document.get("mediaType")
    if media_type is not None and media_type not in INDEX_TYPES:
        raise invalid(f"{what}: unexpected media type {media_type}")
    manifests = document.get("manifests")
    if "layers" in document or "config" in document or (manifests is not None and not isinstance(manifests, list)):
        raise invalid(f"{what}: not an image index")
    return tuple(descriptor(item, what) for item in manifests or ())


def check_sizes(manifest: Manifest, what: str) -> None:
    """Checks the sizes in a manifest against the limits, before anything is fetched.

    :raises WharfError: INVALID_ARGUMENT that names the limit; or for two sizes of one blob.
    """
    if manifest.config.size > limits.DOCUMENT_BYTES:
        raise limits.exceeded("DOCUMENT_BYTES", f"{what}: the config's size {manifest.config.size}")
    if len(manifest.layers) > limits.IMAGE_LAYERS:
        raise limits.exceeded("IMAGE_LAYERS", f"{what}: the number of layers {len(manifest.layers)}")
    sizes = {manifest.config.digest: manifest.config.size}
    for layer in manifest.layers:
        if layer.size > limits.LAYER_BYTES:
            raise limits.exceeded("LAYER_BYTES", f"{what}: the size {layer.size} of layer {layer.digest}")
        if sizes.setdefault(layer.digest, layer.size) != layer.size:
            raise invalid(f"{what}: two sizes of one blob: {layer.digest}")
    if (total := sum(layer.size for layer in manifest.layers)) > limits.IMAGE_BYTES:
        raise limits.exceeded("IMAGE_BYTES", f"{what}: the size {total} of all layers")


def attestation_of(children: Iterable[Descriptor], image: Descriptor) -> Descriptor | None:
    """The attestation manifest that an index with these children has for one of its images."""
    for child in children:
        notes = child.annotations
        if notes.get(ATTESTATION) == ATTESTATION_MANIFEST and notes.get(ATTESTATION_OF) == image.digest:
            return child
    return None


def media_type_of(document: Json) -> str:
    """A document's media type, from its field or its shape."""
    field = document.get("mediaType")
    if isinstance(field, str) and field:
        return field
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def children(document: Json, media_type: str) -> tuple[Descriptor, ...]:
    """The descriptors that a manifest or index references."""
    if is_index(media_type):
        return parse_index(document)
    manifest = parse_manifest(document)
    return (manifest.config, *manifest.layers)


def ref_labels(document: Json, media_type: str) -> dict[str, str]:
    """The labels with which a manifest or index protects what it references."""
    if is_index(media_type):
        return {f"{REF}.m.{i}": desc.digest for i, desc in enumerate(parse_index(document))}
    manifest = parse_manifest(document)
    labels = {f"{REF}.l.{i}": layer.digest for i, layer in enumerate(manifest.layers)}
    labels[f"{REF}.config"] = manifest.config.digest
    return labels


def diff_ids(config: Json) -> tuple[str, ...]:
    """The diff ids of an image config.

    :raises WharfError: INVALID_ARGUMENT.
    """
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, Mapping) else None
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise invalid("image config: diff_ids is not a list of digests")
    return tuple(found)


def chain_ids(ids: Sequence[str]) -> tuple[str, ...]:
    """The chain id of each layer (OCI image spec, "Layer ChainID")."""
    return tuple(accumulate(ids, chain_id))


# platforms

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
}


def normalized(platform: Platform) -> Platform:
    os_name = "darwin" if platform.os.lower() == "macos" else platform.os.lower()
    architecture = platform.architecture.lower()
    variant = platform.variant.lower()
    if architecture == "armhf":
        variant = "7"
    elif architecture == "armel":
        variant = "6"
    architecture = _ARCHITECTURES.get(architecture, architecture)
    if architecture == "arm64" and variant in ("8", "v8"):
        variant = ""
    elif architecture == "arm":
        variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    elif architecture == "amd64" and variant == "v1":
        variant = ""
    return Platform(os_name, architecture, variant)


def host_platform() -> Platform:
    """The host's platform without a variant of amd64: that of new images."""
    machine = os.uname().machine
    variant = {"armv7l": "v7", "armv6l": "v6", "armv5l": "v5"}.get(machine, "")
    return normalized(Platform("linux", "arm" if machine.startswith("armv") else machine, variant))


def highest_host_platform() -> Platform:
    """The host's platform with the highest variant of its processor: images for it are preferred."""
    host = host_platform()
    levels = amd64_levels() if host.architecture == "amd64" else ()
    return replace(host, variant=levels[-1]) if levels else host


_PART = re.compile("[A-Za-z0-9_.-]+")
#: The words that may be a platform alone: Go's names, as in containerd.
_ALONE = re.compile("386|amd64|arm|arm64|loong64|mips|mipsle|mips64|mips64le|ppc64|ppc64le|riscv64|s390x|wasm")


def parse_platform(text: str) -> Platform:
    """Parses ``os[/arch[/variant]]`` or just an architecture.

    :raises WharfError: INVALID_ARGUMENT with containerd's sentence.
    """
    parts = text.split("/")
    if len(parts) > 3 or not all(map(_PART.fullmatch, parts)):
        raise invalid(f'"{text}": invalid platform: must be of form os/arch or os/arch/variant: invalid argument')
    if len(parts) == 1:
        if parts[0].lower() in ("linux", "windows", "darwin", "freebsd"):
            host = host_platform()
            return normalized(Platform(parts[0], host.architecture, host.variant))
        found = normalized(Platform("linux", parts[0]))
        if not _ALONE.fullmatch(found.architecture):
            raise invalid(f'"{text}": unknown operating system or architecture: invalid argument')
        return found
    return normalized(Platform(parts[0], parts[1], parts[2] if len(parts) == 3 else ""))


def platform_from_json(text: str) -> Platform:
    """The JSON of a platform, as newer clients send it.

    :raises WharfError: INVALID_ARGUMENT.
    """
    try:
        found = platform_of(jsontext.loads(text))
    except ValueError:
        found = None
    if found is None:
        raise invalid(f"failed to parse platform: {text}")
    return found


def format_platform(platform: Platform) -> str:
    return "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)


def rank(requested: Platform, offered: Platform) -> int | None:
    """How well a platform matches: 0 exactly, higher is worse, None: it doesn't run."""
    order = runnable(requested)
    return order.index(offered) if offered in order else None


def best(items: Iterable[Descriptor], requested: Platform) -> list[Descriptor]:
    """The matching descriptors, best first. One without a platform is last."""
    ranked = []
    for item in items:
        if item.annotations.get(ATTESTATION):
            continue
        distance = 100 if item.platform is None else rank(requested, item.platform)
        if distance is not None:
            ranked.append((distance, item))
    return [item for _, item in sorted(ranked, key=lambda pair: pair[0])]
