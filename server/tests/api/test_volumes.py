"""/volumes: from create to remove, references of containers, filters, refusals."""

from typing import Any

import pytest

from server.tests.daemon import Daemon


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
