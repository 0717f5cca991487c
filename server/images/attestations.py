"""``GET /images/{name}/attestations`` (API 1.55): the in-toto statements that an index has about an image.

BuildKit puts an attestation manifest beside the image's manifest, refers from it to the image's by an annotation, and
stores one statement in each of its layers.
"""

from collections.abc import Collection
from typing import Any

import orjson

from engine.api.client import Engine
from engine.api.types import Descriptor, Platform
from engine.common import jsontext, limits
from engine.common.errors import Kind, WharfError, internal, not_found
from server.images.context import ImageContext
from server.registry import documents, oci

_PREDICATE = "in-toto.io/predicate-type"


async def attestations(
    context: ImageContext,
    text: str,
    *,
    platform: Platform | None = None,
    types: Collection[str] = (),
    statements: bool = False,
) -> list[dict[str, Any]]:
    """Return the statements about the image for ``platform`` or else for this host; none if it has no attestation.

    ``types``: only these predicate types. ``statements``: read the statements too.

    :raises WharfError: NOT_FOUND: the image, the platform, or a blob that is not local; INVALID_ARGUMENT: the
        statements are larger than ``limits.STATEMENTS_BYTES``.
    """
    record = await context.resolver.record(text)
    if record.target.media_type != oci.OCI_INDEX:
        return []
    children = oci.parse_index(await _document(context.engine, record.target))
    image = _image(children, platform or oci.host_platform())
    found = oci.attestation_of(children, image)
    if found is None:
        return []
    manifest = oci.parse_manifest(await _document(context.engine, found), found.digest)
    layers = [
        layer for layer in manifest.layers if (kind := layer.annotations.get(_PREDICATE)) and _wanted(kind, types)
    ]
    if statements and (size := sum(layer.size for layer in layers)) > limits.STATEMENTS_BYTES:
        raise limits.exceeded("STATEMENTS_BYTES", f"{text}: the size {size} of its attestations")
    answer: list[dict[str, Any]] = []
    for layer in layers:
        entry: dict[str, Any] = {"Descriptor": oci.to_json(layer), "PredicateType": layer.annotations[_PREDICATE]}
        if statements:
            entry["Statement"] = await _statement(context.engine, layer)
        answer.append(entry)
    return answer


def _wanted(kind: str, types: Collection[str]) -> bool:
    return not types or kind in types


def _image(children: Collection[Descriptor], platform: Platform) -> Descriptor:
    found = oci.best((child for child in children if oci.is_manifest(child.media_type)), platform)
    if not found:
        shown = (
            f"&{{Architecture:{platform.architecture} OS:{platform.os} OSVersion: OSFeatures:[] "
            f"Variant:{platform.variant}}}"
        )
        raise not_found(
            f"resolving image manifest for platform {shown}:"
            f" no manifest for platform {oci.format_platform(platform)}: not found"
        )
    return found[0]


async def _document(engine: Engine, desc: Descriptor) -> oci.Json:
    try:
        return await documents.read(engine, desc)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        raise not_found(f"reading blob {desc.digest}: {error.message}") from None


async def _statement(engine: Engine, layer: Descriptor) -> orjson.Fragment:
    """Return a statement as it is stored, which is JSON."""
    try:
        data = await engine.content.read_all(layer.digest)
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        raise not_found(f"attestation statement {layer.digest} is not available locally: {error.message}") from None
    try:
        text = jsontext.text(data)
        jsontext.loads(text)
    except ValueError:
        raise internal(f"attestation statement {layer.digest} is not JSON") from None
    return orjson.Fragment(text)
