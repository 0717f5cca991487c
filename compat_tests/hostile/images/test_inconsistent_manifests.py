"""Inconsistent manifests, indexes and configs: each is refused by name, and nothing of it is stored."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.hostile.images.inconsistent import INDEX, MANIFEST, OCI, Corruption, InconsistentRegistry, ValidImage
from compat_tests.support.disk import blobs_in
from compat_tests.support.engines import Engine
from compat_tests.support.images import digest, layer
from compat_tests.support.polling import until
from compat_tests.support.transfers import tags


def in_layer(number: int = 0, **fields: object) -> Corruption:
    def corrupt(image: ValidImage) -> None:
        image.manifest["layers"][number].update(fields)

    return corrupt


def in_config(**fields: object) -> Corruption:
    def corrupt(image: ValidImage) -> None:
        image.config.update(fields)
        image.describe()

    return corrupt


def in_manifest(**fields: object) -> Corruption:
    return lambda image: image.manifest.update(fields)


def claimed_config(**fields: object) -> Corruption:
    return lambda image: image.manifest["config"].update(fields)


def content(part: str) -> Corruption:
    """The registry sends other bytes of the same length for a blob."""

    def corrupt(image: ValidImage) -> None:
        found = image.manifest["config"] if part == "config" else image.manifest["layers"][0]
        image.blobs[found["digest"]] = os.urandom(found["size"])

    return corrupt


def length(part: str, change: int) -> Corruption:
    def corrupt(image: ValidImage) -> None:
        found = image.manifest["config"] if part == "config" else image.manifest["layers"][0]
        found["size"] += change

    return corrupt


def repeated(count: int, **fields: object) -> Corruption:
    def corrupt(image: ValidImage) -> None:
        first = image.manifest["layers"][0]
        rows = [{**first, "digest": digest(str(number).encode()), **fields} for number in range(count)]
        image.manifest["layers"] = rows

    return corrupt


def two_sizes(image: ValidImage) -> None:
    first = image.manifest["layers"][0]
    image.manifest["layers"].append({**first, "size": first["size"] + 1})


def config_is_a_layer(image: ValidImage) -> None:
    image.manifest["config"] = {**image.manifest["layers"][0], "mediaType": f"{OCI}.config.v1+json"}


def index_of_itself(image: ValidImage) -> None:
    """A long chain of indexes: an index can't contain its own digest, but a chain has the same effect."""
    data = json.dumps(image.manifest).encode()
    image.documents[digest(data)] = MANIFEST, data
    media_type = MANIFEST
    for _ in range(6):
        entry = {"mediaType": media_type, "digest": digest(data), "size": len(data)}
        data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
        media_type = INDEX
        image.documents[digest(data)] = INDEX, data
    image.top = data


def as_top(data: bytes) -> Corruption:
    def corrupt(image: ValidImage) -> None:
        image.top = data

    return corrupt


def as_config(data: bytes) -> Corruption:
    return lambda image: image.describe(data)


def in_index(**fields: object) -> Corruption:
    return lambda image: image.index(**fields)


#: (name, inconsistency, part of the error, whether blobs may be requested)
CORRUPTIONS: list[tuple[str, Corruption, str, bool]] = [
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
def registry(engine: Engine) -> Iterator[InconsistentRegistry]:
    """At the end nothing of the refused images is in the store."""
    before = blobs_in(engine)
    with InconsistentRegistry() as found:
        yield found
    assert until(lambda: not blobs_in(engine) - before, seconds=60), blobs_in(engine) - before


def pull(engine: Engine, name: str) -> str:
    """Pull an image; return the error, or ""."""
    answer = engine.api.request("POST", "/images/create", query={"fromImage": name, "tag": "1"})
    assert answer.status in (200, 400, 404), (answer.status, answer.body)
    last: Any = answer.lines()[-1]
    return str(last.get("error") or last.get("message") or "")


@pytest.mark.parametrize(
    ("corrupt", "sentence", "asks"), [row[1:] for row in CORRUPTIONS], ids=[row[0] for row in CORRUPTIONS]
)
def test_corrupt_image_is_refused(
    engine: Engine, registry: InconsistentRegistry, corrupt: Corruption, sentence: str, asks: bool
) -> None:
    images = tags(engine)
    registry.image = ValidImage([layer({"file": os.urandom(100)})])
    corrupt(registry.image)
    registry.requested.clear()
    error = pull(engine, f"{registry.address}/corrupt")
    assert sentence in error
    assert asks or not registry.requested
    assert tags(engine) == images


def test_valid_image_is_pulled(engine: Engine, registry: InconsistentRegistry) -> None:
    registry.image = ValidImage([layer({"file": os.urandom(100)}) for _ in range(3)])
    registry.image.index()
    assert pull(engine, f"{registry.address}/corrupt") == ""
    engine.docker("rmi", f"{registry.address}/corrupt:1")


def test_another_manifest_for_a_digest(engine: Engine, registry: InconsistentRegistry) -> None:
    """Refused while the content is not local. What is local and verified already is not asked for again."""
    registry.image = ValidImage([layer({"file": os.urandom(100)})])
    data = json.dumps(registry.image.manifest).encode()
    name = f"{registry.address}/altered@{digest(data)}"
    in_layer(digest="sha256:" + "0" * 64)(registry.image)
    registry.image.documents[digest(data)] = (MANIFEST, json.dumps(registry.image.manifest).encode())
    done = engine.docker("pull", name, check=False)
    assert done.status == 1
    assert digest(data) in done.stderr
    assert f"{registry.address}/altered" not in engine.docker("images", "--digests").stdout


def test_wrong_size_of_an_existing_blob(engine: Engine, registry: InconsistentRegistry) -> None:
    """The blob exists already, so it is not fetched and compared; the wrong size must not be shown as the image's."""
    layers = [layer({"file": os.urandom(100)})]
    registry.image = ValidImage(layers)
    name = f"{registry.address}/corrupt"
    assert pull(engine, name) == ""
    valid = engine.api.get(f"/images/{name}:1/json").json()
    for part in ("layer", "config"):
        registry.image = ValidImage(layers)
        length(part, 1 << 20)(registry.image)
        assert "where the manifest says" in pull(engine, name)
    assert engine.api.get(f"/images/{name}:1/json").json() == valid
    engine.docker("rmi", f"{name}:1")


@pytest.mark.usefixtures("registry")
def test_corrupt_archive(engine: Engine) -> None:
    for size in (1 << 62, 1 << 63, -1, 5):
        image = ValidImage([layer({"file": os.urandom(100)})])
        in_layer(size=size)(image)
        assert engine.docker("load", "-q", input=image.archive("lie:1"), check=False).status == 1
        assert "lie:1" not in tags(engine)
