"""Sizes and archives compared with a dockerd that uses the containerd image store, as Wharf does."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.support import engines
from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.images import busybox_layer, docker_archive, layer, oci_archive

NAMES = ("sized-oci:1", "sized-archive:1", "busybox:latest")


@pytest.fixture(scope="module")
def store() -> Iterator[Dockerd]:
    with engines.dockerd("store", containerd_store=True) as found:
        found.load_busybox()
        yield found


@pytest.fixture(scope="module")
def loaded(engine: Engine, store: Dockerd) -> Iterator[tuple[Engine, Engine]]:
    """Both engines with the same images."""
    for make, name in ((oci_archive, NAMES[0]), (docker_archive, NAMES[1])):
        # The images share no layer: dockerd treats a layer with another compression as the same one.
        archive = make(name, [busybox_layer() if make is docker_archive else layer({"small": name}), big()])
        for each in (engine, store):
            each.docker("load", "-q", input=archive)
    yield engine, store
    engine.docker("rmi", *NAMES[:2])


def big() -> bytes:
    return layer({"big": os.urandom(3 << 20)})


def sizes(engine: Engine, name: str) -> dict[str, Any]:
    [listed] = engine.api.get("/images/json", filters=json.dumps({"reference": [name]})).json()
    inspected = engine.api.get(f"/images/{name}/json").json()
    history = engine.api.get(f"/images/{name}/history").json()
    return {
        "Id": inspected["Id"],
        "listed": listed["Size"],
        "inspected": inspected["Size"],
        "history": [row["Size"] for row in history],
    }


def test_sizes_in_list_and_inspect(loaded: tuple[Engine, Engine]) -> None:
    """`docker images` shows content plus unpacked layers; inspect shows the content only."""
    ours, theirs = loaded
    for name in NAMES:
        assert sizes(ours, name) == sizes(theirs, name)
    format = "{{.Repository}} {{.Size}}"
    output = [sorted(each.docker("images", "--format", format, "sized-*").stdout.splitlines()) for each in loaded]
    assert output[0] == output[1]


def test_the_manifest_of_an_archive(loaded: tuple[Engine, Engine]) -> None:
    """Configs are named as in the OCI layout, and an image's id is its manifest's digest. Tools that mix up the two
    (Ansible's docker_image_export) rewrite the archive on every run, with dockerd too."""
    for name in NAMES:
        found = []
        for each in loaded:
            with tarfile.open(fileobj=io.BytesIO(each.api.get("/images/get", names=name).body)) as archive:
                file = archive.extractfile("manifest.json")
                assert file is not None
                [row] = json.load(file)
            id = each.api.get(f"/images/{name}/json").json()["Id"]
            id_from_the_config = "sha256:" + os.path.splitext(row["Config"])[0].removeprefix("blobs/sha256/")
            found.append(({key: row[key] for key in ("Config", "RepoTags", "Layers")}, id, id_from_the_config == id))
        assert found[0] == found[1]
        assert not found[0][2]
