"""Inconsistent manifests, indexes and configs: each is refused by name, and nothing of it is stored."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.hostile.lying import INDEX, MANIFEST, OCI, Lie, LyingRegistry, Truth
from compat_tests.support.engines import Engine
from compat_tests.support.images import layer
from compat_tests.support.traces import until
from compat_tests.support.transfers import blobs_in, digest, tags

pytestmark = pytest.mark.root


def in_layer(number: int = 0, **fields: object) -> Lie:
    def lie(truth: Truth) -> None:
        truth.manifest["layers"][number].update(fields)

    return lie


def in_config(**fields: object) -> Lie:
    def lie(truth: Truth) -> None:
        truth.config.update(fields)
        truth.describe()

    return lie


def in_manifest(**fields: object) -> Lie:
    return lambda truth: truth.manifest.update(fields)


def claimed_config(**fields: object) -> Lie:
    return lambda truth: truth.manifest["config"].update(fields)


def content(part: str) -> Lie:
    """The registry sends other bytes of the same length for a blob."""

    def lie(truth: Truth) -> None:
        found = truth.manifest["config"] if part == "config" else truth.manifest["layers"][0]
        truth.blobs[found["digest"]] = os.urandom(found["size"])

    return lie


def length(part: str, change: int) -> Lie:
    def lie(truth: Truth) -> None:
        found = truth.manifest["config"] if part == "config" else truth.manifest["layers"][0]
        found["size"] += change

    return lie


def repeated(count: int, **fields: object) -> Lie:
    def lie(truth: Truth) -> None:
        first = truth.manifest["layers"][0]
        rows = [{**first, "digest": digest(str(number).encode()), **fields} for number in range(count)]
        truth.manifest["layers"] = rows

    return lie


def two_sizes(truth: Truth) -> None:
    first = truth.manifest["layers"][0]
    truth.manifest["layers"].append({**first, "size": first["size"] + 1})


def config_is_a_layer(truth: Truth) -> None:
    truth.manifest["config"] = {**truth.manifest["layers"][0], "mediaType": f"{OCI}.config.v1+json"}


def index_of_itself(truth: Truth) -> None:
    """A long chain of indexes: an index can't contain its own digest, but a chain has the same effect."""
    data = json.dumps(truth.manifest).encode()
    truth.documents[digest(data)] = MANIFEST, data
    media_type = MANIFEST
    for _ in range(6):
        entry = {"mediaType": media_type, "digest": digest(data), "size": len(data)}
        data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
        media_type = INDEX
        truth.documents[digest(data)] = INDEX, data
    truth.top = data


def as_top(data: bytes) -> Lie:
    def lie(truth: Truth) -> None:
        truth.top = data

    return lie


def as_config(data: bytes) -> Lie:
    return lambda truth: truth.describe(data)


def in_index(**fields: object) -> Lie:
    return lambda truth: truth.index(**fields)


