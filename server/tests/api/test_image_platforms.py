"""Images of several platforms over the fake engine: archives with ``platform``, ``Manifests``, attestations and
``Identity`` (API 1.52 to 1.55)."""

import hashlib
import io
import json
import tarfile
from typing import Any

import pytest

from engine.api.types import Platform
from server.images.identity import build_label
from server.tests import samples
from server.tests.daemon import Daemon
from server.tests.samples import Index

AMD64, ARM64, RISCV = (f'{{"os":"linux","architecture":"{name}"}}' for name in ("amd64", "arm64", "riscv64"))
NAME = "docker.io/library/two:1"
PROVENANCE, PACKAGES = "https://slsa.dev/provenance/v1", "https://spdx.dev/Document"


def load(daemon: Daemon, made: Index | None = None, **query: object) -> Index:
    made = made or samples.index(NAME)
    answer = daemon.request("POST", "/images/load", content=made.archive, params=query)
    assert [json.loads(line) for line in answer.text.splitlines()] == [{"stream": "Loaded image: two:1\n"}]
    return made


def manifests(daemon: Daemon, **query: object) -> dict[str, dict[str, Any]]:
    document = daemon.get("/images/two:1/json", manifests=1, **query).json()
    return {entry["ID"]: entry for entry in document["Manifests"]}


def available(daemon: Daemon) -> set[str]:
    return {digest for digest, entry in manifests(daemon).items() if entry["Available"]}


def saved(daemon: Daemon, *platforms: str) -> tuple[set[str], list[dict[str, Any]]]:
    """The blobs of an archive, and its manifest.json."""
    answer = daemon.get("/images/two:1/get", platform=list(platforms))
    assert answer.status_code == 200, answer.text
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        file = archive.extractfile("manifest.json")
        assert file is not None
        names = archive.getnames()
        return {f"sha256:{name[13:]}" for name in names if name.startswith("blobs/sha256/")}, json.load(file)


def config_of(daemon: Daemon, platform: str) -> list[str]:
    """The layers that manifest.json of an archive with one platform names."""
    [row] = saved(daemon, platform)[1]
    layers: list[str] = row["Layers"]
    return layers


def test_several_platforms_are_saved(daemon: Daemon) -> None:
    made = load(daemon)
    everything = saved(daemon)[0]
    assert {made.digest, *made.manifests, *made.attestations} <= everything
    assert saved(daemon, AMD64, ARM64)[0] == everything
    one = saved(daemon, ARM64)[0]
    assert {made.manifests[1]} == one & {made.digest, *made.manifests, *made.attestations}
    # manifest.json is for engines that know one platform: it names this host's, whatever the order.
    assert [row["Layers"] for row in saved(daemon, ARM64, AMD64)[1]] == [config_of(daemon, AMD64)]


def test_a_partial_image_is_saved(daemon: Daemon) -> None:
    made = load(daemon, platform=AMD64)
    assert available(daemon) == {made.manifests[0], made.attestations[0]}
    path = "/images/two:1/get"
    sentence = "image with reference two:1 was found but does not provide the specified platform"
    for platforms in ([ARM64], [AMD64, ARM64]):
        assert daemon.refusal("GET", path, params={"platform": platforms}) == (404, f"{sentence} (linux/arm64)")


def test_several_platforms_are_loaded(daemon: Daemon) -> None:
    made = load(daemon, platform=[ARM64, AMD64])
    assert available(daemon) == {*made.manifests, *made.attestations}
    # Both are unpacked.
    assert all(
        entry["ImageData"]["Size"]["Unpacked"] for entry in manifests(daemon).values() if entry["Kind"] == "image"
    )


@pytest.mark.parametrize("archive", [samples.index(NAME).archive, samples.archive(["two:1"], samples.layer({}), {})])
def test_a_platform_that_the_archive_lacks(daemon: Daemon, archive: bytes) -> None:
    answer = daemon.request("POST", "/images/load", content=archive, params={"platform": [AMD64, RISCV]})
    [message] = [json.loads(line) for line in answer.text.splitlines()]
    assert message["error"] == "image two:1 doesn't provide the requested platform ([linux/riscv64])"
    assert daemon.get("/images/json").json() == []


