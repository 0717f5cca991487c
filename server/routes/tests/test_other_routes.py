"""Versions, unknown paths, what is refused by name, and the routes of networks, volumes and events."""

import json
from typing import Any

import pytest

from server.routes import all_routes
from server.tests.daemon import Daemon


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.23", "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client"),
        ("1.52", "client version 1.52 is too new. Maximum supported API version is 1.51"),
        ("2.0", "client version 2.0 is too new. Maximum supported API version is 1.51"),
    ],
)
def test_versions_that_are_not_served(shared_daemon: Daemon, version: str, words: str) -> None:
    for path in ("/info", "/_ping", "/containers/json"):
        status, sentence = shared_daemon.refusal("GET", f"/v{version}{path}")
        assert status == 400
        assert sentence.startswith(words)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nope"), ("GET", "/v1.41/nope"), ("PUT", "/info"), ("POST", "/containers/json"), ("GET", "/v1.41")],
)
def test_unknown_paths_and_wrong_methods(shared_daemon: Daemon, method: str, path: str) -> None:
    assert shared_daemon.refusal(method, path) == (404, "page not found")


def test_every_route_answers_with_and_without_a_version(daemon: Daemon) -> None:
    """Whatever it says to names that nothing has, it is no "page not found"."""
    for route in all_routes():
        if route.waits or route.path in ("/grpc", "/session"):
            continue
        path = route.path
        for name in ("name", "id", "checkpoint"):
            path = path.replace(f"{{{name}}}", "nope").replace(f"{{{name}:path}}", "nope")
        for prefix in ("", f"/v{route.until or '1.51'}"):
            answer = daemon.request(route.method, f"{prefix}{path}")
            found = answer.json() if answer.status_code >= 400 and answer.content else {}
            assert found.get("message") != "page not found", path


def test_a_route_that_came_later(shared_daemon: Daemon) -> None:
    sentence = "POST /containers/prune requires minimum API version 1.25"
    assert shared_daemon.refusal("POST", "/v1.24/containers/prune") == (400, sentence)


def test_paths_are_cleaned(shared_daemon: Daemon) -> None:
    for path, clean in (("//info", "/info"), ("/containers//json?all=1", "/containers/json?all=1")):
        answer = shared_daemon.request("GET", f"http://docker{path}")
        assert (answer.status_code, answer.headers["location"]) == (301, clean), path


@pytest.mark.parametrize(
    ("method", "path", "status", "part"),
    [
        ("GET", "/swarm", 503, "This node is not a swarm manager"),
        ("GET", "/services", 503, "This node is not a swarm manager"),
        ("POST", "/secrets/create", 503, "This node is not a swarm manager"),
        ("POST", "/swarm/leave", 503, "This node is not part of a swarm"),
        ("POST", "/swarm/init", 501, "swarm mode is not part of this engine"),
        ("POST", "/plugins/pull", 501, "managed plugins are not part of this engine"),
        ("GET", "/plugins/nope/json", 404, 'plugin "nope" not found'),
        ("PUT", "/volumes/nope", 503, "volume update only valid for cluster volumes, but swarm is unavailable"),
    ],
)
def test_what_is_refused_by_name(shared_daemon: Daemon, method: str, path: str, status: int, part: str) -> None:
    found = shared_daemon.refusal(method, path)
    assert found[0] == status
    assert found[1].startswith(part)
    assert shared_daemon.get("/plugins").json() == []


# networks: records only, there is no kernel below


def networks(daemon: Daemon, **filters: list[str]) -> list[str]:
    return [row["Name"] for row in daemon.get("/networks", filters=json.dumps(filters)).json()]


def test_networks_are_listed_and_inspected(shared_daemon: Daemon) -> None:
    assert sorted(networks(shared_daemon)) == ["bridge", "host", "none"]
    assert networks(shared_daemon, driver=["null"]) == ["none"]
    assert networks(shared_daemon, name=["hos"]) == ["host"]
    assert networks(shared_daemon, type=["custom"]) == []
    shown = shared_daemon.get("/networks/bridge").json()
    assert (shown["Driver"], shown["Scope"], shown["Containers"]) == ("bridge", "local", {})
    assert shown["IPAM"]["Config"] == [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]
    old = shared_daemon.get("/v1.46/networks/bridge").json()
    assert "EnableIPv4" in shown
    assert "EnableIPv4" not in old


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("GET", "/networks/nope", None, 404, "network nope not found"),
        ("DELETE", "/networks/nope", None, 404, "network nope not found"),
        ("DELETE", "/networks/bridge", None, 403, "bridge is a pre-defined network and cannot be removed"),
        ("GET", "/networks?filters={%22nope%22:[]}", None, 400, "invalid filter 'nope'"),
        ("POST", "/networks/create", {"Name": ""}, 400, None),
        ("POST", "/networks/create", {"Name": "a", "Driver": "nope"}, 404, None),
        ("POST", "/networks/create", {"Name": "host"}, 403, None),
        ("POST", "/networks/nope/connect", {"Container": "created"}, 404, "network nope not found"),
        ("POST", "/networks/bridge/connect", {"Container": "nope"}, 404, "No such container: nope"),
    ],
)
def test_networks_that_are_refused(
    shared_daemon: Daemon, method: str, path: str, body: dict[str, Any] | None, status: int, sentence: str | None
) -> None:
    found = shared_daemon.refusal(method, path, **({} if body is None else {"json": body}))
    assert found[0] == status, found
    assert sentence is None or found[1] == sentence


