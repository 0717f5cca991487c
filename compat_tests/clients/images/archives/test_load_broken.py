"""`docker load` of archives that are cut, inconsistent, too large or no images: an error, and no blob stays."""

from __future__ import annotations

import gzip
import json
import os

import pytest

from compat_tests.clients.images.archives.parsed import files
from compat_tests.support.disk import blobs_in
from compat_tests.support.engines import Engine
from compat_tests.support.images import Node, config, descriptor, digest, docker_archive, layer, oci_archive
from compat_tests.support.polling import until
from compat_tests.support.transfers import unique_layers

pytestmark = pytest.mark.usefixtures("remove_new_images")


@pytest.mark.core
def test_archive_that_is_no_image_is_removed(engine: Engine) -> None:
    """Files are in the content store before the archive is recognised as no image: they are removed again."""
    nodes: dict[str, Node | bytes | str] = {f"usr/share/file{number}": os.urandom(2 << 20) for number in range(10)}
    nodes |= {f"etc/{number}": b"x" * 1000 for number in range(2000)}
    nodes |= {f"lib/{number}.json": b"{}" for number in range(100)}
    before = blobs_in(engine)
    done = engine.docker("load", input=layer(nodes), check=False)
    assert "unrecognized image format" in done.stderr
    assert blobs_in(engine) <= before
    # Also with files that do not belong to the image.
    engine.docker("load", "-q", input=layer({**nodes, **unpacked(docker_archive("beside:1", unique_layers()))}))
    assert len(blobs_in(engine) - before) == 4  # layers, config, manifest


def unpacked(archive: bytes) -> dict[str, Node | bytes | str]:
    return dict(files(archive))


def test_size_of_documents_is_limited(engine: Engine) -> None:
    before = blobs_in(engine)
    huge = b" " * (9 << 20)
    for name in ("manifest.json", "index.json", "repositories"):
        assert "DOCUMENT_BYTES" in engine.docker("load", input=layer({name: huge}), check=False).stderr
    manifest = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": []}])
    orders: list[dict[str, Node | bytes | str]] = [
        {"c.json": huge, "manifest.json": manifest},
        {"manifest.json": manifest, "c.json": huge},
    ]
    for nodes in orders:
        assert "DOCUMENT_BYTES" in engine.docker("load", input=layer(nodes), check=False).stderr
    assert "unrecognized" in engine.docker("load", input=layer({"c.json": huge}), check=False).stderr
    assert blobs_in(engine) <= before


def broken_archives() -> dict[str, tuple[bytes, str]]:
    """Archives with their error, and a part of its sentence."""
    layers = unique_layers(2, 300)
    whole = docker_archive("broken:1", layers)
    packed_whole = gzip.compress(whole)
    lies = oci_archive("broken:1", layers)
    packed = gzip.compress(layers[0], mtime=0)
    lies = lies.replace(packed, packed[:-1] + bytes([packed[-1] ^ 1]))
    blob = config(layers)
    short = json.dumps([{"Config": "c.json", "RepoTags": ["broken:1"], "Layers": ["l.tar"]}])
    wrong = config([b"something else"])
    index = {"schemaVersion": 2, "manifests": [descriptor(b"{}", "application/vnd.oci.image.manifest.v1+json")]}
    climbing = layer({"../../out": "x"})
    return {
        "nothing": (b"", "unrecognized image format"),
        "words": (b"hello world\n", "unexpected EOF"),
        "a tar of something else": (layer({"x": "y"}), "unrecognized image format"),
        "cut": (whole[: len(whole) // 2], "unexpected EOF"),
        "cut gzip": (packed_whole[: len(packed_whole) // 2], "unexpected EOF"),
        "a blob with another digest": (lies, digest(packed)),
        "too few layers": (
            layer({"c.json": blob, "l.tar": layers[0], "manifest.json": short}),
            "layers length mismatch",
        ),
        "another layer": (layer({"c.json": wrong, "l.tar": layers[0], "manifest.json": short}), "wrong diff id"),
        "no config": (layer({"l.tar": layers[0], "manifest.json": short}), "not found"),
        "manifest is no JSON": (layer({"manifest.json": "{"}), "invalid JSON"),
        "a manifest that is missing": (
            layer({"oci-layout": '{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index)}),
            "no image",
        ),
        "a layer that climbs out": (docker_archive("broken:1", [climbing]), "invalid entry name"),
        "a layer that is no tar": (docker_archive("broken:1", [os.urandom(2048)]), "invalid tar header"),
    }


def test_broken_archives_are_refused(engine: Engine) -> None:
    before = blobs_in(engine)
    for name, (archive, sentence) in broken_archives().items():
        done = engine.docker("load", input=archive, check=False)
        assert done.status == 1, name
        assert sentence in done.output, f"{name}: {done.output}"
        assert "Loaded" not in done.output, name
        assert engine.api.get("/images/broken:1/json").status == 404, name
    # Nothing of them stays, and the next load works.
    assert until(lambda: not blobs_in(engine) - before, seconds=60), blobs_in(engine) - before
    assert "Loaded image: fine:1" in engine.docker("load", input=docker_archive("fine:1", unique_layers())).stdout
