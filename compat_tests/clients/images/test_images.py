"""Local images: list, inspect, history, tag, rmi and prune, as dockerd with the containerd image store answers."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.images import ENV, busybox_layer, digest, docker_archive, layer, oci_archive


@pytest.fixture(autouse=True)
def remove_new_images(engine: Engine) -> Iterator[None]:
    engine.api.post("/images/prune")  # dangling images of other tests would be counted
    before = {image["Id"] for image in images(engine, all=1)}
    yield
    for image in images(engine, all=1):
        if image["Id"] not in before:
            engine.api.delete(f"/images/{image['Id']}", force=1)


def images(engine: Engine, **query: Any) -> list[dict[str, Any]]:
    if "filters" in query:
        query["filters"] = json.dumps(query["filters"])
    answer = engine.api.get("/images/json", **query)
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json()
    return found


def load(engine: Engine, name: str, *, size: int = 20, **fields: object) -> str:
    """Load a unique image; return its id."""
    layers = [busybox_layer(), layer({"own": os.urandom(size)})]
    engine.docker("load", "-q", input=docker_archive(name, layers, **fields))
    return str(engine.api.get(f"/images/{name}/json").json()["Id"])


def names(engine: Engine, *args: str) -> list[str]:
    done = engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}", *args)
    return sorted(line for line in done.stdout.split() if line != "busybox:latest")


@contextlib.contextmanager
def user(engine: Engine, image: str, *, running: bool) -> Iterator[str]:
    """A container of the image."""
    args = ("run", "-d") if running else ("create",)
    id = engine.docker(*args, "--network", "none", image, "sleep", "600").stdout.strip()
    try:
        yield id
    finally:
        engine.docker("rm", "-f", id)


@pytest.mark.core
def test_list_of_images(engine: Engine) -> None:
    one = load(engine, "list/one:1", Labels={"kind": "a", "x": "1"})
    two = load(engine, "list/two:2", Labels={"kind": "b"})
    engine.docker("tag", "list/one:1", "list/one:other")
    row = next(image for image in images(engine) if image["Id"] == one)
    assert row["RepoTags"] == ["list/one:1", "list/one:other"]
    assert row["RepoDigests"] == [f"list/one@{one}"]
    assert row["Labels"] == {"kind": "a", "x": "1"}
    assert (row["Containers"], row["SharedSize"], row["ParentId"]) == (0, -1, "")
    assert row["Created"] == 1704164645
    assert row["Descriptor"]["digest"] == one
    assert row["Size"] > 1.5 * len(busybox_layer())  # blobs plus unpacked layers
    assert names(engine, "list/one") == ["list/one:1", "list/one:other"]
    assert names(engine, "list/one:other") == ["list/one:other"]
    assert names(engine, "-f", "reference=list/*:[12]") == ["list/one:1", "list/two:2"]
    assert names(engine, "-f", "label=kind=b") == ["list/two:2"]
    assert names(engine, "-f", "label=kind", "-f", "label=x") == ["list/one:1", "list/one:other"]
    assert names(engine, "-f", "dangling=true") == []
    assert names(engine, "-f", "before=list/two:2", "-f", "reference=list/*") == []  # created in the same second
    assert names(engine, "-f", "since=busybox", "-f", "label=kind=a") == []
    assert names(engine, "-f", "until=1h", "-f", "reference=list/*") == []
    assert "invalid filter" in engine.docker("images", "-f", "no=1", check=False).stderr
    assert "No such image" in engine.docker("images", "-f", "since=none:1", check=False).stderr
    shared = next(image for image in images(engine, **{"shared-size": 1}) if image["Id"] == one)
    assert len(busybox_layer()) * 0.9 < shared["SharedSize"] < shared["Size"]
    digests = engine.docker("images", "--digests", "--no-trunc", "list/two").stdout.splitlines()[1].split()
    assert digests[:4] == ["list/two", "2", two, two]
    # Moving a name leaves the old image dangling.
    load(engine, "list/two:2")
    assert [image["Id"] for image in images(engine, filters={"dangling": ["true"]})] == [two]
    assert two[7:19] in engine.docker("images", "-a").stdout  # docker CLI 29 hides it without -a
    assert next(image for image in images(engine) if image["Id"] == two)["RepoTags"] == []
    assert len(images(engine, filters={"reference": ["list/*"]}, manifests=1)[0]["Manifests"]) == 1
    found = engine.client.images.list(name="list/one", filters={"label": "kind"})
    assert [image.id for image in found] == [one]


def test_inspect_of_an_image(engine: Engine) -> None:
    layers = [busybox_layer(), layer({"a/b": os.urandom(30)})]
    fields = {
        "Cmd": ["run"],
        "Entrypoint": ["/e"],
        "User": "7:8",
        "WorkingDir": "/w",
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/v": {}},
        "Labels": {"l": "m"},
        "StopSignal": "SIGUSR1",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
        "OnBuild": ["RUN x"],
        "Shell": ["/bin/sh", "-c"],
    }
    engine.docker("load", "-q", input=oci_archive("inspected:1", layers, **fields))
    document = engine.api.get("/images/inspected:1/json").json()
    ids = [digest(data) for data in layers]
    assert document["Config"] | fields | {"Env": ENV} == document["Config"]
    assert document["RootFS"] == {"Type": "layers", "Layers": ids}
    assert document["Id"] == document["Descriptor"]["digest"]
    assert document["Descriptor"]["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    expected = {
        "RepoTags": ["inspected:1"],
        "RepoDigests": [f"inspected@{document['Id']}"],
        "Created": "2024-01-02T03:04:05Z",
        "Architecture": "amd64",
        "Os": "linux",
        "Author": "",
        "Comment": "",
        "GraphDriver": {"Data": None, "Name": "overlayfs"},
    }
    assert {key: document[key] for key in expected} == expected
    assert document["Metadata"]["LastTagTime"].startswith("20")
    # The size in a registry, as in dockerd.
    assert document["Descriptor"]["size"] < document["Size"] < len(busybox_layer())
    for text in (
        document["Id"],
        document["Id"][7:],
        document["Id"][7:19],
        document["Id"][:20],
        "docker.io/library/inspected:1",
    ):
        assert engine.api.get(f"/images/{text}/json").json()["Id"] == document["Id"], text
    full = engine.api.get("/images/inspected:1/json", manifests=1).json()["Manifests"]
    assert [(entry["Kind"], entry["Available"], entry["ID"]) for entry in full] == [("image", True, document["Id"])]
    both = engine.api.get("/images/inspected:1/json", manifests=1, platform='{"os":"linux","architecture":"amd64"}')
    assert both.status == 400
    assert engine.api.get("/images/inspected:2/json").message == "No such image: inspected:2"
    assert engine.api.get("/images/" + "f" * 12 + "/json").message == f"No such image: {'f' * 12}:latest"
    done = engine.docker("image", "inspect", "inspected:1", "none:1", check=False)
    assert done.status == 1
    assert "No such image: none:1" in done.stderr
    assert json.loads(done.stdout)[0]["Id"] == document["Id"]


def test_name_precedes_id_prefix(engine: Engine) -> None:
    one = load(engine, "ambiguous:1")
    name = one[7:15]  # a repository's name may look like a prefix of an id
    two = load(engine, f"{name}:latest")
    assert engine.api.get(f"/images/{name}/json").json()["Id"] == two
    assert engine.api.get(f"/images/{one[7:19]}/json").json()["Id"] == one
    assert engine.api.get(f"/images/sha256:{name}/json").json()["Id"] == one


def test_history_of_an_image(engine: Engine) -> None:
    load(engine, "history:1")
    rows = engine.api.get("/images/history:1/history").json()
    assert [row["CreatedBy"] for row in rows] == ["layer 1", "layer 0"]
    assert [row["Tags"] for row in rows] == [["history:1"], None]
    assert rows[1]["Id"] == "<missing>"
    assert rows[1]["Size"] > 1_000_000 > rows[0]["Size"] > 0
    output = engine.docker("history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}}", "history:1").stdout
    assert output.splitlines()[1] == "<missing> layer 0"
    assert engine.api.get("/images/none/history").status == 404


def test_tag(engine: Engine) -> None:
    id = load(engine, "tagged:1")
    targets = ["localhost:5/deep/name:v1", "other/name:latest", "tagged:2"]
    for target in targets:
        engine.docker("tag", id[7:19], target.removesuffix(":latest"))
    row = next(image for image in images(engine) if image["Id"] == id)
    assert sorted(row["RepoTags"]) == sorted([*targets, "tagged:1"])
    assert engine.api.post("/images/none/tag", repo="x").status == 404
    assert engine.api.post(f"/images/{id}/tag", repo="UPPER").status == 400
    answer = engine.api.post(f"/images/{id}/tag", repo="sha256", tag="x")
    assert answer.message == "refusing to create an ambiguous tag using digest algorithm as name"
    answer = engine.api.post(f"/images/{id}/tag", repo=f"x@{id}")
    assert answer.message == "refusing to create a tag with a digest reference"
    assert engine.client.images.get(id).tag("by/py", tag="3")
    assert engine.api.get("/images/by/py:3/json").json()["Id"] == id


@pytest.mark.core
def test_rmi(engine: Engine) -> None:
    id = load(engine, "removed:1")
    short = id[7:19]
    engine.docker("tag", "removed:1", "removed:2")
    assert engine.docker("rmi", "removed:2").stdout.splitlines() == ["Untagged: removed:2"]
    engine.docker("tag", "removed:1", "another:2")
    done = engine.docker("rmi", short, check=False)
    conflict = f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    assert conflict in done.stderr
    assert engine.docker("rmi", "-f", short).stdout.splitlines() == [
        "Untagged: another:2",
        "Untagged: removed:1",
        f"Deleted: {id}",
    ]
    assert "No such image: removed:1" in engine.docker("rmi", "removed:1", check=False).stderr
    assert engine.docker("rmi", "-f", "removed:1").stdout == ""
    assert engine.api.delete("/images/removed:1").status == 404
    for form in ("removed:1", "{short}", "{id}", "removed@{id}"):
        id = load(engine, "removed:1")
        lines = engine.docker("rmi", form.format(id=id, short=id[7:19])).stdout.splitlines()
        assert lines == ["Untagged: removed:1", f"Deleted: {id}"], form
    with pytest.raises(docker.errors.ImageNotFound):
        engine.client.images.remove("none:1")


@pytest.mark.core
def test_rmi_of_an_image_in_use(engine: Engine) -> None:
    id = load(engine, "used:1")
    short = id[7:19]
    with user(engine, "used:1", running=True) as container:
        done = engine.docker("rmi", "used:1", check=False)
        reason = f"container {container[:12]} is using its referenced image {short}"
        assert f"conflict: unable to delete used:1 (must be forced) - {reason}" in done.stderr
        done = engine.docker("rmi", "-f", short, check=False)
        reason = f"image is being used by running container {container[:12]}"
        assert f"conflict: unable to delete {short} (cannot be forced) - {reason}" in done.stderr
        assert engine.api.delete("/images/used:1").status == 409
        # With force the name is removed; the container keeps its image.
        assert engine.docker("rmi", "-f", "used:1").stdout.splitlines() == ["Untagged: used:1"]
        assert engine.docker("exec", container, "ls", "/own").stdout == "/own\n"
        assert [image["Id"] for image in images(engine, filters={"dangling": ["true"]})] == [id]
        assert engine.docker("image", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    id = load(engine, "used:2")
    with user(engine, "used:2", running=False) as container:
        done = engine.docker("rmi", id[7:19], check=False)
        reason = f"image is being used by stopped container {container[:12]}"
        assert f"conflict: unable to delete {id[7:19]} (must be forced) - {reason}" in done.stderr


def test_image_that_is_mounted_in_a_container(engine: Engine) -> None:
    id = load(engine, "mounted:1", Labels={"mounted": "yes"})
    mount = {"Type": "image", "Source": "mounted:1", "Target": "/image"}
    body = {"Image": "busybox", "Cmd": ["ls", "/image/own"], "HostConfig": {"NetworkMode": "none", "Mounts": [mount]}}
    created = engine.api.post("/containers/create", body).json()["Id"]
    try:
        done = engine.docker("rmi", "mounted:1", check=False)
        reason = f"container {created[:12]} is using its referenced image {id[7:19]}"
        assert f"conflict: unable to delete mounted:1 (must be forced) - {reason}" in done.stderr
        assert "must be forced" in engine.docker("rmi", id, check=False).stderr
        assert "mounted:1" not in engine.docker("image", "prune", "-af", "--filter", "label=mounted=yes").stdout
        assert engine.docker("start", "-a", created).stdout == "/image/own\n"
    finally:
        engine.docker("rm", "-f", created)
    assert engine.docker("rmi", "mounted:1").stdout.splitlines() == ["Untagged: mounted:1", f"Deleted: {id}"]


@pytest.mark.core
def test_prune_of_images(engine: Engine) -> None:
    labelled = load(engine, "prune/kept:1", Labels={"keep": "yes"})
    old = load(engine, "prune/moved:1", size=500_000)
    load(engine, "prune/moved:1")
    assert "invalid filter" in engine.docker("image", "prune", "-f", "--filter", "no=1", check=False).stderr
    done = engine.docker("system", "prune", "-f", "--filter", "label!=keep=yes", "--filter", "until=100000h")
    assert done.stdout.splitlines()[-1] == "Total reclaimed space: 0B"
    assert "Total reclaimed space: 0B" in engine.docker("image", "prune", "-f", "--filter", "until=1h").stdout
    answer = engine.api.post("/images/prune").json()
    assert {"Untagged": old} in answer["ImagesDeleted"]
    assert {"Deleted": old} in answer["ImagesDeleted"]
    assert answer["SpaceReclaimed"] > 500_000
    assert engine.api.get(f"/images/{old}/json").status == 404
    with user(engine, "busybox", running=False):
        filters = json.dumps({"dangling": ["false"], "label!": ["keep=yes"], "until": ["0s"]})
        answer = engine.api.post("/images/prune", filters=filters).json()
        assert "prune/moved:1" in [line.get("Untagged") for line in answer["ImagesDeleted"]]
        assert engine.api.get("/images/busybox/json").status == 200
    assert engine.api.get("/images/prune/moved:1/json").status == 404
    assert engine.api.get("/images/prune/kept:1/json").json()["Id"] == labelled


def test_prune_keeps_names_used_by_containers(engine: Engine) -> None:
    """By id or digest, the last of the image's sorted names; by name, that name."""
    id = load(engine, "asked:b", Labels={"asked": "yes"})

    def untagged(reference: str) -> list[str]:
        for tag in "abcd":
            engine.docker("tag", id, f"asked:{tag}")
        with user(engine, reference, running=False):
            filters = json.dumps({"dangling": ["false"], "label": ["asked=yes"]})
            found = engine.api.post("/images/prune", filters=filters).json()["ImagesDeleted"]
        assert all("Untagged" in line for line in found)
        assert engine.api.get(f"/images/{id}/json").status == 200
        return sorted(line["Untagged"] for line in found)

    assert untagged(id) == ["asked:a", "asked:b", "asked:c"]
    assert untagged(id[7:19]) == ["asked:a", "asked:b", "asked:c"]
    assert untagged("asked:b") == ["asked:a", "asked:c", "asked:d"]
    assert untagged(f"asked:b@{id}") == ["asked:a", "asked:c", "asked:d"]
    assert untagged(f"asked@{id}") == ["asked:a", "asked:b", "asked:c"]
    engine.docker("rmi", "-f", id)


