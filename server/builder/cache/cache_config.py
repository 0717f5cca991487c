"""BuildKit's cache configuration (version 0): the document by which a build cache is exported and imported.

    {"layers":  [{"blob": digest, "parent": index, "annotations": {mediaType, diffID, size, createdAt}}],
     "records": [{"digest": key, "layers": [{"layer": index, "createdAt": …}],
                  "inputs": [[{"selector": digest, "link": index}]], "content": key}]}

In an image (``inline``), the document has only records; their layers are the image's. A step has up to three records:
one with BuildKit's key (``llbkeys.py``) and one input per dependency; one with our definition-based key, whose
``content`` is the content-based key if the two differ; and one with our content-based key.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.api.types import Descriptor
from engine.common import jsontext
from server.builder.plan.imageconfig import parse_utc, utc
from server.builder.plan.llbkey import Input, Key
from server.builder.plan.steps import Layer, Result

MEDIA_TYPE = "application/vnd.buildkit.cacheconfig.v0"
INLINE = "moby.buildkit.cache.v0"
"""The field of an image's configuration that holds its cache, base64-encoded."""


@dataclass(frozen=True, slots=True)
class CacheHit:
    """A cache's answer for a key: the layer, or ``None`` for a step that changes nothing."""

    layer: Layer | None
    content: str = ""
    """The content-based key, if the request used a different key."""
    lower_diff_ids: tuple[str, ...] | None = None
    """The diff ids of the layers below, if known."""


@dataclass(frozen=True, slots=True)
class _Record:
    digest: str
    inputs: tuple[tuple[tuple[str, int], ...], ...]
    chains: tuple[tuple[Layer, ...], ...]


