"""Pushes to Debian's docker-registry, and queries to it."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.images import busybox_layer, digest, oci_archive, short_digest
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry
from compat_tests.support.servers.registry_proxy import Cut, RecordedRequest, RegistryProxy, Reply
from compat_tests.support.transfers import OCI, layer_statuses, progress_messages, unique_layers

pytestmark = pytest.mark.usefixtures("remove_new_images")

DOCKER = "application/vnd.docker"
MIB = 1 << 20


@pytest.mark.core
def test_push_uploads_each_blob_once(engine: Engine, plain_registry: Registry) -> None:
    layers = [busybox_layer(), *unique_layers()]
    engine.docker("load", "-q", input=oci_archive("pushed:1", layers))
    first = f"one-{engine.kind}/app"  # blobs that another engine has pushed would not be pushed again
    second = f"two-{engine.kind}/app"
    one, two = plain_registry.name(f"{first}:1"), plain_registry.name(f"{second}:1")
    engine.docker("tag", "pushed:1", one)
    id = engine.api.get("/images/pushed:1/json").json()["Id"]
    size = engine.api.get("/images/pushed:1/json").json()["Descriptor"]["size"]
    messages = progress_messages(engine, "POST", f"/images/{plain_registry.name(first)}/push", tag="1")
    assert messages[0] == {"status": f"The push refers to repository [{plain_registry.name(first)}]"}
    for data in layers:
        assert layer_statuses(messages, short_digest(gzip.compress(data, mtime=0))) == ["Preparing", "Pushed"]
    assert messages[-2] == {"status": f"1: digest: {id} size: {size}"}
    assert messages[-1] == {"progressDetail": {}, "aux": {"Tag": "1", "Digest": id, "Size": size}}
    assert engine.docker("push", one).stdout.count("Layer already exists") == 3
    engine.docker("tag", "pushed:1", two)
    assert engine.docker("push", two).stdout.count(f"Mounted from {first}") == 3
    assert engine.docker("push", "-q", two).stdout.strip() == two
    inspected = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{two}"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert digest(inspected.stdout) == id
    engine.docker("tag", "pushed:1", plain_registry.name(f"{second}:2"))
    everything = engine.docker("push", "-a", plain_registry.name(second)).stdout
    assert f"1: digest: {id}" in everything
    assert f"2: digest: {id}" in everything
    done = engine.docker("push", plain_registry.name(f"{second}:3"), check=False)
    assert f"tag does not exist: {plain_registry.name(f'{second}:3')}" in done.output
    for option in ("--all-tags", "--all-tags=false"):
        done = engine.docker("push", option, plain_registry.name("never"), check=False)
        assert f"An image does not exist locally with the tag: {plain_registry.name('never')}" in done.output
    lines = [json.loads(line) for line in engine.client.api.push(one, stream=True, decode=False)]
    assert lines[-1]["aux"]["Digest"] == id


def test_every_repository_that_may_have_a_blob_is_tried(engine: Engine, plain_registry: Registry) -> None:
    """The repository of the last push is gone: the registry starts an upload, and the blob is mounted from another
    one."""
    engine.docker("load", "-q", input=oci_archive("mounted:1", unique_layers()))
    names = [f"mount-{name}/app" for name in ("one", "two", "three", "four", "five", "new")]
    for name in names:
        engine.docker("tag", "mounted:1", f"{plain_registry.name(name)}:1")
    for name in names[:-1]:
        engine.docker("push", "-q", f"{plain_registry.name(name)}:1")
    for name in names[1:-1]:
        shutil.rmtree(plain_registry.root / "docker/registry/v2/repositories" / name)
    pushed = engine.docker("push", f"{plain_registry.name(names[-1])}:1").stdout
    assert pushed.count(f"Mounted from {names[0]}") == 2
    # Uploads started meanwhile are cancelled: of two layers and a config, in four repositories.
    assert until(lambda: plain_registry.log.read_text().count(f'"DELETE /v2/{names[-1]}/blobs/uploads/') == 12)


def test_interrupted_push_resumes(engine: Engine, plain_registry: Registry) -> None:
    layers = unique_layers(1, 3 * MIB)
    engine.docker("load", "-q", input=oci_archive("broken:1", layers))
    cuts = iter([MIB])

    def rule(request: RecordedRequest) -> Cut | None:
        large = request.method == "PATCH" and int(request.headers.get("content-length", "0")) > MIB
        return Cut(after) if large and (after := next(cuts, 0)) else None

    with RegistryProxy(plain_registry.address, rule) as proxy:
        name = f"{proxy.address}/halfway:1"
        engine.docker("tag", "broken:1", name)
        engine.docker("push", name)
        assert len(proxy.requests_for("PATCH", "/uploads/")) >= 2
    blob = gzip.compress(layers[0], mtime=0)
    assert plain_registry.blob(digest(blob)).read_bytes() == blob


def test_search_and_distribution_requests(engine: Engine, plain_registry: Registry, tmp_path: Path) -> None:
    layers = unique_layers()
    plain_registry.copy_archive(oci_archive("asked:1", layers), "asked:1", format="oci-archive")
    name = plain_registry.name("asked:1")
    answer = engine.api.get(f"/distribution/{name}/json").json()
    assert answer["Descriptor"]["mediaType"] == f"{OCI}.manifest.v1+json"
    assert answer["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    assert engine.api.get(f"/distribution/{plain_registry.name('none:1')}/json").status == 404
    assert engine.client.images.get_registry_data(name).id == answer["Descriptor"]["digest"]
    inspected = json.loads(engine.docker("manifest", "inspect", "--insecure", name).stdout)
    assert len(inspected["layers"]) == 2
    inspected = engine.docker("buildx", "imagetools", "inspect", name).stdout
    assert answer["Descriptor"]["digest"] in inspected
    done = engine.docker("search", f"{plain_registry.address}/something", check=False)
    assert done.status == 1
    assert "Unexpected status code 404" in done.stderr
    found = {"name": "a/b", "description": "x", "star_count": 3, "is_official": False, "is_automated": False}
    index = Reply(200, json.dumps({"results": [found]}).encode(), {"Content-Type": "application/json"})
    with RegistryProxy(
        plain_registry.address, lambda request: index if "/v1/search" in request.path else None
    ) as proxy:
        assert "a/b" in engine.docker("search", "--limit", "5", f"{proxy.address}/b").stdout
        assert proxy.requests[-1].path.partition("?")[2] in ("q=b&n=5", "n=5&q=b")
        assert "a/b" not in engine.docker("search", "--filter", "stars=4", f"{proxy.address}/b").stdout


def test_indexes_of_docker_manifest_and_imagetools(engine: Engine, plain_registry: Registry) -> None:
    """``docker manifest`` and ``buildx imagetools`` create indexes of pushed images; they can be pulled as one
    image."""
    names = [plain_registry.name(f"parts:{architecture}") for architecture in ("amd64", "arm64")]
    for name in names:
        engine.docker("load", "-q", input=oci_archive("part:1", [busybox_layer(), *unique_layers(1)]))
        engine.docker("tag", "part:1", name)
        engine.docker("push", "-q", name)
    whole, made = plain_registry.name("whole:1"), plain_registry.name("made:1")
    engine.docker("manifest", "create", "--insecure", whole, *names)
    engine.docker("manifest", "annotate", "--arch", "arm64", "--os", "linux", whole, names[1])
    pushed = engine.docker("manifest", "push", "--insecure", whole).stdout.split()[-1]
    assert pushed.startswith("sha256:")
    inspected = json.loads(engine.docker("manifest", "inspect", "--insecure", whole).stdout)
    assert [each["platform"]["architecture"] for each in inspected["manifests"]] == ["amd64", "arm64"]
    engine.docker("rmi", *names)
    assert f"Digest: {pushed}" in engine.docker("pull", whole).stdout
    assert engine.api.get(f"/images/{whole}/json").json()["Architecture"] == "amd64"
    engine.docker("run", "--rm", "--network", "none", whole, "true")
    engine.docker("buildx", "imagetools", "create", "-t", made, whole)
    raw = engine.docker("buildx", "imagetools", "inspect", "--raw", made).stdout
    assert {each["digest"] for each in json.loads(raw)["manifests"]} == {
        each["digest"] for each in inspected["manifests"]
    }
    answer = engine.api.get(f"/distribution/{made}/json").json()
    assert [platform["architecture"] for platform in answer["Platforms"]] == ["amd64", "arm64"]
