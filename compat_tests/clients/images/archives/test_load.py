"""`docker load`: formats, compressions, names, and how the layers are unpacked."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from compat_tests.clients.images.archives.parsed import files, save
from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.images import Node, busybox_layer, config, docker_archive, layer, oci_archive
from compat_tests.support.transfers import unique_layers

pytestmark = pytest.mark.usefixtures("remove_new_images")


@pytest.mark.core
def test_formats_and_compressions(engine: Engine) -> None:
    packers = {
        "none": lambda data: data,
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lambda data: lzma.compress(data, preset=0),
        "zstd": zstandard.ZstdCompressor(level=1).compress,
    }
    for number, (name, pack) in enumerate(packers.items()):
        make = (docker_archive, oci_archive)[number % 2]
        output = engine.docker("load", input=pack(make(f"packed-{name}:1", unique_layers()))).stdout
        assert f"Loaded image: packed-{name}:1" in output
    layers = [busybox_layer(), *unique_layers()]
    engine.docker("load", "-q", input=oci_archive("runs:1", layers))
    assert engine.docker("run", "--rm", "--network", "none", "runs:1", "ls", "/").stdout.count("file") == 2
    # The same archive again, and another archive with its name.
    assert engine.docker("load", input=oci_archive("runs:1", layers)).stdout == "Loaded image: runs:1\n"
    old = engine.api.get("/images/runs:1/json").json()["Id"]
    output = engine.docker("load", input=oci_archive("runs:1", [busybox_layer(), *unique_layers()])).stdout
    assert output.splitlines() == [
        f"The image runs:1 already exists, renaming the old one with ID {old} to empty string",
        "Loaded image: runs:1",
    ]
    [image] = engine.client.images.load(docker_archive("bypy:1", unique_layers()))
    assert image.tags == ["bypy:1"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_packed_layers_in_an_archive(engine: Engine, oracle: Dockerd, pack: Callable[[bytes], bytes]) -> None:
    """The compressions that dockerd accepts; bytes after the end of a layer's archive count for its digest."""
    layers = [busybox_layer(), layer({"large": os.urandom(2 << 20)}) + bytes(1 << 20), layer({"small": b"x"})]
    packed = [pack(data) for data in layers]
    document = config(layers)
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["layers:1"], "Layers": names}])
    archive = layer({"c.json": document, **dict(zip(names, packed, strict=True)), "manifest.json": manifest})
    for each in (engine, oracle):
        assert each.docker("load", input=archive).stdout == "Loaded image: layers:1\n"
        ran = each.docker("run", "--rm", "--network", "none", "layers:1", "sh", "-c", "wc -c < /large; cat /small")
        assert ran.stdout == f"{2 << 20}\nx"
    oracle.docker("rmi", "layers:1")
    # A saved image is complete when it is loaded again.
    saved = save(engine, "layers:1")
    engine.docker("rmi", "layers:1")
    engine.docker("load", input=saved)
    assert engine.docker("run", "--rm", "--network", "none", "layers:1", "cat", "/small").stdout == "x"
    data = layer({"other": os.urandom(1000)})
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["broken:1"], "Layers": ["layer.tar"]}])
    archive = layer({"c.json": config([data]), "layer.tar": pack(data)[:-99], "manifest.json": manifest})
    for each in (engine, oracle):
        assert each.docker("load", input=archive, check=False).status == 1


def test_annotations_of_an_archives_index(engine: Engine) -> None:
    """As dockerd 28.5 with containerd's store: inspect and list show all names, a saved archive the current ones."""
    before = files(oci_archive("annotated:1", unique_layers(1)))
    index = json.loads(before["index.json"])
    annotations = index["manifests"][0]["annotations"]
    annotations["my.own"] = "value"
    engine.docker("load", input=layer({**before, "index.json": json.dumps(index)}))
    document = engine.api.get("/images/annotated:1/json").json()
    assert document["Descriptor"]["annotations"] == annotations
    [listed] = engine.api.get("/images/json", filters=json.dumps({"reference": ["annotated:1"]}), manifests=1).json()
    assert listed["Descriptor"]["annotations"] == annotations
    assert list(listed["Descriptor"]["annotations"]) == sorted(annotations)
    engine.docker("tag", "annotated:1", "other:2")
    named = {"io.containerd.image.name": "docker.io/library/other:2", "org.opencontainers.image.ref.name": "2"}
    for name, shown in (("other:2", {**named, "my.own": "value"}), (document["Id"], {"my.own": "value"})):
        [entry] = json.loads(files(save(engine, name))["index.json"])["manifests"]
        assert entry["annotations"] == shown


