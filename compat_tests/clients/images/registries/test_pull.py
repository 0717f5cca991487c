"""Pulls from Debian's docker-registry: names, platforms, media types and compressions of an image."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess

import docker.errors
import pytest
import zstandard

from compat_tests.support.engines import Engine
from compat_tests.support.images import busybox_layer, descriptor, digest, docker_archive, oci_archive, short_digest
from compat_tests.support.servers.loopback import LoopbackServer, QuietHandler
from compat_tests.support.servers.registry import Registry
from compat_tests.support.transfers import (
    OCI,
    layer_statuses,
    manifest,
    progress_messages,
    put_blob,
    put_manifest,
    tags,
    unique_layers,
)

pytestmark = pytest.mark.usefixtures("remove_new_images")

DOCKER = "application/vnd.docker"
LIFE = ["Pulling fs layer", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"]


@pytest.mark.core
def test_pull_by_tag_by_digest_and_all_tags(engine: Engine, plain_registry: Registry) -> None:
    layers = [busybox_layer(), *unique_layers()]
    archive = oci_archive("app:1", layers)
    for tag in ("app:1", "app:2", "app:latest"):
        plain_registry.copy_archive(archive, tag, format="oci-archive")
    name = plain_registry.name("app")
    messages = progress_messages(engine, "POST", "/images/create", fromImage=name, tag="1")
    packed = [gzip.compress(data, mtime=0) for data in layers]
    assert messages[0] == {"status": "Pulling from app", "id": "1"}
    for data in packed[1:]:
        assert layer_statuses(messages, short_digest(data)) == LIFE
    id = engine.api.get(f"/images/{name}:1/json").json()["Id"]
    assert messages[-2:] == [
        {"status": f"Digest: {id}"},
        {"status": f"Status: Downloaded newer image for {name}:1"},
    ]
    again = engine.docker("pull", f"{name}:1").stdout.splitlines()
    assert again == [
        "1: Pulling from app",
        f"Digest: {id}",
        f"Status: Image is up to date for {name}:1",
        f"{name}:1",
    ]
    assert engine.docker("pull", "-q", f"{name}@{id}").stdout.strip() == f"{name}@{id}"
    # Existing blobs are still requested: the other repository lacks them.
    elsewhere = engine.docker("pull", f"{plain_registry.name('elsewhere')}@{id}", check=False)
    assert elsewhere.status == 1
    assert "not found" in elsewhere.stderr
    assert "Using default tag: latest" in engine.docker("pull", name).stdout
    everything = engine.docker("pull", "-a", name).stdout
    assert everything.count("Pulling from app") == 3
    assert {f"{name}:1", f"{name}:2", f"{name}:latest"} <= tags(engine)
    image = engine.client.images.pull(name, tag="2")
    assert image.id == id
    assert engine.docker("run", "--rm", "--network", "none", f"{name}:2", "ls", "/").stdout.count("file") == 2
    witness = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}:1"], capture_output=True, timeout=60, check=True
    )
    assert json.loads(witness.stdout)["Digest"] == id


def test_missing_images_tags_and_platforms(engine: Engine, plain_registry: Registry) -> None:
    plain_registry.copy_archive(docker_archive("known:1", unique_layers()), "known:1")
    name = plain_registry.name("known")
    done = engine.docker("pull", f"{name}:none", check=False)
    assert done.status == 1
    assert f'failed to resolve reference "{name}:none": {name}:none: not found' in done.stderr
    with pytest.raises(docker.errors.NotFound):
        engine.client.images.pull(plain_registry.name("never"), tag="1")
    zeros = "sha256:" + "0" * 64
    assert f"{name}@{zeros}: not found" in engine.docker("pull", f"{name}@{zeros}", check=False).stderr
    done = engine.docker("pull", "127.0.0.1:1/app:1", check=False)
    assert "dial tcp 127.0.0.1:1: connect: connection refused" in done.stderr
    assert "invalid reference format" in engine.api.post("/images/create", fromImage="UPPER").message
    assert "must be of form" in engine.api.post("/images/create", fromImage=f"{name}:1", platform="a/b/c/d").message
    # A working registry whose image lacks the platform.
    done = engine.docker("pull", "--platform", "linux/s390x", f"{name}:1", check=False)
    assert done.status == 1
    assert "does not provide the specified platform (linux/s390x)" in done.output


def test_indexes_and_platforms(engine: Engine, plain_registry: Registry) -> None:
    entries = []
    for architecture in ("amd64", "arm64"):
        layers = unique_layers(1)
        packed = [gzip.compress(layers[0], mtime=0)]
        data, blob = manifest(layers, packed, [f"{OCI}.layer.v1.tar+gzip"], Cmd=[architecture])
        blob = blob.replace(b'"architecture": "amd64"', f'"architecture": "{architecture}"'.encode())
        document = json.loads(data) | {"config": descriptor(blob, f"{OCI}.config.v1+json")}
        data = json.dumps(document).encode()
        for part in (blob, packed[0]):
            put_blob(plain_registry, "many", part)
        put_manifest(plain_registry, "many", data, f"{OCI}.manifest.v1+json")
        platform = {"architecture": architecture, "os": "linux"}
        entries.append(descriptor(data, f"{OCI}.manifest.v1+json", platform=platform))
    index = json.dumps({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": entries}).encode()
    put_manifest(plain_registry, "many", index, f"{OCI}.index.v1+json", tag="1")
    name = plain_registry.name("many:1")
    assert f"Digest: {digest(index)}" in engine.docker("pull", "--platform", "linux/amd64", name).stdout
    document = engine.api.get(f"/images/{name}/json", manifests=1).json()
    assert document["Id"] == digest(index)
    assert document["Config"]["Cmd"] == ["amd64"]
    assert [entry["Available"] for entry in document["Manifests"]] == [True, False]
    engine.docker("pull", "--platform", "linux/arm64", name)
    document = engine.api.get(f"/images/{name}/json", manifests=1).json()
    assert [entry["Available"] for entry in document["Manifests"]] == [True, True]
    assert [entry["ImageData"]["Platform"]["architecture"] for entry in document["Manifests"]] == ["amd64", "arm64"]
    one = engine.api.get(f"/images/{name}/json", platform='{"os":"linux","architecture":"arm64"}').json()
    assert one["Config"]["Cmd"] == ["arm64"]
    done = engine.docker("pull", "--platform", "linux/riscv64", name, check=False)
    assert "no matching manifest for linux/riscv64 in the manifest list entries" in done.output
    with pytest.raises(docker.errors.NotFound, match="no matching manifest for linux/riscv64"):
        engine.client.images.pull(name, platform="linux/riscv64")
    # All blobs are local: the index is pushed unchanged.
    engine.docker("tag", name, plain_registry.name("again:1"))
    assert f"digest: {digest(index)}" in engine.docker("push", plain_registry.name("again:1")).stdout


@pytest.mark.core
def test_layer_media_types_and_compressions(engine: Engine, plain_registry: Registry) -> None:
    layers = unique_layers(4)
    packed = [
        gzip.compress(layers[0], mtime=0),
        zstandard.ZstdCompressor().compress(layers[1]),
        layers[2],
        gzip.compress(layers[3][:600], mtime=0) + gzip.compress(layers[3][600:], mtime=0),
    ]
    kinds = [f"{OCI}.layer.v1.tar+{kind}".rstrip("+") for kind in ("gzip", "zstd", "", "gzip")]
    data, blob = manifest([busybox_layer(), *layers], [busybox_layer(), *packed], [f"{OCI}.layer.v1.tar", *kinds])
    for part in (blob, busybox_layer(), *packed):
        put_blob(plain_registry, "kinds", part)
    put_manifest(plain_registry, "kinds", data, f"{OCI}.manifest.v1+json", tag="1")
    engine.docker("pull", plain_registry.name("kinds:1"))
    name = plain_registry.name("kinds:1")
    shown = engine.docker("run", "--rm", "--network", "none", name, "sha256sum", "/file2", "/file3")
    for number in (2, 3):
        assert hashlib.sha256(layers[number][512:612]).hexdigest() in shown.stdout
    # The same image in Docker's own format.
    plain_registry.copy_archive(docker_archive("schema2:1", [busybox_layer(), *unique_layers()]), "schema2:1")
    engine.docker("pull", plain_registry.name("schema2:1"))
    found = engine.api.get(f"/images/{plain_registry.name('schema2:1')}/json").json()
    assert found["Descriptor"]["mediaType"] == f"{DOCKER}.distribution.manifest.v2+json"


def test_foreign_layers_are_downloaded(engine: Engine, plain_registry: Registry) -> None:
    layers = unique_layers()
    packed = [gzip.compress(data, mtime=0) for data in layers]
    requests: list[str] = []

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(packed[0])))
            self.end_headers()
            self.wfile.write(packed[0])

    with LoopbackServer(Handler) as server:
        foreign = f"{OCI}.layer.nondistributable.v1.tar+gzip"
        data, blob = manifest(layers, packed, [foreign, f"{OCI}.layer.v1.tar+gzip"])
        document = json.loads(data)
        document["layers"][0]["urls"] = [f"http://{server.address}/foreign"]
        data = json.dumps(document).encode()
        for part in (blob, packed[1]):
            put_blob(plain_registry, "foreign", part)
        put_manifest(plain_registry, "foreign", data, f"{OCI}.manifest.v1+json", tag="1")
        engine.docker("pull", plain_registry.name("foreign:1"))
    assert requests == ["/foreign"]
    # Blobs of foreign layers are not pushed.
    engine.docker("tag", plain_registry.name("foreign:1"), plain_registry.name("foreign:2"))
    engine.docker("push", plain_registry.name("foreign:2"))
    assert not plain_registry.blob(digest(packed[0])).exists()
