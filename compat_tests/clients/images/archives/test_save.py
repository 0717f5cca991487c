"""`docker save`: the content of the archive; skopeo, dockerd and `ctr` read it."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from compat_tests.clients.images.archives.parsed import files, save
from compat_tests.support.containerd import first_column
from compat_tests.support.engines import Dockerd, Engine, Wharf
from compat_tests.support.images import busybox_layer, digest, docker_archive, oci_archive
from compat_tests.support.polling import until
from compat_tests.support.transfers import unique_layers

pytestmark = pytest.mark.usefixtures("remove_new_images")


def test_content_of_a_saved_archive(engine: Engine, tmp_path: Path) -> None:
    layers = [busybox_layer(), *unique_layers()]
    engine.docker("load", "-q", input=oci_archive("saved:1", layers))
    engine.docker("tag", "saved:1", "saved:2")
    id = engine.api.get("/images/saved:1/json").json()["Id"]
    engine.docker("load", "-q", input=docker_archive("other/saved:1", unique_layers()))
    whole = save(engine, "saved:1")
    assert whole == save(engine, "saved:1")  # byte by byte
    content = files(whole)
    for name, data in content.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    [entry] = json.loads(content["index.json"])["manifests"]
    assert entry["digest"] == id
    assert entry["annotations"] == {
        "io.containerd.image.name": "docker.io/library/saved:1",
        "org.opencontainers.image.ref.name": "1",
    }
    assert json.loads(content["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    [row] = json.loads(content["manifest.json"])
    assert row["RepoTags"] == ["saved:1"]
    assert [digest(gzip.decompress(content[path])) for path in row["Layers"]] == [digest(data) for data in layers]
    # A repository, several names, an id.
    [row] = json.loads(files(save(engine, "saved"))["manifest.json"])
    assert row["RepoTags"] == ["saved:1", "saved:2"]
    rows = json.loads(files(save(engine, "saved:2", "other/saved:1"))["manifest.json"])
    assert [each["RepoTags"] for each in rows] == [["saved:2"], ["other/saved:1"]]
    [row] = json.loads(files(save(engine, id))["manifest.json"])
    assert not row["RepoTags"]
    assert files(engine.api.get("/images/saved:1/get").body) == content
    done = engine.docker("save", "saved:1", "none:1", check=False)
    assert (done.status, done.stdout) == (1, "")
    assert "No such image: none:1" in done.stderr
    # And back: the id is the same.
    target = tmp_path / "saved.tar"
    engine.docker("save", "-o", str(target), "saved:1")
    engine.docker("rmi", "-f", id)
    assert "Loaded image: saved:1" in engine.docker("load", "-i", str(target)).stdout
    assert engine.api.get("/images/saved:1/json").json()["Id"] == id
    pieces = engine.client.images.get("saved:1").save(named=True)
    assert files(b"".join(pieces)) == content


def test_skopeo_reads_a_saved_archive(engine: Engine, tmp_path: Path) -> None:
    layers = [busybox_layer(), *unique_layers()]
    engine.docker("load", "-q", input=oci_archive("witness:1", layers, Labels={"a": "b"}))
    id = engine.api.get("/images/witness:1/json").json()["Id"]
    target = tmp_path / "witness.tar"
    engine.docker("save", "-o", str(target), "witness:1")

    def skopeo(*args: str) -> bytes:
        done = subprocess.run(["skopeo", *args], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    inspected = json.loads(skopeo("inspect", f"oci-archive:{target}"))
    assert (inspected["Digest"], inspected["Labels"]) == (id, {"a": "b"})
    assert json.loads(skopeo("inspect", "--config", f"docker-archive:{target}"))["rootfs"]["diff_ids"] == [
        digest(data) for data in layers
    ]
    # Archives that skopeo writes can be loaded.
    skopeo("copy", "-q", "--insecure-policy", f"oci-archive:{target}", f"docker-archive:{tmp_path}/back.tar:back:1")
    assert "Loaded image: back:1" in engine.docker("load", "-i", str(tmp_path / "back.tar")).stdout
    skopeo("copy", "-q", "--insecure-policy", f"oci-archive:{target}", f"oci-archive:{tmp_path}/oci.tar:back:2")
    assert "Loaded image" in engine.docker("load", "-i", str(tmp_path / "oci.tar")).stdout


def test_dockerd_loads_a_saved_archive(engine: Engine, oracle: Dockerd, tmp_path: Path) -> None:
    layers = [busybox_layer(), *unique_layers()]
    engine.docker("load", "-q", input=docker_archive("there:1", layers, Cmd=["ls", "/"]))
    archive = save(engine, "there:1")
    assert "Loaded image: there:1" in oracle.docker("load", input=archive).stdout
    try:
        assert oracle.docker("run", "--rm", "--network", "none", "there:1").stdout.count("file") == 2
        oracle.docker("tag", "there:1", "back:1")
        back = oracle.api.get("/images/get", names="back:1").body
    finally:
        oracle.docker("rmi", "-f", "there:1", "back:1")
    assert "Loaded image: back:1" in engine.docker("load", input=back).stdout
    assert engine.docker("run", "--rm", "--network", "none", "back:1").stdout.count("file") == 2
    mine, theirs = (engine.api.get(f"/images/{name}/json").json()["RootFS"] for name in ("there:1", "back:1"))
    assert mine == theirs


def test_ctr_imports_a_saved_archive(engine: Engine, tmp_path: Path) -> None:
    """containerd's own tool on our supervisor's socket, in a namespace of its own."""
    engine.docker("load", "-q", input=oci_archive("forctr:1", [busybox_layer(), *unique_layers()]))
    id = engine.api.get("/images/forctr:1/json").json()["Id"]
    target = tmp_path / "ctr.tar"
    engine.docker("save", "-o", str(target), "forctr:1")
    assert isinstance(engine, Wharf)
    ctr = functools.partial(engine.ctr, namespace="witness")
    # not by the transfer service, the default of newer versions
    ctr("images", "import", "--local", str(target))
    try:
        assert id in ctr("images", "ls").stdout
        ctr("images", "export", "--local", str(tmp_path / "back.tar"), "docker.io/library/forctr:1")
    finally:
        ctr("images", "rm", "--sync", "docker.io/library/forctr:1")
        # Nothing refers to them any more: the collector removes them.
        assert until(lambda: not first_column(ctr("snapshots", "ls").stdout))
    engine.docker("rmi", "forctr:1")
    assert "Loaded image: forctr:1" in engine.docker("load", "-i", str(tmp_path / "back.tar")).stdout
    assert engine.api.get("/images/forctr:1/json").json()["Id"] == id
