"""Images over the fake engine: names, lists and their filters, removal, prune, archives, commit and import."""

import io
import json
import random
import tarfile
from typing import Any

import pytest

from server.registry.tests.servers import scripted
from server.tests import samples
from server.tests.daemon import Daemon

NOT_LOWER = "invalid reference format: repository name (library/UPPER) must be lowercase"


def tags(daemon: Daemon, **filters: list[str]) -> list[str]:
    """The names that a list with these filters shows, sorted; an image without one by its id."""
    answer = daemon.get("/images/json", filters=json.dumps(filters))
    assert answer.status_code == 200, answer.text
    return sorted(name for image in answer.json() for name in image["RepoTags"] or [image["Id"]])


def stream(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_registry_that_limits_requests(daemon: Daemon) -> None:
    """The statuses of dockerd 26.1; its sentence for a login is another one."""
    limit = {"errors": [{"code": "TOOMANYREQUESTS", "message": "you have reached your limit"}]}
    with scripted(lambda request: (429, {"retry-after": "0.01"}, json.dumps(limit).encode())) as registry:
        name = f"{registry.address}/team/app"
        login = {"username": "ali", "password": "x", "serveraddress": registry.address}
        answers = [
            daemon.get(f"/distribution/{name}:1/json"),
            daemon.post("/images/create", fromImage=name, tag="1"),
            daemon.post("/auth", login),
        ]
    assert [answer.status_code for answer in answers] == [429, 500, 500]
    assert {answer.json()["message"] for answer in answers} == {"toomanyrequests: you have reached your limit"}


def test_list_and_inspect(daemon: Daemon) -> None:
    files = {"bin/sh": b"#!" * 100, "etc/passwd": b"root"}
    identity = daemon.load("app:1", "lab:5000/app:2", config={"Labels": {"a": "b"}, "Cmd": ["sh"]}, files=files)
    [row] = daemon.get("/images/json").json()
    assert (row["Id"], row["RepoTags"]) == (identity, ["app:1", "lab:5000/app:2"])
    assert row["RepoDigests"] == [f"app@{identity}", f"lab:5000/app@{identity}"]
    assert (row["Labels"], row["Created"], row["SharedSize"], row["Containers"]) == ({"a": "b"}, 1704164645, -1, 0)
    shown = daemon.get("/images/app:1/json").json()
    assert (shown["Id"], shown["Architecture"], shown["Os"]) == (identity, "amd64", "linux")
    assert shown["Created"] == "2024-01-02T03:04:05Z"
    assert (shown["Config"]["Cmd"], shown["Config"]["Labels"]) == (["sh"], {"a": "b"})
    assert shown["RootFS"]["Type"] == "layers"
    assert row["Size"] - shown["Size"] == 204  # the list counts the unpacked layer, too, as dockerd's does
    for name in (identity, identity[7:19], f"app@{identity}", "docker.io/library/app:1"):
        assert daemon.get(f"/images/{name}/json").json()["Id"] == identity, name


def test_what_two_versions_show(daemon: Daemon) -> None:
    daemon.load("app:1")
    daemon.create("one", Image="app:1")
    old, new = (daemon.get(f"/v{version}/images/json").json()[0] for version in ("1.43", "1.51"))
    assert (old["VirtualSize"], old["Containers"]) == (old["Size"], -1)
    assert "VirtualSize" not in new
    assert new["Containers"] == 1
    assert [set(row) & {"Descriptor", "Manifests"} for row in (old, new)] == [set(), {"Descriptor"}]
    asked = [daemon.get(f"/v{version}/images/json", manifests=1).json()[0] for version in ("1.46", "1.47")]
    assert ["Manifests" in row for row in asked] == [False, True]
    old, new = (daemon.get(f"/v{version}/images/app:1/json").json() for version in ("1.43", "1.51"))
    assert old["VirtualSize"] == old["Size"]
    assert old["ContainerConfig"] == {}
    assert not {"VirtualSize", "ContainerConfig", "Container"} & set(new)
    assert old["Config"]["Hostname"] == ""
    assert "Hostname" not in new["Config"]


def test_an_image_without_a_name_by_version(daemon: Daemon) -> None:
    daemon.load()
    old, new = (daemon.get(f"/v{version}/images/json").json()[0] for version in ("1.42", "1.43"))
    assert (old["RepoTags"], old["RepoDigests"]) == (["<none>:<none>"], ["<none>@<none>"])
    assert (new["RepoTags"], new["RepoDigests"]) == ([], [])


def test_a_list_is_filtered(daemon: Daemon) -> None:
    daemon.load("app:1", "app:2", files={"a": b"1"}, config={"Labels": {"kind": "app"}})
    daemon.load("lab:5000/tool:1", files={"a": b"2"}, config={"Labels": {"kind": "tool"}})
    nameless = daemon.load(files={"a": b"3"})
    for filters, expected in (
        ({}, ["app:1", "app:2", "lab:5000/tool:1", nameless]),
        ({"dangling": ["true"]}, [nameless]),
        ({"dangling": ["0"]}, ["app:1", "app:2", "lab:5000/tool:1"]),
        ({"label": ["kind"]}, ["app:1", "app:2", "lab:5000/tool:1"]),
        ({"label": ["kind=tool"]}, ["lab:5000/tool:1"]),
        ({"reference": ["app"]}, ["app:1", "app:2"]),
        ({"reference": ["app:2"]}, ["app:2"]),
        ({"reference": ["*:1"]}, ["app:1"]),
        ({"reference": ["lab:5000/*"]}, ["lab:5000/tool:1"]),
        ({"before": ["nope"]}, None),
    ):
        if expected is None:
            assert daemon.refusal("GET", "/images/json", params={"filters": json.dumps(filters)})[0] == 404
        else:
            assert tags(daemon, **filters) == sorted(expected), filters


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/images/nope/json", 404, "No such image: nope:latest"),
        ("GET", "/images/UPPER/json", 400, NOT_LOWER),
        ("GET", "/images/nope/history", 404, "No such image: nope:latest"),
        ("DELETE", "/images/nope", 404, "No such image: nope:latest"),
        ("DELETE", "/images/%20", 400, "image name cannot be blank"),
        ("POST", "/images/nope/tag?repo=a", 404, "No such image: nope:latest"),
        ("POST", "/images/busybox/tag", 400, "invalid reference format"),
        ("POST", "/images/busybox/tag?repo=a&tag=b/c", 400, "invalid tag format"),
        (
            "POST",
            f"/images/busybox/tag?repo=a@sha256:{'0' * 64}",
            400,
            "refusing to create a tag with a digest reference",
        ),
        ("GET", "/images/get?names=nope", 404, "No such image: nope:latest"),
        ("GET", "/images/json?filters={%22nope%22:[]}", 400, "invalid filter 'nope'"),
        ("GET", "/images/json?filters={%22dangling%22:[%22x%22]}", 400, "invalid filter 'dangling=[x]'"),
        ("POST", "/images/prune?filters={%22reference%22:[%22x%22]}", 400, "invalid filter 'reference'"),
        ("POST", "/images/create?fromImage=scratch", 403, "'scratch' is a reserved name"),
        ("POST", "/images/create?fromImage=UPPER", 400, NOT_LOWER),
        ("GET", "/images/search", 400, "invalid search term: it is empty"),
        ("GET", "/images/search?term=a&limit=101", 400, "limit 101 is outside the range of [1, 100]"),
        ("GET", "/images/search?term=a&filters={%22nope%22:[]}", 400, "invalid filter 'nope'"),
        (
            "GET",
            "/images/search?term=a&filters={%22stars%22:[%22x%22]}",
            400,
            "invalid filter 'stars=x': strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        ("POST", "/commit?container=nope", 404, "No such container: nope"),
        ("GET", "/images/busybox/json?platform=a/b/c/d", 400, None),
        ("GET", "/images/busybox/json?platform={", 400, "failed to parse platform: {"),
    ],
)  # fmt: skip
def test_refusals(shared_daemon: Daemon, method: str, path: str, status: int, sentence: str | None) -> None:
    found = shared_daemon.refusal(method, path)
    assert found[0] == status
    assert sentence is None or found[1] == sentence


