"""Two users of an engine with a policy: each has volumes of its own, administrators see all."""

import json
from pathlib import Path

import pytest

from server.tests.api.victim import ALICE, BOB, restrict
from server.tests.daemon import Daemon


@pytest.fixture
def daemon(daemon: Daemon) -> Daemon:
    restrict(daemon)
    return daemon


def names(daemon: Daemon, **filters: list[str]) -> list[str]:
    rows = daemon.get("/volumes", filters=json.dumps(filters)).json()["Volumes"]
    return [row["Name"] for row in rows]


def make(daemon: Daemon, name: str = "data") -> dict[str, object]:
    answer = daemon.post("/volumes/create", {"Name": name, "Labels": {"a": "b"}})
    assert answer.status_code == 201, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_users_may_have_the_same_names(daemon: Daemon) -> None:
    users = (daemon.as_uid(ALICE), daemon.as_uid(BOB), daemon)
    made = [make(user) for user in users]
    assert [volume["Name"] for volume in made] == ["data"] * 3
    assert len({str(volume["Mountpoint"]) for volume in made}) == 3
    for user, volume in zip(users, made, strict=True):
        assert user.get("/volumes/data").json() == volume
    assert names(daemon.as_uid(ALICE)) == ["data"]
    assert names(daemon) == ["data"] * 3
    assert names(daemon.as_uid(ALICE), name=["^@"]) == []


def test_other_users_of_the_host_reach_no_volume(daemon: Daemon) -> None:
    mountpoint = Path(str(make(daemon.as_uid(ALICE))["Mountpoint"]))
    assert mountpoint.parent.parent.name == "@10001"
    assert mountpoint.parent.parent.stat().st_mode & 0o777 == 0o700


def test_volumes_of_others_do_not_exist(daemon: Daemon) -> None:
    bob = daemon.as_uid(BOB)
    make(daemon.as_uid(ALICE), "secret")
    for key in ("secret", "@10001/secret"):
        assert bob.refusal("GET", f"/volumes/{key}") == (404, f"get {key}: no such volume")
        assert bob.refusal("DELETE", f"/volumes/{key}") == (404, f"get {key}: no such volume")
        assert bob.delete(f"/volumes/{key}", force=1).status_code == 204
    assert names(bob) == []
    assert names(daemon.as_uid(ALICE)) == ["secret"]
    status, sentence = bob.refusal("POST", "/volumes/create", json={"Name": "@10001/secret"})
    assert (status, "includes invalid characters" in sentence) == (400, True)
    assert bob.get("/system/df").json()["Volumes"] == []


def test_an_administrator_names_the_volumes_of_users(daemon: Daemon) -> None:
    make(daemon.as_uid(ALICE))
    shown = daemon.get("/volumes/data").json()
    assert shown["Labels"] == {"a": "b", "io.wharf.owner": "10001"}
    make(daemon.as_uid(BOB))
    assert daemon.refusal("GET", "/volumes/data") == (
        400,
        "volumes of several owners have the name data: use one of @10001/data, @10002/data",
    )
    assert daemon.delete("/volumes/@10001/data").status_code == 204
    assert daemon.get("/volumes/data").json()["Labels"]["io.wharf.owner"] == "10002"
    own = make(daemon)
    assert daemon.get("/volumes/data").json() == own


def test_volumes_of_containers(daemon: Daemon) -> None:
    alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
    body = {"HostConfig": {"Binds": ["data:/data"]}, "Volumes": {"/anonymous": {}}}
    ids = [user.create("web", **body) for user in (alice, bob, daemon)]
    for user, id in zip((alice, bob, daemon), ids, strict=True):
        mounts = {row["Destination"]: row for row in user.get(f"/containers/{id}/json").json()["Mounts"]}
        assert mounts["/data"]["Name"] == "data"
        assert "/" not in mounts["/anonymous"]["Name"]
        assert len(names(user, dangling=["false"])) == (6 if user is daemon else 2)
        found = user.get("/containers/json", all=1, filters=json.dumps({"volume": ["data"]})).json()
        assert [row["Id"] for row in found] == ([id] if user is not daemon else list(reversed(ids)))
        assert user.refusal("DELETE", "/volumes/data") == (409, f"remove data: volume is in use - [{id}]")
    copied = alice.create("copy", HostConfig={"VolumesFrom": ["web"]})
    assert alice.get(f"/containers/{copied}/json").json()["Mounts"][0]["Name"] in names(alice)
    for id in (ids[0], copied):
        assert alice.delete(f"/containers/{id}", v=1).status_code == 204
    assert names(alice) == ["data"]
    assert len(names(bob)) == 2


def test_prune_removes_own_volumes_only(daemon: Daemon) -> None:
    make(daemon.as_uid(ALICE), "one")
    make(daemon.as_uid(BOB), "two")
    pruned = daemon.as_uid(BOB).post("/volumes/prune", filters=json.dumps({"all": ["1"]})).json()
    assert pruned["VolumesDeleted"] == ["two"]
    assert names(daemon) == ["one"]


def test_events_are_the_owners(daemon: Daemon) -> None:
    make(daemon.as_uid(ALICE))
    assert [event["Actor"]["ID"] for event in daemon.as_uid(ALICE).events(type=["volume"])] == ["data"]
    assert daemon.as_uid(BOB).events(type=["volume"]) == []


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"DriverOpts": {"type": "none", "o": "bind", "device": "/etc"}}, "the volume option device=/etc"),
        ({"Driver": "nfs"}, "the volume driver nfs: it is a plugin's"),
    ],
)
def test_volumes_that_a_role_refuses(daemon: Daemon, body: dict[str, object], what: str) -> None:
    refusal = daemon.as_uid(ALICE).refusal("POST", "/volumes/create", json={"Name": "data", **body})
    assert refusal == (403, f"your role does not allow {what}")