@dataclass(slots=True)
class Document:
    """The parsed document: records by our own keys and by BuildKit's."""

    own: Mapping[str, CacheHit] = field(default_factory=dict)
    records: Sequence[_Record] = ()
    _indexes: dict[str, list[int]] = field(default_factory=dict)
    _found: dict[int, tuple[Key, frozenset[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, record in enumerate(self.records):
            self._indexes.setdefault(record.digest, []).append(index)

    def llb(self, key: Key) -> list[CacheHit]:
        """Return the records of one of BuildKit's keys."""
        found = []
        for index in sorted(self._matching(key)):
            for chain in self.records[index].chains:
                below = tuple(layer.diff_id for layer in chain[:-1])
                found.append(CacheHit(chain[-1], lower_diff_ids=below))
        return found

    def _matching(self, key: Key) -> frozenset[int]:
        """The indexes of records of a key that have a matching record for each of the key's inputs."""
        if id(key) not in self._found:
            positions = [index for digest in key.digests for index in self._indexes.get(digest, ())]
            fitting = frozenset(index for index in positions if self._matches(self.records[index], key))
            self._found[id(key)] = (key, fitting)
        return self._found[id(key)][1]

    def _matches(self, record: _Record, key: Key) -> bool:
        if len(record.inputs) != len(key.inputs):
            return False
        pairs = zip(key.inputs, record.inputs, strict=True)
        return all(any(self._matches_input(expected, *link) for link in links) for expected, links in pairs)

    def _matches_input(self, expected: Input, selector: str, index: int) -> bool:
        if not 0 <= index < len(self.records):
            return False
        if expected.content is not None and not selector and self.records[index].digest in expected.content.digests:
            return True
        return expected.key is not None and selector in expected.selectors and index in self._matching(expected.key)


class _Writer:
    def __init__(self) -> None:
        self.layers: list[dict[str, object]] = []
        self.records: list[dict[str, object]] = []
        self._numbers: dict[tuple[int, str], int] = {}
        self._own: dict[str, int] = {}
        self._llb: dict[str, int] = {}
        self._seen: dict[int, list[int]] = {}

    def chain(self, chain: Sequence[Result]) -> None:
        below, parent, link = 0, -1, -1
        for number, result in enumerate(chain):
            for layer in result.layers[below:]:
                layer_key = (parent, layer.descriptor.digest)
                if layer_key not in self._numbers:
                    self._numbers[layer_key] = len(self.layers)
                    self.layers.append(
                        {"blob": layer.descriptor.digest, "parent": parent, "annotations": _annotations(layer)}
                    )
                parent = self._numbers[layer_key]
            made: dict[str, object] = {}
            if len(result.layers) > below:
                made["layers"] = [{"layer": parent, "createdAt": utc(result.layers[-1].created_ns)}]
            if number:
                link = self._step(result, made, link)
            below = len(result.layers)

    def _step(self, result: Result, made: Mapping[str, object], link: int) -> int:
        for key in dict.fromkeys((result.definition or result.key, result.key)):
            if key not in self._own:
                self._own[key] = self._add(
                    key,
                    made,
                    [[{"link": link}]] if link >= 0 else [],
                    {"content": result.key} if key != result.key else {},
                )
        for index in self._indexes(result.llb) if result.llb is not None else ():
            self.records[index] |= made
        return self._own[result.key]

    def _indexes(self, key: Key) -> list[int]:
        """The indexes of the records of one of BuildKit's keys."""
        if id(key) in self._seen:
            return self._seen[id(key)]
        inputs = []
        for expected in key.inputs:
            links: list[dict[str, object]] = []
            for index in self._indexes(expected.key) if expected.key is not None else ():
                links += [{**({"selector": text} if text else {}), "link": index} for text in expected.selectors]
            links += [
                {"link": index} for index in (self._indexes(expected.content) if expected.content is not None else ())
            ]
            inputs.append(links)
        found = []
        for digest in key.digests:
            name = json.dumps([digest, inputs])
            if name not in self._llb:
                self._llb[name] = self._add(digest, {}, inputs, {})
            found.append(self._llb[name])
        self._seen[id(key)] = found
        return found

    def _add(
        self, digest: str, made: Mapping[str, object], inputs: Sequence[object], more: Mapping[str, object]
    ) -> int:
        self.records.append({"digest": digest, **made, **({"inputs": inputs} if inputs else {}), **more})
        return len(self.records) - 1


def write(chains: Sequence[Sequence[Result]]) -> bytes:
    """Encode a document; each chain starts with its base (``SCRATCH`` for none)."""
    writer = _write(chains)
    return _json({"layers": writer.layers, "records": writer.records})


def write_inline(chain: Sequence[Result]) -> bytes:
    """Encode the document that an image embeds; it refers to the image's own layers."""
    return _json(_write([chain]).records)


def _write(chains: Sequence[Sequence[Result]]) -> _Writer:
    writer = _Writer()
    for chain in chains:
        writer.chain(chain)
    return writer


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _annotations(layer: Layer) -> dict[str, object]:
    return {
        "mediaType": layer.descriptor.media_type,
        "diffID": layer.diff_id,
        "size": layer.descriptor.size,
        "createdAt": utc(layer.created_ns),
        "createdNs": str(layer.created_ns),
    }


def read(data: bytes, layers: Sequence[Layer] = ()) -> Document:
    """Parse a document. ``layers``: of the image that embeds it, or of the manifest beside it, which is the only source
    of diff ids in caches that BuildKit wrote. Invalid parts are skipped: the cache is only a hint."""
    try:
        document = jsontext.loads(data)
        if isinstance(document, list):
            parents = dict(enumerate(range(-1, len(layers) - 1)))
            return _read(document, list(layers), parents)
        parents = {number: int(item.get("parent", 0)) for number, item in enumerate(document["layers"])}
        described = {layer.descriptor.digest: layer for layer in layers}
        found = [_layer(item) or described.get(str(item["blob"])) for item in document["layers"]]
        return _read(document["records"], found, parents)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return Document()


def _read(records: Sequence[Any], layers: Sequence[Layer | None], parents: Mapping[int, int]) -> Document:
    own: dict[str, CacheHit] = {}
    found: list[_Record] = []
    for record in records:
        digest = str(record["digest"])
        chains = [_chain(layers, parents, item["layer"]) for item in record.get("layers") or ()]
        chains += [[layers[number] for number in item["layers"]] for item in record.get("chains") or ()]
        times = [str(item.get("createdAt", "")) for key in ("layers", "chains") for item in record.get(key) or ()]
        whole: list[tuple[Layer, ...]] = []
        for chain, made in zip(chains, times, strict=True):
            if chain and None not in chain:
                made_of = [layer for layer in chain if layer is not None]
                last = made_of[-1]
                whole.append((*made_of[:-1], replace(last, created_ns=last.created_ns or parse_utc(made))))
        inputs = tuple(
            tuple((str(link.get("selector", "")), int(link["link"])) for link in links)
            for links in record.get("inputs") or ()
        )
        found.append(_Record(digest, inputs, tuple(whole)))
        if whole or not chains:
            own[digest] = CacheHit(whole[0][-1] if whole else None, str(record.get("content", "")))
    return Document(own, found)


def _chain(layers: Sequence[Layer | None], parents: Mapping[int, int], top: int) -> list[Layer | None]:
    """A layer and those below it, base first."""
    found: list[Layer | None] = []
    while top >= 0 and len(found) <= len(layers):
        found.append(layers[top])
        top = parents[top]
    return found[::-1]


def _layer(item: Mapping[str, object]) -> Layer | None:
    about = item.get("annotations")
    if not isinstance(about, dict) or "diffID" not in about:
        return None
    descriptor = Descriptor(str(about["mediaType"]), str(item["blob"]), int(about["size"]))
    created = int(about.get("createdNs") or 0) or parse_utc(str(about.get("createdAt", "")))
    return Layer(descriptor, str(about["diffID"]), created)


def read_layers(data: bytes) -> list[Layer]:
    """Return the layers of a document, in its order."""
    document = jsontext.loads(data)
    found = [_layer(item) for item in document["layers"]]
    return [layer for layer in found if layer is not None]
