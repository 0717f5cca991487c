"""Images of several platforms: every call with ``platform`` or ``platforms`` (API 1.46 to 1.51)."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compat_tests.support.api import Api
from compat_tests.support.disk import content_store
from compat_tests.support.engines import Engine
from compat_tests.support.images import busybox_layer, config, descriptor, digest, layer
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry
from compat_tests.support.transfers import OCI, progress_messages, request_registry

AMD64, ARM64 = '{"os":"linux","architecture":"amd64"}', '{"os":"linux","architecture":"arm64"}'


@dataclass(frozen=True, slots=True)
class Platforms:
    """An archive with an index of some platforms, which share their first layer."""

    name: str
    index: str
    manifests: tuple[str, ...]
    archive: bytes


def made(*platforms: str, without: str = "", name: str = "") -> Platforms:
    """An archive with these platforms, such as `amd64/v2`, or amd64 and arm64; it lacks the content of `without`. With
    a `name`, it is the same everywhere: it has no programs."""
    base = [] if name else [busybox_layer()]
    name = name or f"two-{uuid.uuid4().hex[:8]}"
    blobs: dict[str, bytes] = {}
    entries = []
    for text in platforms or ("amd64", "arm64"):
        architecture, _, variant = text.partition("/")
        platform = {"architecture": architecture, "os": "linux"} | ({"variant": variant} if variant else {})
        layers = [*base, layer({"which": f"{text} of {name}"})]
        blob = json.dumps({**json.loads(config(layers, Cmd=["cat", "/which"])), **platform}).encode()
        data = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{OCI}.manifest.v1+json",
                "config": descriptor(blob, f"{OCI}.config.v1+json"),
                "layers": [descriptor(one, f"{OCI}.layer.v1.tar") for one in layers],
            }
        ).encode()
        blobs |= {digest(one): one for one in (blob, *layers, data) if text != without}
        entries.append(descriptor(data, f"{OCI}.manifest.v1+json", platform=platform))
    document = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": entries}
    index = json.dumps(document).encode()
    blobs[digest(index)] = index
    named = {"io.containerd.image.name": f"docker.io/library/{name}:1", "org.opencontainers.image.ref.name": "1"}
    top = {"schemaVersion": 2, "manifests": [descriptor(index, f"{OCI}.index.v1+json", annotations=named)]}
    files = {f"blobs/{key.replace(':', '/')}": data for key, data in blobs.items()}
    archive = layer({"oci-layout": '{"imageLayoutVersion":"1.0.0"}', **files, "index.json": json.dumps(top)})
    return Platforms(f"{name}:1", digest(index), tuple(str(entry["digest"]) for entry in entries), archive)


@contextlib.contextmanager
def loaded(engine: Engine, *platforms: str, without: str = "", **query: str) -> Iterator[Platforms]:
    image = made(*platforms, without=without)
    messages = engine.api.request("POST", "/images/load", body=image.archive, query=query).lines()
    assert f"Loaded image: {image.name}\n" in [message.get("stream") for message in messages], messages
    try:
        yield image
    finally:
        engine.docker("rmi", "-f", image.name, check=False)


def available(engine: Engine, name: str) -> list[bool]:
    document = engine.api.get(f"/images/{name}/json", manifests=1).json()
    return [entry["Available"] for entry in document["Manifests"]]


def saved(data: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {f"sha256:{Path(name).name}" for name in archive.getnames() if name.startswith("blobs/sha256/")}


def test_queries_for_one_platform(engine: Engine) -> None:
    with loaded(engine) as image:
        assert available(engine, image.name) == [True, True]
        for platform, architecture in ((AMD64, "amd64"), (ARM64, "arm64"), ("linux/arm64", "arm64")):
            document = engine.api.get(f"/images/{image.name}/json", platform=platform).json()
            manifest = image.manifests[architecture == "arm64"]
            assert (document["Architecture"], document["Id"]) == (architecture, manifest)
        # The parameter exists in history since 1.48, in inspect since 1.49: for older clients it is ignored.
        older = Api(engine.api.path, version="1.48")
        assert older.get(f"/images/{image.name}/json", platform=ARM64).json()["Architecture"] == "amd64"
        assert len(engine.api.get(f"/images/{image.name}/history", platform=ARM64).json()) == 2
        described = engine.api.get(f"/images/{image.name}/json", platform=ARM64).json()["Descriptor"]
        assert (described["digest"], described["platform"]) == (image.manifests[1], json.loads(ARM64))
        assert engine.api.get(f"/images/{image.name}/json").json()["Descriptor"]["digest"] == image.index
        missing = engine.api.get(f"/images/{image.name}/json", platform='{"os":"linux","architecture":"riscv64"}')
        assert missing.status == 404
        assert "does not provide the specified platform (linux/riscv64)" in missing.json()["message"]
        assert engine.api.get(f"/images/{image.name}/json", platform="{}").status == 400
        assert engine.api.get(f"/images/{image.name}/json", platform=AMD64, manifests=1).status == 400
        assert engine.docker("run", "--rm", "--network", "none", image.name).stdout.startswith("amd64 of ")


def test_one_platform_is_saved_and_loaded(engine: Engine) -> None:
    with loaded(engine) as image:
        whole = engine.api.get(f"/images/{image.name}/get").body
        one = engine.api.get("/images/get", names=image.name, platform=ARM64).body
        several = Api(engine.api.path, version="1.51").get("/images/get", names=image.name, platform=[AMD64, ARM64])
        assert several.error == (
            400,
            "multiple platform parameters are not supported in this API version; use API version 1.52 or later",
        )
    assert {image.index, *image.manifests} <= saved(whole)
    assert image.manifests[1] in saved(one)
    assert not {image.index, image.manifests[0]} & saved(one)
    with loaded(engine, platform=ARM64) as image:
        assert available(engine, image.name) == [False, True]
    refused = engine.api.request(
        "POST", "/images/load", body=made().archive, query={"platform": '{"os":"windows","architecture":"amd64"}'}
    )
    assert "doesn't provide the requested platform ([windows/amd64])" in refused.lines()[-1]["error"]


def test_one_platform_is_pushed(engine: Engine, plain_registry: Registry) -> None:
    with loaded(engine) as image:
        remote = plain_registry.name(f"{image.name.partition(':')[0]}:1")
        engine.docker("tag", image.name, remote)
        try:
            messages = progress_messages(
                engine, "POST", f"/images/{remote.rpartition(':')[0]}/push", tag="1", platform=ARM64
            )
        finally:
            engine.docker("rmi", remote)
        assert messages[-1]["aux"]["Digest"] == image.manifests[1]
        answer = request_registry(plain_registry, "GET", f"/v2/{image.name.partition(':')[0]}/manifests/1")
        assert answer.headers["docker-content-digest"] == image.manifests[1]


def test_the_variant_of_the_processor_is_preferred(engine: Engine) -> None:
    """Every processor of the last years has amd64/v2. Another variant runs by request, if the image has exactly it."""
    with loaded(engine, "amd64", "amd64/v2", "386") as image:
        run = ("run", "--rm", "--network", "none", "--pull", "never")
        assert engine.docker(*run, image.name).stdout.startswith("amd64/v2 of ")
        for platform in ("amd64", "amd64/v2", "386"):
            output = engine.docker(*run, "--platform", f"linux/{platform}", image.name).stdout
            assert output.startswith(f"{platform} of ")
        missing = engine.docker(*run, "--platform", "linux/amd64/v3", image.name, check=False)
        assert "does not provide the specified platform (linux/amd64/v3)" in missing.stderr


def test_the_variant_of_a_base_image(engine: Engine) -> None:
    """Classic builds prefer the processor's variant as `docker run` does, BuildKit amd64 without a variant."""
    with loaded(engine, "amd64", "amd64/v2") as image:
        for buildkit, platform in (("0", "amd64/v2"), ("1", "amd64")):
            name = f"from-{image.name}"
            dockerfile = f"FROM {image.name}\nRUN true\n"
            env = {"DOCKER_BUILDKIT": buildkit}
            engine.docker("build", "--network", "none", "-q", "-t", name, "-", input=dockerfile, env=env)
            try:
                output = engine.docker("run", "--rm", "--network", "none", name).stdout
                assert output.startswith(f"{platform} of ")
            finally:
                engine.docker("rmi", name)


