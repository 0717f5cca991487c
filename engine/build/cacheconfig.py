"""The cache of a build as a document that travels: BuildKit's cache configuration (version 0), with keys of our own.

    {"layers":  [{"blob": digest, "parent": index, "annotations": {mediaType, diffID, size, createdAt}}],
     "records": [{"digest": key, "layers": [{"layer": index, "createdAt": …}], "inputs": [[{"link": index}]],
                  "content": key}]}

A record without layers is a step that changed nothing. A step whose key by definition is another than that by content
has two records: the former names the latter.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.api.types import Descriptor
from engine.build.imageconfig import utc
from engine.build.steps import Layer, Result

MEDIA_TYPE = "application/vnd.buildkit.cacheconfig.v0"
INLINE = "moby.buildkit.cache.v0"
"""The key of an image's configuration under which its cache is, base64-encoded."""

LIMIT = 8 << 20
"""Bytes of a configuration that is believed."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a cache knows of a key: the layer, or that there is none."""

    layer: Layer | None
    content: str = ""
    """The key by content, where the one that was asked for is another."""


def write(chains: Sequence[Sequence[Result]]) -> bytes:
    """The document of results; each chain from its base on, the base itself included (``SCRATCH`` for none)."""
    layers: list[dict[str, object]] = []
    numbers: dict[tuple[int, str], int] = {}
    records: list[dict[str, object]] = []
    known: dict[str, int] = {}
    for chain in chains:
        below, parent, link = 0, -1, -1
        for number, result in enumerate(chain):
            for layer in result.layers[below:]:
                place = (parent, layer.descriptor.digest)
                if place not in numbers:
                    numbers[place] = len(layers)
                    layers.append({"blob": layer.descriptor.digest, "parent": parent, "annotations": _about(layer)})
                parent = numbers[place]
            for key in dict.fromkeys((result.definition or result.key, result.key)) if number else ():
                if key in known:
                    continue
                known[key] = len(records)
                record: dict[str, object] = {"digest": key}
                if key != result.key:
                    record["content"] = result.key
                if len(result.layers) > below:
                    record["layers"] = [{"layer": parent, "createdAt": utc(result.layers[-1].created_ns)}]
                if link >= 0:
                    record["inputs"] = [[{"link": link}]]
                records.append(record)
            below, link = len(result.layers), known.get(result.key, -1)
    return json.dumps({"layers": layers, "records": records}, separators=(",", ":"), sort_keys=True).encode()


def _about(layer: Layer) -> dict[str, object]:
    return {
        "mediaType": layer.descriptor.media_type,
        "diffID": layer.diff_id,
        "size": layer.descriptor.size,
        "createdAt": utc(layer.created_ns),
        "createdNs": str(layer.created_ns),
    }


def read(data: bytes) -> Mapping[str, Known]:
    """What a document knows, by key. What makes no sense in it is left out: a cache is only a hint."""
    found: dict[str, Known] = {}
    try:
        document = json.loads(data)
        layers = [_layer(item) for item in document["layers"]]
        for record in document["records"]:
            places = record.get("layers") or ()
            layer = layers[places[0]["layer"]] if places else None
            if not places or layer is not None:
                found[str(record["digest"])] = Known(layer, str(record.get("content", "")))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return {}
    return found


def _layer(item: Mapping[str, object]) -> Layer | None:
    about = item.get("annotations")
    if not isinstance(about, dict) or "diffID" not in about:
        return None
    descriptor = Descriptor(str(about["mediaType"]), str(item["blob"]), int(about["size"]))
    return Layer(descriptor, str(about["diffID"]), int(about.get("createdNs") or 0))


def blobs(data: bytes) -> list[Descriptor]:
    """The layers of a document, in its order."""
    document = json.loads(data)
    found = [_layer(item) for item in document["layers"]]
    return [layer.descriptor for layer in found if layer is not None]