def test_tag_and_remove(daemon: Daemon) -> None:
    identity = daemon.load("app:1")
    answer = daemon.post("/images/app:1/tag", repo="lab:5000/team/app", tag="x")
    assert (answer.status_code, answer.content) == (201, b"")
    assert daemon.post("/images/app:1/tag", repo="other").status_code == 201
    assert tags(daemon) == ["app:1", "lab:5000/team/app:x", "other:latest"]
    assert daemon.refusal("DELETE", f"/images/{identity}") == (
        409,
        f"conflict: unable to delete {identity[7:19]} (must be forced) - image is referenced in multiple repositories",
    )
    assert daemon.delete("/images/other").json() == [{"Untagged": "other:latest"}]
    assert daemon.delete("/images/lab:5000/team/app:x").json() == [{"Untagged": "lab:5000/team/app:x"}]
    assert daemon.delete("/images/app:1").json() == [{"Untagged": "app:1"}, {"Deleted": identity}]
    assert tags(daemon) == []
    actions = [event["Action"] for event in daemon.events(type=["image"])]
    assert actions == ["load", "tag", "tag", "untag", "untag", "untag", "delete"]


def test_an_image_that_a_container_uses(daemon: Daemon) -> None:
    identity = daemon.load("app:1")
    container = daemon.create("one", Image="app:1")
    short, user = identity[7:19], container[:12]
    assert daemon.refusal("DELETE", "/images/app:1") == (
        409,
        f"conflict: unable to delete app:1 (must be forced) - container {user} is using its referenced image {short}",
    )
    assert daemon.refusal("DELETE", f"/images/{identity}") == (
        409,
        f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container {user}",
    )
    running = daemon.run("two", Image="app:1").id[:12]
    assert daemon.refusal("DELETE", f"/images/{identity}", params={"force": 1}) == (
        409,
        f"conflict: unable to delete {short} (cannot be forced) - image is being used by running container {running}",
    )
    # By its name it goes, and stays as an image without one.
    assert daemon.delete("/images/app:1", force=1).json() == [{"Untagged": "app:1"}]
    assert tags(daemon) == [identity]