def test_an_image_without_local_content(engine: Engine) -> None:
    """It is listed and inspected, but no container can use it."""
    with loaded(engine, "arm64", without="arm64") as image:
        filters = json.dumps({"reference": [image.name]})
        [row] = engine.api.get("/images/json", manifests=1, filters=filters).json()
        assert (row["Id"], row["Size"], row["Containers"]) == (image.index, 0, 0)
        [entry] = row["Manifests"]
        assert (entry["Kind"], entry["Available"], entry["ImageData"]["Containers"]) == ("image", False, None)
        assert engine.api.get(f"/images/{image.name}/json").json()["Architecture"] == ""
        created = engine.api.post("/containers/create", {"Image": image.name})
        assert created.error == (404, f"image with reference {image.name} was found but does not provide any platform")


def test_shared_layers_of_a_platform_that_is_not_unpacked(engine: Engine) -> None:
    """Its first layer is unpacked for another image, but is no part of its size."""
    with loaded(engine), loaded(engine, "arm64") as image:
        rows = engine.api.get("/images/json", **{"shared-size": 1}).json()
        [row] = [row for row in rows if row["Id"] == image.index]
        assert 0 < row["SharedSize"] <= row["Size"]


def test_an_incomplete_index_is_pushed_as_the_platform_of_this_host(engine: Engine, plain_registry: Registry) -> None:
    with loaded(engine, "amd64", "arm64", "riscv64", without="riscv64") as image:
        repository = image.name.partition(":")[0]
        remote = plain_registry.name(f"{repository}:1")
        engine.docker("tag", image.name, remote)
        try:
            messages = progress_messages(engine, "POST", f"/images/{remote.rpartition(':')[0]}/push", tag="1")
            # Without the host's platform, one must be chosen.
            engine.api.delete(f"/images/{image.name}", platforms=AMD64, force=1)
            engine.api.delete(f"/images/{image.name}", platforms=ARM64, force=1)
            refused = progress_messages(engine, "POST", f"/images/{remote.rpartition(':')[0]}/push", tag="1")
        finally:
            engine.docker("rmi", remote)
        [chosen] = [aux for message in messages if "manifestPushedInsteadOfIndex" in (aux := message.get("aux") or {})]
        assert chosen["selectedManifest"]["digest"] == image.manifests[0]
        answer = request_registry(plain_registry, "GET", f"/v2/{repository}/manifests/1")
        assert answer.headers["docker-content-digest"] == image.manifests[0]
        assert refused[-1]["error"] == f"image with reference {remote} was found but does not provide any platform"