# volumes


def test_a_volume_from_create_to_remove(daemon: Daemon) -> None:
    answer = daemon.post("/volumes/create", {"Name": "data", "Labels": {"a": "b"}})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["Name"], made["Driver"], made["Scope"], made["Labels"]) == ("data", "local", "local", {"a": "b"})
    assert daemon.get("/volumes/data").json() == made
    anonymous = daemon.post("/volumes/create", {}).json()
    assert len(anonymous["Name"]) == 64
    assert [row["Name"] for row in daemon.get("/volumes").json()["Volumes"]] == sorted(("data", anonymous["Name"]))
    assert daemon.get("/volumes", filters='{"label":["a=b"]}').json()["Volumes"] == [made]
    # Before 1.42 prune takes volumes with names, too.
    assert daemon.post("/volumes/prune").json()["VolumesDeleted"] == [anonymous["Name"]]
    assert daemon.post("/v1.41/volumes/prune").json()["VolumesDeleted"] == ["data"]
    assert [event["Action"] for event in daemon.events(type=["volume"])].count("destroy") == 2


def test_a_volume_in_use(daemon: Daemon) -> None:
    daemon.load("busybox:latest")
    container = daemon.create("one", HostConfig={"Binds": ["data:/data"]})
    assert daemon.refusal("DELETE", "/volumes/data") == (409, f"remove data: volume is in use - [{container}]")
    shown = daemon.get("/containers/one/json").json()["Mounts"]
    assert [(mount["Type"], mount["Name"], mount["Destination"], mount["RW"]) for mount in shown] == [
        ("volume", "data", "/data", True)
    ]
    assert daemon.delete("/containers/one", v=1).status_code == 204
    assert daemon.delete("/volumes/data").status_code == 204


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("GET", "/volumes/nope", None, 404, "get nope: no such volume"),
        ("DELETE", "/volumes/nope", None, 404, "get nope: no such volume"),
        ("GET", "/volumes?filters={%22nope%22:[]}", None, 400, "invalid filter 'nope'"),
        ("POST", "/volumes/prune?filters={%22name%22:[]}", None, 400, "invalid filter 'name'"),
        (
            "POST",
            "/volumes/create",
            {"Name": "a"},
            400,
            "create a: volume name is too short, names should be at least two alphanumeric characters",
        ),
        ("POST", "/volumes/create", {"Name": "ab", "DriverOpts": {"x": "1"}}, 400, 'create ab: invalid option: "x"'),
    ],
)
def test_volumes_that_are_refused(
    shared_daemon: Daemon, method: str, path: str, body: dict[str, Any] | None, status: int, sentence: str
) -> None:
    found = shared_daemon.refusal(method, path, **({} if body is None else {"json": body}))
    assert found == (status, sentence)


# events


def test_events_are_filtered_by_type_action_and_label(daemon: Daemon) -> None:
    daemon.load("busybox:latest")
    daemon.create("one", Labels={"a": "b"})
    daemon.create("two")
    daemon.delete("/containers/two")

    def found(**filters: list[str]) -> list[tuple[str, str]]:
        return [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in daemon.events(**filters)]

    everything = found(type=["container"])
    assert everything == [("create", "one"), ("create", "two"), ("destroy", "two")]
    assert found(event=["destroy"]) == [("destroy", "two")]
    assert found(container=["one"]) == [("create", "one")]
    assert found(label=["a=b"]) == [("create", "one")]
    assert found(type=["container"], event=["create"]) == everything[:2]
    assert found(type=["network"]) == []


def test_events_with_times_that_do_not_fit(shared_daemon: Daemon) -> None:
    sentence = "`since` time (2) cannot be after `until` time (1)"
    assert shared_daemon.refusal("GET", "/events?since=2&until=1") == (400, sentence)
    assert shared_daemon.refusal("GET", "/events?since=x") == (
        400,
        'strconv.ParseInt: parsing "x": invalid syntax',
    )
    answer = shared_daemon.get("/events", since=0, until=1)
    assert (answer.status_code, answer.headers["content-type"], answer.text) == (200, "application/json", "")