def test_prune(daemon: Daemon) -> None:
    kept, used, nameless = (
        daemon.load("kept:1", files={"a": b"1"}),
        daemon.load("used:1", files={"a": b"2"}),
        daemon.load(files={"a": b"3"}),
    )
    daemon.create("one", Image="used:1")
    answer = daemon.post("/images/prune").json()
    assert {"Untagged": nameless} in answer["ImagesDeleted"]
    assert {"Deleted": nameless} in answer["ImagesDeleted"]
    assert answer["SpaceReclaimed"] > 0
    assert tags(daemon) == ["kept:1", "used:1"]
    before = daemon.get("/system/df").json()["ImageUsage"]["TotalSize"]
    answer = daemon.post("/images/prune", filters='{"dangling":["false"]}').json()
    # Of blobs and of unpacked layers, as dockerd 29 counts.
    assert answer["SpaceReclaimed"] == before - daemon.get("/system/df").json()["ImageUsage"]["TotalSize"]
    assert {"Untagged": "kept:1"} in answer["ImagesDeleted"]
    assert {"Deleted": kept} in answer["ImagesDeleted"]
    assert tags(daemon) == ["used:1"]
    assert daemon.post("/images/prune", filters='{"dangling":["false"]}').json() == {
        "ImagesDeleted": None,
        "SpaceReclaimed": 0,
    }
    assert daemon.get(f"/images/{used}/json").status_code == 200


def test_save_and_load(daemon: Daemon) -> None:
    identity = daemon.load("app:1", files={"a": b"1"})
    answer = daemon.get("/images/app:1/get")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        names = set(archive.getnames())
    assert {"manifest.json", "index.json", "oci-layout", f"blobs/sha256/{identity[7:]}"} <= names
    assert daemon.get("/images/get", names="app:1").content == answer.content
    daemon.delete("/images/app:1")
    loaded = daemon.request("POST", "/images/load", content=answer.content)
    assert stream(loaded.text) == [{"stream": "Loaded image: app:1\n"}]
    assert daemon.get("/images/app:1/json").json()["Id"] == identity