def test_one_platform_is_removed(engine: Engine) -> None:
    def blob(name: str) -> bool:
        return (content_store(engine) / "blobs" / name.replace(":", "/")).exists()

    with loaded(engine) as image:
        path = f"/images/{image.name}"
        container = engine.docker("create", "--network", "none", image.name).stdout.strip()
        try:
            used = engine.api.delete(path, platforms=AMD64)
            assert used.status == 409
            assert f"container {container[:12]} is using its referenced image" in used.json()["message"]
            assert engine.api.delete(path, platforms=ARM64).json() == [{"Deleted": image.manifests[1]}]
            assert available(engine, image.name) == [True, False]
            assert until(lambda: not blob(image.manifests[1]))
            assert engine.api.delete(path, platforms=ARM64).status == 404
            assert engine.api.delete(path, platforms="linux/arm64").status == 400
            # The shared layer is still there for the other platform and its container.
            assert engine.docker("start", "-a", container).stdout.startswith("amd64 of ")
        finally:
            engine.docker("rm", "-f", container)
        assert engine.api.delete(path, platforms=AMD64).json() == [{"Deleted": image.manifests[0]}]
        assert until(lambda: not blob(image.manifests[0]))
        # The name stays until it is removed itself; a removed platform can be loaded again.
        engine.docker("load", "-q", input=image.archive)
        assert available(engine, image.name) == [True, True]
        assert engine.docker("rmi", image.name).stdout.splitlines()[0] == f"Untagged: {image.name}"
    assert until(lambda: not blob(image.index))


def test_a_platform_that_another_index_has_too(engine: Engine) -> None:
    """Only the given index drops its reference; the answer does not list what the other index keeps."""
    with loaded(engine) as image:
        other = f"also-{image.name}"
        manifest = json.loads(engine.api.get(f"/images/{image.name}/json", manifests=1).body)["Manifests"][0]
        entry = {**manifest["Descriptor"], "platform": {"architecture": "amd64", "os": "linux"}}
        document = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [entry]}
        index = json.dumps(document).encode()
        named = {"io.containerd.image.name": f"docker.io/library/{other}"}
        top = {"schemaVersion": 2, "manifests": [descriptor(index, f"{OCI}.index.v1+json", annotations=named)]}
        engine.docker(
            "load",
            "-q",
            input=layer(
                {
                    "oci-layout": '{"imageLayoutVersion":"1.0.0"}',
                    f"blobs/{digest(index).replace(':', '/')}": index,
                    "index.json": json.dumps(top),
                }
            ),
        )
        try:
            answer = engine.api.delete(f"/images/{image.name}", platforms=AMD64)
            assert (answer.status, answer.json()) == (200, [])
            assert available(engine, image.name) == [True, True]  # of the content store, as dockerd shows it
            output = engine.docker("run", "--rm", "--network", "none", other).stdout
            assert output.startswith("amd64 of ")
            assert engine.api.delete(f"/images/{other}", platforms=AMD64).json() == [{"Deleted": image.manifests[0]}]
            assert available(engine, image.name) == [False, True]
        finally:
            engine.docker("rmi", "-f", other, check=False)
