"""/containers: statuses, sentences and JSON shapes, without a container that runs on this host."""

import json
from pathlib import Path
from typing import Any

import pytest

from server.tests.daemon import Daemon, serving

EXPERIMENTAL = (
    "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to"
    " enable it."
)
BAD_POLICY = (
    "invalid restart policy: unknown policy 'never'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
)
BAD_BIND = (
    "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path"
    " must be absolute"
)


def names(daemon: Daemon, version: str = "", **query: object) -> list[str]:
    if "filters" in query:
        query["filters"] = json.dumps(query["filters"])
    rows = daemon.get(f"{version}/containers/json", **query).json()
    return [row["Names"][0].removeprefix("/") for row in rows]


@pytest.fixture
def daemon(daemon: Daemon) -> Daemon:
    daemon.load("busybox:latest", config={"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"from": "image"}})
    return daemon


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/containers/nope/json", 404, "No such container: nope"),
        ("POST", "/containers/nope/start", 404, "No such container: nope"),
        ("POST", "/containers/nope/stop", 404, "No such container: nope"),
        ("POST", "/containers/nope/kill", 404, "cannot kill container: nope: No such container: nope"),
        ("POST", "/containers/created/kill?signal=XYZ", 400, "cannot kill container: created: invalid signal: XYZ"),
        ("POST", "/containers/nope/rename?name=a", 404, "No such container: nope"),
        ("POST", "/containers/created/rename", 400, "Neither old nor new names may be empty"),
        ("POST", "/containers/created/wait?condition=never", 400, 'invalid condition: "never"'),
        ("DELETE", "/containers/nope", 404, "No such container: nope"),
        ("GET", "/containers/created/archive", 400, "bad parameter: path"),
        ("GET", "/containers/created/checkpoints", 501, EXPERIMENTAL),
        ("POST", "/containers/created/resize?h=1", 400, 'invalid resize width "": invalid syntax'),
        ("GET", "/containers/json?limit=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("GET", "/containers/json?filters=x", 400, "invalid filter"),
        ("GET", '/containers/json?filters={"nope":["x"]}', 400, "invalid filter 'nope'"),
        ("GET", '/containers/json?filters={"status":["nope"]}', 400, "invalid filter 'status=nope'"),
        ("GET", '/containers/json?filters={"before":["nope"]}', 404, "No such container: nope"),
        ("GET", "/containers/created/logs?stdout=1&since=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
def test_refusals(shared_daemon: Daemon, method: str, path: str, status: int, sentence: str) -> None:
    assert shared_daemon.refusal(method, path) == (status, sentence)


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({}, 400, "config cannot be empty in order to create a container"),
        ({"Image": "nope"}, 404, "No such image: nope:latest"),
        ({"Image": "UPPER"}, 400, "invalid reference format: repository name (library/UPPER) must be lowercase"),
        ({"HostConfig": {"Memory": 1}}, 400, "Minimum memory limit allowed is 6MB"),
        (
            {"HostConfig": {"NetworkMode": "container:"}},
            400,
            "invalid network mode: invalid container format container:<name|id>",
        ),
        (
            {"HostConfig": {"RestartPolicy": {"Name": "never"}}},
            400,
            BAD_POLICY,
        ),
        (
            {"HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}},
            400,
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            {"HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"nope": "1"}}}},
            400,
            "unknown log opt 'nope' for json-file log driver",
        ),
        (
            {"HostConfig": {"Binds": ["/a:b"]}},
            500,
            BAD_BIND,
        ),
        (
            {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 1}},
            400,
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            {"NetworkingConfig": {"EndpointsConfig": {"bridge": None}}},
            400,
            "invalid config for network bridge: EndpointsConfig is nil",
        ),
    ],
)
def test_a_create_that_is_refused(shared_daemon: Daemon, body: dict[str, Any], status: int, sentence: str) -> None:
    expected = {"Image": "busybox", "Cmd": ["true"], **body} if body else body
    assert shared_daemon.refusal("POST", "/containers/create", json=expected) == (status, sentence)
    assert names(shared_daemon, all=1) == ["running", "created"]  # nothing is left of it


def test_bodies_that_are_no_json(shared_daemon: Daemon) -> None:
    def said(content: bytes, kind: str | None) -> tuple[int, str]:
        headers = {} if kind is None else {"content-type": kind}
        return shared_daemon.refusal("POST", "/containers/create", content=content, headers=headers)

    assert said(b"{}", None) == (400, "malformed Content-Type header (): mime: no media type")
    assert said(b"{}", "text/plain") == (
        400,
        "unsupported Content-Type header (text/plain): must be 'application/json'",
    )
    assert said(b"{", "application/json")[0] == 400
    assert said(b'{"Image": 1}', "application/json")[0] == 400
    sentence = "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
    start = shared_daemon.refusal("POST", "/containers/created/start", content=b'{"a": "bcdef"}')
    assert start == (400, sentence)


def test_create_answers_with_the_id_and_makes_an_event(daemon: Daemon) -> None:
    answer = daemon.post("/containers/create", {"Image": "busybox", "Labels": {"a": "b"}}, name="one")
    assert (answer.status_code, answer.json()["Warnings"]) == (201, [])
    identity = answer.json()["Id"]
    assert len(identity) == 64
    [event] = daemon.events(type=["container"])
    assert (event["Action"], event["Actor"]["ID"]) == ("create", identity)
    assert event["Actor"]["Attributes"] == {"a": "b", "from": "image", "image": "busybox", "name": "one"}
    conflict = daemon.refusal("POST", "/containers/create", params={"name": "one"}, json={"Image": "busybox"})
    assert conflict == (
        409,
        f'Conflict. The container name "/one" is already in use by container "{identity}". '
        "You have to remove (or rename) that container to be able to reuse that name.",
    )


def test_inspect_merges_the_images_configuration(daemon: Daemon) -> None:
    identity = daemon.create("one", Cmd=None, Env=["A=1"])
    shown = daemon.get("/containers/one/json").json()
    assert (shown["Id"], shown["Name"], shown["Path"], shown["Args"]) == (identity, "/one", "sh", [])
    assert shown["Config"]["Env"] == ["A=1", "PATH=/bin"]
    assert shown["Config"]["Hostname"] == identity[:12]
    assert shown["State"] == {
        **dict.fromkeys(("Running", "Paused", "Restarting", "OOMKilled", "Dead"), False),
        **{"Status": "created", "Pid": 0, "ExitCode": 0, "Error": ""},
        **dict.fromkeys(("StartedAt", "FinishedAt"), "0001-01-01T00:00:00Z"),
    }
    assert daemon.get(f"/containers/{identity[:5]}/json").json()["Id"] == identity


def test_what_two_versions_show(daemon: Daemon) -> None:
    daemon.create("one")
    old, new = (daemon.get(f"/{version}/containers/one/json").json() for version in ("v1.43", "v1.51"))
    assert "ImageManifestDescriptor" not in old
    assert new["ImageManifestDescriptor"]["platform"] == {"architecture": "amd64", "os": "linux"}
    listed = [daemon.get(f"/{version}/containers/json", all=1).json()[0] for version in ("v1.43", "v1.51")]
    assert ["ImageManifestDescriptor" in row for row in listed] == [False, True]


def test_what_1_52_adds(daemon: Daemon) -> None:
    daemon.create("one")
    old, new = (daemon.get(f"/{version}/containers/one/json").json() for version in ("v1.51", "v1.52"))
    assert ("Storage" not in old, new["Storage"]) == (True, {"RootFS": {"Snapshot": {"Name": new["Driver"]}}})
    assert old["GraphDriver"] == new["GraphDriver"]
    listed = [daemon.get(f"/{version}/containers/json", all=1).json()[0] for version in ("v1.51", "v1.52")]
    assert "Health" not in listed[0]
    assert listed[1]["Health"] == {"Status": "none", "FailingStreak": 0}


def test_the_strict_mode_drops_what_1_52_dropped(tmp_path: Path) -> None:
    with serving(tmp_path, features={"strict-api": True}) as daemon:
        daemon.load("busybox:latest")
        daemon.create("one")
        old, new = (daemon.get(f"/{version}/containers/one/json").json() for version in ("v1.51", "v1.52"))
    assert (old["NetworkSettings"]["IPAddress"], old["GraphDriver"]["Name"]) == ("", old["Driver"])
    assert set(new["NetworkSettings"]) == {"SandboxID", "SandboxKey", "Ports", "Networks"}
    assert "GraphDriver" not in new
    assert ("OnBuild" in old["Config"], "OnBuild" in new["Config"]) == (True, False)


def test_what_create_says_by_version(daemon: Daemon) -> None:
    def warnings(version: str, **body: Any) -> Any:
        answer = daemon.post(f"/v{version}/containers/create", {"Image": "busybox", **body})
        return answer.json().get("Warnings", answer.json().get("message"))

    mac = "02:42:ac:11:00:99"
    for version in ("1.51", "1.55"):
        assert "deprecated" in warnings(version, MacAddress=mac)[0]
    ports = {"PortBindings": {"80/tcp": [], "81/tcp": None, "82/tcp": [{"HostPort": "8082"}]}}
    assert warnings("1.51", HostConfig=ports) == []
    [warning] = warnings("1.52", HostConfig=ports)
    assert warning.startswith("Following container port(s) have an empty list of port-bindings: 80/tcp, 81/tcp. Such")
    for row in daemon.get("/containers/json", all=1).json():
        if bindings := daemon.get(f"/containers/{row['Id']}/json").json()["HostConfig"]["PortBindings"]:
            assert bindings["80/tcp"] == bindings["81/tcp"] == [{"HostIp": "", "HostPort": ""}]


def test_limits_by_device_are_updated_since_1_55(daemon: Daemon) -> None:
    path, rate = "/dev/null", {"Path": "/dev/null", "Rate": 1}
    daemon.create("one", HostConfig={"BlkioDeviceReadBps": [rate]})

    def update(version: str, **body: Any) -> Any:
        assert daemon.post(f"/v{version}/containers/one/update", body).status_code == 200
        return daemon.get("/containers/one/json").json()["HostConfig"]["BlkioDeviceReadBps"]

    before = daemon.get("/containers/one/json").json()["HostConfig"]["BlkioDeviceReadBps"]
    changed = [{"Path": path, "Rate": 2}]
    assert update("1.54", BlkioDeviceReadBps=changed) == before
    assert update("1.55", BlkioDeviceReadBps=None) == before
    assert update("1.55", BlkioDeviceReadBps=[]) == []


def test_a_list_is_filtered(daemon: Daemon) -> None:
    first = daemon.create("first", Labels={"kind": "a"})
    daemon.create("second", Labels={"kind": "b"}, HostConfig={"NetworkMode": "none"})
    daemon.run("third")
    assert names(daemon) == ["third"]
    assert names(daemon, all="true") == names(daemon, all="yes") == ["third", "second", "first"]
    assert names(daemon, all="0") == names(daemon, all="False") == ["third"]
    assert names(daemon, limit=2) == ["third", "second"]
    for filters, expected in (
        ({"label": ["kind"]}, ["second", "first"]),
        ({"label": ["kind=a"]}, ["first"]),
        ({"label": ["kind=a", "kind=b"]}, []),
        ({"label": {"kind=a": True}}, ["first"]),
        ({"id": [first[:6]]}, ["first"]),
        ({"name": ["ir"]}, ["third", "first"]),
        ({"name": ["^/first$"]}, ["first"]),
        ({"status": ["created"]}, ["second", "first"]),
        ({"status": ["running", "created"]}, ["third", "second", "first"]),
        ({"before": ["second"]}, ["first"]),
        ({"since": ["second"]}, ["third"]),
        ({"ancestor": ["busybox"]}, ["third", "second", "first"]),
        ({"ancestor": ["nope"]}, []),
        ({"network": ["none"]}, ["second"]),
        ({"volume": ["nope"]}, []),
        ({"health": ["none"]}, ["third", "second", "first"]),
    ):
        assert names(daemon, all=1, filters=filters) == expected, filters


def test_rename_and_remove(daemon: Daemon) -> None:
    daemon.create("one")
    daemon.create("two")
    status, sentence = daemon.refusal("POST", "/containers/one/rename", params={"name": "two"})
    assert status == 409
    assert "already in use by container" in sentence
    answer = daemon.post("/containers/one/rename", name="three")
    assert (answer.status_code, answer.content) == (204, b"")
    assert daemon.get("/containers/one/json").status_code == 404
    answer = daemon.delete("/containers/three")
    assert (answer.status_code, answer.content) == (204, b"")
    assert names(daemon, all=1) == ["two"]
    container = daemon.run("four")
    sentence = (
        'cannot remove container "/four": container is running: stop the container before removing or force remove'
    )
    assert daemon.refusal("DELETE", "/containers/four") == (409, sentence)
    assert container.state.running
    actions = [event["Action"] for event in daemon.events(container=["three"])]
    assert actions == ["rename", "destroy"]


def test_states_that_do_not_fit(daemon: Daemon) -> None:
    identity = daemon.create("one")
    assert daemon.post("/containers/one/stop").status_code == 304
    assert daemon.post("/containers/one/stop").content == b""
    for verb, sentence in (
        ("pause", f"container {identity} is not running"),
        ("unpause", f"Container {identity} is not paused"),
        ("kill", f"cannot kill container: one: container {identity} is not running"),
        ("exec", f"container {identity} is not running"),
    ):
        body = {"Cmd": ["true"]} if verb == "exec" else None
        assert daemon.refusal("POST", f"/containers/one/{verb}", json=body)[1] == sentence
    container = daemon.run("two")
    assert daemon.post("/containers/two/start").status_code == 304
    assert daemon.post("/containers/two/pause").status_code == 204
    assert container.state.paused
    assert daemon.refusal("POST", "/containers/two/pause") == (409, f"Container {container.id} is already paused")
    assert daemon.post("/containers/two/unpause").status_code == 204


def test_wait_answers_with_the_exit_code(daemon: Daemon) -> None:
    daemon.create("one")
    answer = daemon.post("/containers/one/wait")
    assert (answer.status_code, answer.json()) == (200, {"StatusCode": 0})


def test_prune_takes_what_does_not_run(daemon: Daemon) -> None:
    one, two = daemon.create("one", Labels={"keep": "1"}), daemon.create("two")
    daemon.run("three")
    assert daemon.refusal("POST", "/containers/prune", params={"filters": '{"name":["x"]}'})[0] == 400
    answer = daemon.post("/containers/prune", filters='{"label!":["keep"]}').json()
    assert answer["ContainersDeleted"] == [two]
    assert daemon.post("/containers/prune").json()["ContainersDeleted"] == [one]
    assert daemon.post("/containers/prune").json() == {"ContainersDeleted": None, "SpaceReclaimed": 0}


def test_update_of_a_container_that_does_not_run(daemon: Daemon) -> None:
    daemon.create("one")
    answer = daemon.post("/containers/one/update", {"RestartPolicy": {"Name": "always"}})
    assert (answer.status_code, answer.json()) == (200, {"Warnings": None})
    assert daemon.get("/containers/one/json").json()["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert daemon.refusal("POST", "/containers/one/update", json={"RestartPolicy": {"Name": "x"}})[0] == 400