def test_archive_without_oci_layout(engine: Engine) -> None:
    """A directory per layer, links to shared layers, several images, one without a name."""
    shared, own = busybox_layer(), unique_layers(1)[0]
    one, two = config([shared]), config([shared, own])
    name, other = hashlib.sha256(one).hexdigest(), hashlib.sha256(two).hexdigest()
    manifest = [
        {"Config": f"{name}.json", "RepoTags": ["old/one:1", "old/one:2"], "Layers": ["a/layer.tar"]},
        {"Config": f"{other}.json", "RepoTags": None, "Layers": ["b/layer.tar", "c/layer.tar"]},
    ]
    archive = layer(
        {
            "a": Node(kind=tarfile.DIRTYPE, mode=0o755),
            "a/VERSION": "1.0",
            "a/json": "{}",
            "a/layer.tar": shared,
            "b/layer.tar": Node(kind=tarfile.SYMTYPE, link="../a/layer.tar"),
            "c/layer.tar": own,
            f"{name}.json": one,
            f"{other}.json": two,
            "manifest.json": json.dumps(manifest),
            "repositories": "{}",
        }
    )
    lines = engine.docker("load", input=archive).stdout.splitlines()
    assert lines[:2] == ["Loaded image: old/one:1", "Loaded image: old/one:2"]
    assert lines[2].startswith("Loaded image ID: sha256:")
    found = engine.api.get(f"/images/{lines[2].partition(': ')[2]}/json").json()
    assert found["RepoTags"] == []
    assert len(found["RootFS"]["Layers"]) == 2
    engine.docker("rmi", lines[2].partition(": ")[2])


def test_image_exists_when_the_response_head_arrives(engine: Engine) -> None:
    """Some clients read only the response head."""
    for number in range(3):
        connection = engine.api.connection()
        try:
            connection.request("POST", "/images/load?quiet=1", body=docker_archive(f"head:{number}", unique_layers()))
            assert connection.getresponse().status == 200
            assert engine.api.get(f"/images/head:{number}/json").status == 200
        finally:
            connection.close()


def test_hostile_layers_stay_inside(engine: Engine) -> None:
    """A hostile archive stays inside its root; whiteouts hide files, hard links are kept."""
    first = layer(
        {
            "dir": Node(kind=tarfile.DIRTYPE, mode=0o751),
            "dir/gone": "x",
            "dir/stays": "y",
            "opaque": Node(kind=tarfile.DIRTYPE, mode=0o755),
            "opaque/below": "z",
            "/absolute": "inside",
            "link": Node(kind=tarfile.SYMTYPE, link="/etc"),
            "suid": Node(b"s", mode=0o4755),
            "hard": Node(kind=tarfile.LNKTYPE, link="absolute"),
            "twice": "one",
        }
    )
    second = layer(
        {
            "dir/.wh.gone": "",
            "opaque/.wh..wh..opq": "",
            "opaque/new": "n",
            "link/through": "in the image's own etc",
            "twice": "two",
            "a" * 90 + "/" + "b" * 90: "long",
            "dev-null": Node(kind=tarfile.CHRTYPE),
        }
    )
    engine.docker("load", "-q", input=docker_archive("tricks:1", [busybox_layer(), first, second]))
    script = (
        "ls dir opaque; cat absolute twice; echo; stat -c '%a %h' dir suid absolute;"
        "cat /etc/through; echo; cat a*/b*; test ! -e dir/gone"
    )
    output = engine.docker("run", "--rm", "--network", "none", "tricks:1", "sh", "-c", script).stdout
    assert output.splitlines() == [
        *("dir:", "stays", "", "opaque:", "new"),
        "insidetwo",
        *("751 1", "4755 1", "644 2"),
        "in the image's own etc",
        "long",
    ]
    assert not Path("/etc/through").exists()
    outside = {"hard link": Node(kind=tarfile.LNKTYPE, link="../../../../etc/passwd"), "climb": None}
    for name, node in outside.items():
        nodes: dict[str, Node | bytes | str] = {"x": node} if node else {"y/../../../x": "out"}
        done = engine.docker("load", input=docker_archive("outside:1", [layer(nodes)]), check=False)
        assert done.status == 1, name
        assert engine.api.get("/images/outside:1/json").status == 404