def test_an_attestation_beside_its_image_is_no_image(daemon: Daemon) -> None:
    """dockerd 29 saves one platform as a manifest, with its attestation beside it."""
    made = samples.index(NAME)
    with tarfile.open(fileobj=io.BytesIO(made.archive)) as archive:
        files = {name: file.read() for name in archive.getnames() if (file := archive.extractfile(name))}
    media_type = "application/vnd.oci.image.manifest.v1+json"
    digests = made.manifests[0], made.attestations[0]
    names = {"io.containerd.image.name": NAME}, {"io.containerd.manifest.subject": made.manifests[0]}
    entries = [
        {
            "mediaType": media_type,
            "digest": digest,
            "size": len(files[f"blobs/sha256/{digest[7:]}"]),
            "annotations": note,
        }
        for digest, note in zip(digests, names, strict=True)
    ]
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    answer = daemon.request("POST", "/images/load", content=samples.layer(files))
    assert answer.text.splitlines() == ['{"stream":"Loaded image: two:1\\n"}']
    assert [row["Id"] for row in daemon.get("/images/json", all=1).json()] == [made.manifests[0]]


def test_older_versions_accept_one_platform(daemon: Daemon) -> None:
    load(daemon)
    sentence = "multiple platform parameters are not supported in this API version; use API version 1.52 or later"
    query = {"platform": [AMD64, ARM64]}
    for method, path in (("GET", "images/get?names=two:1"), ("GET", "images/two:1/get"), ("POST", "images/load")):
        assert daemon.refusal(method, f"/v1.51/{path}", params=query) == (400, sentence)
        # 1.47 has no such parameter.
        assert daemon.request(method, f"/v1.47/{path}", params=query).status_code == 200


def test_manifests_with_attestations(daemon: Daemon) -> None:
    made = load(daemon)
    container = daemon.create("one", Image="two:1")
    shown = manifests(daemon)
    assert list(shown) == [*made.manifests, *made.attestations]
    image, attestation = shown[made.manifests[0]], shown[made.attestations[0]]
    assert (image["Kind"], image["ImageData"]["Platform"]) == ("image", json.loads(AMD64))
    assert image["ImageData"]["Containers"] == [container]
    assert (attestation["Kind"], attestation["AttestationData"]) == ("attestation", {"For": made.manifests[0]})
    assert "ImageData" not in attestation
    assert attestation["Size"]["Content"] == attestation["Size"]["Total"] > sum(map(len, made.statements))
    [row] = daemon.get("/images/json", manifests=1).json()
    assert row["Manifests"] == list(shown.values())
    # The index itself does not count.
    assert row["Size"] == sum(entry["Size"]["Total"] for entry in row["Manifests"])