#: (name, inconsistency, part of the error, whether blobs may be requested)
LIES: list[tuple[str, Lie, str, bool]] = [
    ("layer of 2^62 bytes", in_layer(size=1 << 62), "LAYER_BYTES", False),
    ("layer of 2^63 bytes", in_layer(size=1 << 63), "without a valid digest and size", False),
    ("layer of 10^30 bytes", in_layer(size=10**30), "without a valid digest and size", False),
    ("layer of -1 bytes", in_layer(size=-1), "without a valid digest and size", False),
    ("layer of 1.5 bytes", in_layer(size=1.5), "without a valid digest and size", False),
    ("size is a text", in_layer(size="5"), "without a valid digest and size", False),
    ("size is true", in_layer(size=True), "without a valid digest and size", False),
    ("size is null", in_layer(size=None), "without a valid digest and size", False),
    ("all layers too large", repeated(5, size=1 << 40), "IMAGE_BYTES", False),
    ("too many layers", repeated(501), "IMAGE_LAYERS", False),
    ("config of 2^40 bytes", claimed_config(size=1 << 40), "DOCUMENT_BYTES", False),
    ("two sizes of one layer", two_sizes, "two sizes of one blob", False),
    ("layer shorter than it is", length("layer", -1), "that the manifest says", True),
    ("layer longer than it is", length("layer", 1), "unexpected EOF", True),
    ("config shorter than it is", length("config", -1), "that the manifest says", True),
    ("layer with another content", content("layer"), "verification failed for digest", True),
    ("config with another content", content("config"), "verification failed for digest", True),
    ("digest is a path", in_layer(digest="sha256:../../../../etc/passwd"), "invalid checksum digest", False),
    ("digest of no algorithm", in_layer(digest="md5:" + "0" * 32), "unsupported digest algorithm", False),
    ("layers is an object", in_manifest(layers={}), "not an image manifest", False),
    ("layer is a number", in_manifest(layers=[1]), "not an object", False),
    ("config is missing", in_manifest(config=None), "not an object", False),
    ("manifest that is an index, too", in_manifest(manifests=[]), "not an image manifest", False),
    ("layer of no type", in_layer(mediaType="text/html"), "encountered remote", False),
    (
        "diff ids that are missing",
        in_config(rootfs={"type": "layers", "diff_ids": []}),
        "mismatched image rootfs",
        True,
    ),
    ("diff id of another layer", in_config(rootfs={"diff_ids": ["sha256:" + "0" * 64]}), "wrong diff id", True),
    ("diff ids that are numbers", in_config(rootfs={"diff_ids": [1]}), "not a list of digests", True),
    ("config that is a list", as_config(b"[]"), "not a JSON object", True),
    ("config that is nested", as_config(b"[" * 100_000), "invalid JSON", True),
    ("config that is a layer", config_is_a_layer, "invalid JSON", True),
    ("manifest that is nested", as_top(b'{"a":' * 100_000), "sent no manifest", False),
    ("manifest of 9 MiB", as_top(b'{"a":"' + b"a" * (9 << 20) + b'"}'), "too long", False),
    ("child of 2^62 bytes", in_index(size=1 << 62), "DOCUMENT_BYTES", False),
    ("child with another size", in_index(size=10), "where the index says 10", False),
    ("indexes within indexes", index_of_itself, "indexes within indexes", False),
]


@pytest.fixture(scope="module")
def liar(engine: Engine) -> Iterator[LyingRegistry]:
    """At the end nothing of the refused images is in the store."""
    before = blobs_in(engine)
    with LyingRegistry() as found:
        yield found
    assert until(lambda: not blobs_in(engine) - before, seconds=60), blobs_in(engine) - before


def pull(engine: Engine, name: str) -> str:
    """Pull an image; return the error, or ""."""
    answer = engine.api.request("POST", "/images/create", query={"fromImage": name, "tag": "1"})
    assert answer.status in (200, 400, 404), (answer.status, answer.body)
    last: Any = answer.lines()[-1]
    return str(last.get("error") or last.get("message") or "")


@pytest.mark.parametrize(("lie", "sentence", "asks"), [row[1:] for row in LIES], ids=[row[0] for row in LIES])
def test_a_lie_is_refused(engine: Engine, liar: LyingRegistry, lie: Lie, sentence: str, asks: bool) -> None:
    images = tags(engine)
    liar.truth = Truth([layer({"file": os.urandom(100)})])
    lie(liar.truth)
    liar.asked.clear()
    said = pull(engine, f"{liar.address}/lie")
    assert sentence in said
    assert asks or not liar.asked
    assert tags(engine) == images


def test_the_truth_is_pulled(engine: Engine, liar: LyingRegistry) -> None:
    liar.truth = Truth([layer({"file": os.urandom(100)}) for _ in range(3)])
    liar.truth.index()
    assert pull(engine, f"{liar.address}/lie") == ""
    engine.docker("rmi", f"{liar.address}/lie:1")


def test_another_size_of_a_blob_that_is_here(engine: Engine, liar: LyingRegistry) -> None:
    """The blob exists already, so it is not fetched and compared; the wrong size must not be shown as the image's."""
    layers = [layer({"file": os.urandom(100)})]
    liar.truth = Truth(layers)
    name = f"{liar.address}/lie"
    assert pull(engine, name) == ""
    honest = engine.api.get(f"/images/{name}:1/json").json()
    for part in ("layer", "config"):
        liar.truth = Truth(layers)
        length(part, 1 << 20)(liar.truth)
        assert "where the manifest says" in pull(engine, name)
    assert engine.api.get(f"/images/{name}:1/json").json() == honest
    engine.docker("rmi", f"{name}:1")


@pytest.mark.usefixtures("liar")
def test_lies_in_an_archive(engine: Engine) -> None:
    for size in (1 << 62, 1 << 63, -1, 5):
        truth = Truth([layer({"file": os.urandom(100)})])
        in_layer(size=size)(truth)
        assert engine.docker("load", "-q", input=truth.archive("lie:1"), check=False).status == 1
        assert "lie:1" not in tags(engine)
