"""`docker load` of archives of Docker before 1.10: no manifest, one directory for each layer."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile

import pytest

from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.images import Node, busybox_layer, digest, layer
from compat_tests.support.transfers import unique_layers

pytestmark = pytest.mark.usefixtures("remove_new_images")


def v1_archive(layers: list[bytes], tags: dict[str, dict[str, int]], **last: object) -> tuple[bytes, list[str]]:
    """An archive of Docker before 1.10, and the ids of its directories: each layer's parent is the previous one."""
    ids = [hashlib.sha256(b"v1" + data).hexdigest() for data in layers]
    nodes: dict[str, Node | bytes | str] = {}
    for number, (id, data) in enumerate(zip(ids, layers, strict=True)):
        document: dict[str, object] = {
            "id": id,
            "created": f"2015-01-0{number + 1}T00:00:00Z",
            "container_config": {"Cmd": ["/bin/sh", "-c", f"#(nop) step {number}"]},
            "docker_version": "1.9.1",
            "config": {"Cmd": ["ls", "/"], "Env": ["A=b"]},
            "architecture": "amd64",
            "os": "linux",
            "Size": len(data),
        }
        if number:
            document["parent"] = ids[number - 1]
        if number == len(layers) - 1:
            document.update(last)
        nodes |= {f"{id}/": Node(kind=tarfile.DIRTYPE, mode=0o755), f"{id}/VERSION": "1.0"}
        nodes |= {f"{id}/json": json.dumps(document), f"{id}/layer.tar": data}
    named = {name: {tag: ids[number] for tag, number in found.items()} for name, found in tags.items()}
    return layer({**nodes, "repositories": json.dumps(named)}), ids


@pytest.mark.core
def test_an_archive_without_a_manifest(engine: Engine) -> None:
    """An archive of Docker before 1.10: only `repositories`, and directories that name their parents."""
    layers = [busybox_layer(), *unique_layers()]
    archive, _ = v1_archive(layers, {"ancient": {"1": 2, "base": 1}, "lab:5000/ancient": {"1": 2}})
    output = engine.docker("load", input=archive).stdout.splitlines()
    assert sorted(output) == sorted(
        f"Loaded image: {name}" for name in ("ancient:1", "ancient:base", "lab:5000/ancient:1")
    )
    assert engine.docker("run", "--rm", "--network", "none", "ancient:1").stdout.count("file") == 2
    found = engine.api.get("/images/ancient:1/json").json()
    assert found["RootFS"]["Layers"] == [digest(data) for data in layers]
    assert engine.api.get("/images/ancient:base/json").json()["RootFS"]["Layers"] == [
        digest(data) for data in layers[:2]
    ]
    engine.docker("rmi", "ancient:1", "ancient:base", "lab:5000/ancient:1")
    # Without names, a directory that is no other's parent is an image; a layer may be compressed.
    archive, _ = v1_archive([gzip.compress(data, mtime=0) for data in layers], {})
    [line] = engine.docker("load", input=archive).stdout.splitlines()
    id = line.removeprefix("Loaded image ID: ")
    assert engine.api.get(f"/images/{id}/json").json()["RootFS"]["Layers"] == [digest(data) for data in layers]
    engine.docker("rmi", id)
    first, last = (hashlib.sha256(b"v1" + data).hexdigest() for data in (layers[0], layers[-1]))
    for wrong, sentence in (
        ({"parent": last}, "its own ancestor"),
        ({"parent": "0" * 64}, "invalid parent ID"),
        ({"parent": "../" + first}, "invalid parent ID"),
        ({"id": first}, "is invalid"),
        ({"os": "windows"}, "cannot load windows image on linux"),
    ):
        archive, _ = v1_archive(layers, {"ancient": {"1": 2}}, **wrong)
        assert sentence in engine.docker("load", input=archive, check=False).stderr
    repositories = json.dumps({"ancient": {"1": "0" * 64}})
    archive = layer({f"{first}/json": json.dumps({"id": first}), "repositories": repositories})
    assert "invalid target ID" in engine.docker("load", input=archive, check=False).stderr


def test_archive_without_a_manifest_gives_dockerds_image(engine: Engine, oracle: Dockerd) -> None:
    layers = [busybox_layer(), *unique_layers()]
    archive, _ = v1_archive(layers, {"ancient": {"1": 2}}, author="ali", comment="c", throwaway=True)
    found = []
    for each in (engine, oracle):
        each.docker("load", "-q", input=archive)
        document = each.api.get("/images/ancient:1/json").json()
        names = ("Architecture", "Os", "Author", "Created", "RootFS", "RepoTags")
        command = {name: document["Config"].get(name) for name in ("Cmd", "Env", "Entrypoint")}
        rows = each.api.get("/images/ancient:1/history").json()
        history = [(row["Created"], row["CreatedBy"], row["Comment"]) for row in rows]
        found.append(({name: document.get(name) for name in names}, command, history))
        each.docker("rmi", "ancient:1")
    assert found[0] == found[1]