def test_events_of_images(engine: Engine, tmp_path: Path) -> None:
    """Names and labels equal those of dockerd with the containerd image store."""
    one, two, made, name = (f"events-{uuid.uuid4().hex[:8]}" for _ in range(4))
    since = time.time()
    load(engine, f"{one}:1", Labels={"a": "b"})
    image = engine.api.get(f"/images/{one}:1/json").json()["Id"]
    engine.docker("tag", f"{one}:1", two)
    engine.docker("save", "-o", str(tmp_path / "saved"), two)
    engine.docker("rmi", f"{one}:1", two)
    imported = engine.docker("import", "-c", "LABEL x=y", "-", f"{made}:1", input=layer({"f": made})).stdout.strip()
    engine.docker("create", "--name", name, "--network", "none", f"{made}:1", "/f")
    try:
        committed = engine.docker("commit", "-c", "LABEL c=d", name, f"{made}:2").stdout.strip()
    finally:
        engine.docker("rm", name)
    engine.docker("rmi", f"{made}:2", f"{made}:1")
    filters = json.dumps({"type": ["image"]})
    answer = engine.api.get("/events", since=f"{since:.6f}", until=f"{time.time() + 0.001:.6f}", filters=filters)
    found = [
        (event["Action"], event["Actor"]["ID"], event["Actor"]["Attributes"])
        for event in answer.lines()
        if event["Actor"]["ID"] in (image, imported, committed)
    ]
    assert found == [
        ("load", image, {"name": image, "a": "b"}),
        ("tag", image, {"name": f"{two}:latest", "a": "b"}),
        ("save", image, {"name": image, "a": "b"}),
        ("untag", image, {"name": f"{one}:1"}),
        ("untag", image, {"name": f"{two}:latest"}),
        ("delete", image, {"name": image}),
        ("tag", imported, {"name": f"{made}:1", "x": "y"}),
        ("import", imported, {"name": imported, "x": "y"}),
        ("create", committed, {"name": committed, "x": "y", "c": "d"}),
        ("tag", committed, {"name": f"{made}:2", "x": "y", "c": "d"}),
        ("untag", committed, {"name": f"{made}:2"}),
        ("delete", committed, {"name": committed}),
        ("untag", imported, {"name": f"{made}:1"}),
        ("delete", imported, {"name": imported}),
    ]