def test_the_variant_of_the_processor_is_preferred(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exact platform in a request has no substitute, except in ``history``."""
    monkeypatch.setattr(daemon.services.images.local._context.resolver, "host", Platform("linux", "amd64", "v3"))
    made = load(daemon, samples.index(NAME, ("amd64", "amd64/v2", "amd64/v4", "arm64")))
    assert daemon.get("/images/two:1/json").json()["Variant"] == "v2"
    created = daemon.get(f"/containers/{daemon.create('one', Image='two:1')}/json").json()
    assert created["ImageManifestDescriptor"]["digest"] == made.manifests[1]
    variant = '{"os":"linux","architecture":"amd64","variant":"%s"}'
    assert daemon.get("/images/two:1/json", platform=variant % "v1").json()["Id"] == made.manifests[0]
    sentence = "image with reference two:1 was found but does not provide the specified platform (linux/amd64/v3)"
    query = {"platform": variant % "v3"}
    assert daemon.refusal("GET", "/images/two:1/json", params=query) == (404, sentence)
    assert daemon.get("/images/two:1/history", **query).status_code == 200
    riscv = daemon.refusal("GET", "/images/two:1/history", params={"platform": RISCV})
    assert riscv == (404, sentence.replace("amd64/v3", "riscv64"))


def test_commit_of_another_platform(daemon: Daemon) -> None:
    """The new image is built on the manifest that the container has."""
    load(daemon)
    container = daemon.create("one", Image="two:1")
    other = daemon.post("/containers/create", {"Image": "two:1", "Cmd": ["x"]}, platform="linux/arm64").json()["Id"]
    for id, architecture in ((container, "amd64"), (other, "arm64")):
        made = daemon.post("/commit", None, container=id).json()["Id"]
        document = daemon.get(f"/images/{made}/json").json()
        assert (document["Architecture"], len(document["RootFS"]["Layers"])) == (architecture, 2)
        base = daemon.get("/images/two:1/json", platform=f'{{"os":"linux","architecture":"{architecture}"}}').json()
        assert document["RootFS"]["Layers"][0] == base["RootFS"]["Layers"][0]


def test_inspect_of_a_platform(daemon: Daemon) -> None:
    """Its manifest is the image; without a platform, the index."""
    made = load(daemon)
    for platform, digest in zip((AMD64, ARM64), made.manifests, strict=True):
        document = daemon.get("/images/two:1/json", platform=platform).json()
        assert (document["Id"], document["Descriptor"]["digest"]) == (digest, digest)
        assert document["RepoDigests"] == [f"two@{made.digest}"]
    assert daemon.get("/images/two:1/json").json()["Id"] == made.digest
    # 1.48 has no such parameter.
    assert daemon.get("/v1.48/images/two:1/json", platform=ARM64).json()["Id"] == made.digest


def test_an_image_without_a_local_platform(daemon: Daemon) -> None:
    made = load(daemon, samples.index(NAME, without=("amd64", "arm64")))
    [row] = daemon.get("/images/json", manifests=1).json()
    assert (row["Id"], row["RepoTags"], row["Size"], row["Created"]) == (made.digest, ["two:1"], 0, 0)
    assert [entry["Available"] for entry in row["Manifests"]] == [False] * 4
    document = daemon.get("/images/two:1/json").json()
    assert (document["Id"], document["Architecture"], document["Config"]["Cmd"]) == (made.digest, "", None)
    sentence = "image with reference two:1 was found but does not provide"
    refused = daemon.refusal("GET", "/images/two:1/json", params={"platform": AMD64})
    assert refused == (404, f"{sentence} the specified platform (linux/amd64)")
    body = {"Image": "two:1"}
    assert daemon.refusal("POST", "/containers/create", json=body) == (404, f"{sentence} any platform")
    refused = daemon.refusal("GET", "/images/json", params={"filters": '{"before":["two:1"]}'})
    assert refused == (404, f"{sentence} any platform")
    assert daemon.request("DELETE", "/images/two:1").json()[-1] == {"Deleted": made.digest}


def test_a_local_platform_stands_for_one_that_is_not(daemon: Daemon) -> None:
    """An image for another host is not unpacked until a container needs it."""
    made = load(daemon, samples.index(NAME, without=("amd64",)))
    assert daemon.get("/images/two:1/json").json()["Architecture"] == "arm64"
    entry = manifests(daemon)[made.manifests[1]]
    assert (entry["Available"], entry["ImageData"]["Size"]["Unpacked"]) == (True, 0)
    assert entry["ImageData"]["Containers"] is None


def test_a_loaded_platform_hides_the_others(daemon: Daemon) -> None:
    load(daemon, platform=ARM64)
    assert daemon.get("/images/two:1/json").json()["Architecture"] == "arm64"
    assert daemon.refusal("GET", "/images/two:1/json", params={"platform": AMD64})[0] == 404


def attestations(daemon: Daemon, name: str = "two:1", **query: object) -> list[dict[str, Any]]:
    answer = daemon.get(f"/images/{name}/attestations", **query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def test_attestations(daemon: Daemon) -> None:
    made = load(daemon)
    first, second = attestations(daemon)
    assert (first["PredicateType"], second["PredicateType"]) == (PROVENANCE, PACKAGES)
    assert first["Descriptor"] == {
        "mediaType": "application/vnd.in-toto+json",
        "digest": f"sha256:{hashlib.sha256(made.statements[0]).hexdigest()}",
        "size": len(made.statements[0]),
        "annotations": {"in-toto.io/predicate-type": PROVENANCE},
    }
    assert "Statement" not in first
    assert attestations(daemon, type=PACKAGES) == [second]
    assert attestations(daemon, type=["", PACKAGES, PROVENANCE]) == [first, second]
    assert attestations(daemon, type="https://example.com/none") == []
    [whole] = attestations(daemon, type=PACKAGES, statement="true")
    assert whole == {**second, "Statement": json.loads(made.statements[1])}
    assert len(attestations(daemon, platform=ARM64)) == 2
    daemon.load("plain:1")
    assert attestations(daemon, "plain:1") == []


def test_refused_attestations(daemon: Daemon) -> None:
    made = load(daemon, platform=AMD64)
    path = "/images/two:1/attestations"
    assert daemon.refusal("GET", "/images/nope/attestations") == (404, "No such image: nope:latest")
    assert daemon.refusal("GET", path, params={"platform": [AMD64, ARM64]}) == (
        400,
        "only one platform value is currently supported",
    )
    assert daemon.refusal("GET", path, params={"platform": RISCV}) == (
        404,
        "resolving image manifest for platform &{Architecture:riscv64 OS:linux OSVersion: OSFeatures:[] Variant:}:"
        " no manifest for platform linux/riscv64: not found",
    )
    status, sentence = daemon.refusal("GET", path, params={"platform": ARM64})
    assert (status, sentence.startswith(f"reading blob {made.attestations[1]}: ")) == (404, True)
    assert daemon.refusal("GET", f"/v1.54{path}")[0] == 400
    digest = attestations(daemon)[0]["Descriptor"]["digest"]
    daemon.wait(daemon.services.engine.content.delete(digest))
    status, sentence = daemon.refusal("GET", path, params={"statement": 1})
    assert (status, sentence.startswith(f"attestation statement {digest} is not available locally: ")) == (404, True)
    assert len(attestations(daemon)) == 2  # these need no statement


def test_identity(daemon: Daemon) -> None:
    made = load(daemon)
    assert "Identity" not in daemon.get("/images/two:1/json").json()
    labels = {
        "containerd.io/distribution.source.docker.io": "library/two,team/two",
        "containerd.io/distribution.source.lab:5000": "two",
        **build_label("ref1", 1_700_000_000_000_000_000),
        "moby/build.ref.bad": "{not json}",
    }
    daemon.wait(daemon.services.engine.content.update_labels(made.digest, labels))
    identity = {
        "Pull": [
            {"Repository": "docker.io/library/two"},
            {"Repository": "docker.io/team/two"},
            {"Repository": "lab:5000/two"},
        ],
        "Build": [{"Ref": "ref1", "CreatedAt": "2023-11-14T22:13:20Z"}],
    }
    assert daemon.get("/images/two:1/json").json()["Identity"] == identity
    assert "Identity" not in daemon.get("/v1.52/images/two:1/json").json()
    for version, asked, shown in (("1.54", 1, True), ("1.53", 1, False), ("1.54", 0, False)):
        [row] = daemon.get(f"/v{version}/images/json", manifests=1, identity=asked).json()
        data = [entry["ImageData"] for entry in row["Manifests"] if entry["Kind"] == "image"]
        assert [one.get("Identity") for one in data] == [identity if shown else None] * 2
    refused = daemon.refusal("GET", "/images/json", params={"identity": 1})
    assert refused == (400, "conflicting options: identity requires manifests=1")


def test_shared_size(daemon: Daemon) -> None:
    """Blobs count as well as unpacked layers."""
    files = {"a": b"x" * 5000}
    daemon.load("one:1", files=files)
    daemon.load("two:1", files=files, config={"Labels": {"a": "b"}})
    daemon.load("other:1", files={"b": b"y"})
    rows = {row["RepoTags"][0]: row for row in daemon.get("/images/json", **{"shared-size": 1}).json()}
    blob = len(samples.layer(files))
    assert [rows[name]["SharedSize"] for name in ("one:1", "two:1", "other:1")] == [blob + 5000, blob + 5000, 0]