def test_a_load_over_a_name(daemon: Daemon) -> None:
    old = daemon.load("app:1", files={"a": b"1"})
    answer = daemon.request("POST", "/images/load", content=samples.archive(["app:1"], samples.layer({"a": b"2"}), {}))
    assert [message["stream"] for message in stream(answer.text)] == [
        f"The image app:1 already exists, renaming the old one with ID {old} to empty string\n",
        "Loaded image: app:1\n",
    ]
    assert tags(daemon, dangling=["true"]) == [old]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "unrecognized image format"),
        (b"hello world\n", "unexpected EOF"),
        (samples.layer({"x": b"y"}), "unrecognized image format"),
        (samples.layer({"manifest.json": b"{"}), "invalid JSON"),
        (samples.archive(["a:1"], samples.layer({"a": b"1"}), {})[:3000], "unexpected EOF"),
    ],
)
def test_a_broken_archive_is_an_error_in_the_stream(shared_daemon: Daemon, data: bytes, sentence: str) -> None:
    answer = shared_daemon.request("POST", "/images/load", content=data)
    assert answer.status_code == 200
    [message] = stream(answer.text)
    assert sentence in message["error"]
    assert message["errorDetail"] == {"message": message["error"]}
    assert tags(shared_daemon) == ["busybox:latest"]


def test_history(daemon: Daemon) -> None:
    identity = daemon.load("app:1", files={"a": b"12345"})
    assert daemon.get("/images/app:1/history").json() == [
        {"Comment": "", "Created": 1704164645, "CreatedBy": "ADD file", "Id": identity, "Size": 5, "Tags": ["app:1"]}
    ]


def test_commit(daemon: Daemon) -> None:
    base = daemon.load("app:1", config={"Cmd": ["sh"], "Env": ["A=1"], "Labels": {"a": "b"}})
    daemon.create("one", Image="app:1", Cmd=["top"])
    body = {"Env": ["B=2"], "Labels": {"c": "d"}}
    answer = daemon.post("/commit", body, container="one", repo="made", tag="1", author="ali", comment="why")
    assert answer.status_code == 201
    identity = answer.json()["Id"]
    shown = daemon.get("/images/made:1/json").json()
    assert (shown["Id"], shown["Author"], shown["Comment"]) == (identity, "ali", "why")
    assert sorted(shown["Config"]["Env"]) == ["A=1", "B=2"]
    assert shown["Config"]["Labels"] == {"a": "b", "c": "d"}
    layers = [daemon.get(f"/images/{name}/json").json()["RootFS"]["Layers"] for name in (base, identity)]
    assert layers[1][: len(layers[0])] == layers[0]
    changed = daemon.post("/commit", container="one", changes=['CMD ["x"]', "ENV C=3"]).json()["Id"]
    config = daemon.get(f"/images/{changed}/json").json()["Config"]
    assert config["Cmd"] == ["x"]
    assert "C=3" in config["Env"]
    refused = daemon.refusal("POST", "/commit", params={"container": "one", "changes": "RUN x"})
    assert refused == (400, "RUN is not a valid change command")
    assert daemon.events(event=["commit"])[0]["Actor"]["Attributes"]["imageID"] == identity


def test_import(daemon: Daemon) -> None:
    data = samples.layer({"bin/sh": b"#!", "etc/passwd": b""})
    query = {"fromSrc": "-", "repo": "made", "tag": "1", "message": "from a test", "changes": 'CMD ["sh"]'}
    answer = daemon.request("POST", "/images/create", params=query, content=data)
    *_, last = stream(answer.text)
    shown = daemon.get("/images/made:1/json").json()
    assert last["status"] == shown["Id"]
    assert (shown["Config"]["Cmd"], shown["Comment"]) == (["sh"], "from a test")
    assert len(shown["RootFS"]["Layers"]) == 1
    for query, sentence in (
        ({"fromSrc": "-", "repo": f"a@sha256:{'0' * 64}"}, "cannot import digest reference"),
        ({"fromSrc": "ftp://x/y"}, "invalid URL: 'ftp://x/y'"),
    ):
        assert daemon.refusal("POST", "/images/create", params=query, content=data) == (400, sentence)


def test_a_load_shows_the_progress_of_its_layers_on_request(daemon: Daemon) -> None:
    data = samples.archive(["app:1"], samples.layer({"a": random.randbytes(3 << 20)}), {})
    for query, shown in (({}, False), ({"quiet": "1"}, False), ({"quiet": "0"}, True)):
        answer = daemon.request("POST", "/images/load", content=data, params=query)
        messages = [json.loads(line) for line in answer.text.splitlines()]
        bars = [message for message in messages if message.get("status") == "Loading layer"]
        assert bool(bars) is shown, query
        assert messages[-1] == {"stream": "Loaded image: app:1\n"}
    detail = bars[-1]["progressDetail"]
    assert detail["current"] == detail["total"] > 3 << 20
    assert bars[-1]["id"] == "layer.tar"
