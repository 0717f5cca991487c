"""Two users of an engine with a policy: each finds its own objects only, administrators find all."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from server.access.caller import Caller
from server.access.owners import OWNER_LABEL
from server.tests import samples
from server.tests.api.victim import ALICE, BOB, restrict
from server.tests.daemon import Daemon, serving

WITHOUT_ROLE = 10003


@pytest.fixture
def daemon(daemon: Daemon) -> Daemon:
    restrict(daemon)
    return daemon


def names(daemon: Daemon, **query: object) -> list[str]:
    return sorted(row["Names"][0] for row in daemon.get("/containers/json", all=1, **query).json())


def test_users_may_have_the_same_names(daemon: Daemon) -> None:
    users = (daemon.as_uid(ALICE), daemon.as_uid(BOB), daemon)
    ids = [user.create("web") for user in users]
    assert len(set(ids)) == 3
    assert [user.get("/containers/web/json").json()["Id"] for user in users] == ids
    assert names(daemon.as_uid(ALICE)) == ["/web"]
    assert names(daemon) == ["/web"] * 3


def test_containers_of_others_do_not_exist(daemon: Daemon) -> None:
    alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
    id = alice.create("web")
    for key in ("web", id, id[:12]):
        assert bob.refusal("GET", f"/containers/{key}/json") == (404, f"No such container: {key}")
        assert bob.refusal("DELETE", f"/containers/{key}") == (404, f"No such container: {key}")
    for mode in ("PidMode", "IpcMode"):
        body = {"Image": "busybox", "HostConfig": {mode: f"container:{id}"}}
        assert bob.refusal("POST", "/containers/create", json=body) == (400, f"No such container: {id}")
    assert names(bob) == []
    assert bob.get("/info").json()["Containers"] == 0
    assert alice.get("/info").json()["Containers"] == 1


def test_an_administrator_finds_the_only_container_of_a_name(daemon: Daemon) -> None:
    id = daemon.as_uid(ALICE).create("web")
    assert daemon.get("/containers/web/json").json()["Id"] == id
    daemon.as_uid(BOB).create("web")
    assert daemon.refusal("GET", "/containers/web/json") == (
        400,
        "containers of several owners have the name web: use an ID",
    )
    own = daemon.create("web")
    assert daemon.get("/containers/web/json").json()["Id"] == own


def test_prune_removes_own_containers_only(daemon: Daemon) -> None:
    daemon.as_uid(ALICE).create("one")
    id = daemon.as_uid(BOB).create("two")
    assert daemon.as_uid(BOB).post("/containers/prune").json()["ContainersDeleted"] == [id]
    assert names(daemon) == ["/one"]
    for kind in ("networks", "volumes", "images"):
        daemon.as_uid(BOB).post(f"/{kind}/prune")
    shown = daemon.as_uid(BOB).events(event=["prune"])
    assert [event["Type"] for event in shown] == ["container", "network", "volume", "image"]
    assert daemon.as_uid(ALICE).events(event=["prune"]) == []


def test_events_of_others_are_not_shown(daemon: Daemon) -> None:
    id = daemon.as_uid(ALICE).create("web")
    shown = daemon.as_uid(ALICE).events(type=["container"])
    assert [event["Actor"]["ID"] for event in shown] == [id]
    assert daemon.as_uid(BOB).events() == []
    assert len(daemon.events(type=["container"])) == 1


def test_execs_of_others_do_not_exist(daemon: Daemon) -> None:
    alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
    id = alice.create("web")
    running = daemon.services.containers.get(id)
    daemon.start(running)
    exec_id = alice.post(f"/containers/{id}/exec", {"Cmd": ["true"]}).json()["Id"]
    assert alice.get(f"/exec/{exec_id}/json").status_code == 200
    assert bob.refusal("GET", f"/exec/{exec_id}/json") == (404, f"No such exec instance: {exec_id}")
    assert bob.refusal("POST", f"/exec/{exec_id}/start", json={})[0] == 404


def test_a_client_without_a_role_is_refused(daemon: Daemon) -> None:
    assert daemon.as_uid(WITHOUT_ROLE).refusal("GET", "/containers/json") == (
        403,
        f"the policy of this engine gives no role to the user {WITHOUT_ROLE}",
    )


def test_a_uid_without_a_user_is_refused(daemon: Daemon) -> None:
    status, sentence = daemon.as_uid(65534).refusal("GET", "/containers/json")
    assert (status, "65534, which is no user of this host" in sentence) == (403, True)


def test_endpoints_of_administrators(daemon: Daemon) -> None:
    assert daemon.as_uid(ALICE).refusal("GET", "/containers/x/checkpoints") == (
        403,
        "GET /containers/{name}/checkpoints is for administrators of this engine",
    )


def test_owners_are_in_the_records(daemon: Daemon) -> None:
    container = daemon.services.containers.get(daemon.as_uid(ALICE).create("web"))
    assert container.owner == "10001"
    assert json.loads(container.to_doc())["owner"] == "10001"


def networks(daemon: Daemon) -> list[str]:
    return sorted(row["Name"] for row in daemon.get("/networks").json())


def test_each_owner_has_networks_of_its_own(daemon: Daemon) -> None:
    alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
    body = {"Name": "net", "ConfigOnly": True}  # needs no kernel
    ids = [user.post("/networks/create", body).json()["Id"] for user in (alice, bob)]
    assert networks(alice) == networks(bob) == ["bridge", "host", "net", "none"]
    bridges = [user.get("/networks/bridge").json() for user in (alice, bob, daemon)]
    assert len({each["Id"] for each in bridges}) == 3
    assert len({each["IPAM"]["Config"][0]["Subnet"] for each in bridges}) == 3
    for key in (ids[0], ids[0][:12]):
        assert bob.refusal("GET", f"/networks/{key}") == (404, f"network {key} not found")
        assert bob.refusal("DELETE", f"/networks/{key}") == (404, f"network {key} not found")
    assert alice.refusal("DELETE", "/networks/bridge")[0] == 403


def test_a_container_is_on_the_bridge_of_its_owner(daemon: Daemon) -> None:
    alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
    alice.create("web")
    theirs = bob.get("/networks/bridge").json()["Id"]
    assert alice.refusal("POST", f"/networks/{theirs}/connect", json={"Container": "web"})[0] == 404
    # An administrator sees both, but a container can't be on another owner's network.
    assert daemon.refusal("POST", f"/networks/{theirs}/connect", json={"Container": "web"}) == (
        403,
        "network bridge and container web have different owners",
    )


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"Driver": "macvlan", "Options": {"parent": "eth0"}}, "networks with the driver macvlan"),
        ({"Driver": "ipvlan"}, "networks with the driver ipvlan"),
        ({"Driver": "plugin"}, "drivers of plugins (plugin)"),
        ({"IPAM": {"Driver": "plugin"}}, "drivers of plugins (plugin)"),
        (
            {"Options": {"com.docker.network.bridge.name": "docker0"}},
            "the network option com.docker.network.bridge.name",
        ),
        ({"IPAM": {"Config": [{"Subnet": "8.8.8.0/24"}]}}, "the subnet 8.8.8.0/24, which is not private"),
    ],
)
def test_networks_that_a_role_refuses(daemon: Daemon, body: dict[str, object], what: str) -> None:
    refusal = daemon.as_uid(ALICE).refusal("POST", "/networks/create", json={"Name": "net", **body})
    assert refusal == (403, f"your role does not allow {what}")


def tags(daemon: Daemon) -> list[str]:
    return sorted(tag for row in daemon.get("/images/json").json() for tag in row["RepoTags"])


def test_each_owner_has_image_names_of_its_own(daemon: Daemon) -> None:
    alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
    daemon.load("secret:latest", files={"who": b"administrator"})
    for user, text in ((alice, b"alice"), (bob, b"bob")):
        archive = samples.archive(("mine:latest",), samples.layer({"who": text}), {})
        assert user.request("POST", "/images/load", content=archive).status_code == 200
    assert tags(alice) == tags(bob) == ["busybox:latest", "mine:latest"]
    assert tags(daemon) == ["busybox:latest", "mine:latest", "mine:latest", "secret:latest"]
    ids = [user.get("/images/mine/json").json()["Id"] for user in (alice, bob)]
    assert ids[0] != ids[1]
    for key in ("secret", ids[0], ids[0].removeprefix("sha256:")[:12]):
        assert bob.refusal("GET", f"/images/{key}/json")[0] == 404
        assert bob.refusal("DELETE", f"/images/{key}")[0] == 404
        assert bob.refusal("POST", f"/images/{key}/tag?repo=stolen")[0] == 404
        assert bob.refusal("POST", "/containers/create", json={"Image": key})[0] == 404
        assert bob.refusal("GET", f"/images/{key}/get")[0] == 404
    assert bob.delete("/images/mine").json()[-1] == {"Deleted": ids[1]}
    assert tags(alice) == ["busybox:latest", "mine:latest"]
    assert [event["Actor"]["ID"] for event in alice.events(event=["load"])] == [ids[0]]


def test_published_images_can_be_used_but_not_changed(daemon: Daemon) -> None:
    alice = daemon.as_uid(ALICE)
    alice.create("web", Image="busybox")
    assert alice.refusal("DELETE", "/images/busybox") == (
        403,
        "the image docker.io/library/busybox:latest is published by the administrators of this engine",
    )
    id = alice.get("/images/busybox/json").json()["Id"]
    assert alice.refusal("DELETE", f"/images/{id}?force=1")[0] == 403
    assert alice.post("/images/busybox/tag", repo="mine").status_code == 201
    assert alice.delete("/images/mine").json() == [{"Untagged": "mine:latest"}]
    assert alice.post("/images/prune", filters='{"dangling":["false"]}').json()["ImagesDeleted"] is None
    # An own image of the same name hides the published one.
    archive = samples.archive(("busybox:latest",), samples.layer({"who": b"alice"}), {})
    alice.request("POST", "/images/load", content=archive)
    assert alice.get("/images/busybox/json").json()["Id"] != id == daemon.get("/images/busybox/json").json()["Id"]


def _without_blobs(archive: bytes) -> bytes:
    kept = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as source, tarfile.open(fileobj=kept, mode="w") as target:
        for member in source:
            if not member.name.startswith("blobs/"):
                target.addfile(member, source.extractfile(member))
    return kept.getvalue()


def test_an_archive_without_its_blobs_gives_nothing_away(daemon: Daemon) -> None:
    """Who knows digests of another user's image can write a manifest that names them."""
    alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
    index = samples.index("docker.io/library/private:latest")
    assert alice.request("POST", "/images/load", content=index.archive).status_code == 200
    stolen = _without_blobs(index.archive)
    assert b"Loaded image" not in bob.request("POST", "/images/load", content=stolen).content
    assert tags(bob) == ["busybox:latest"]
    assert b"Loaded image" in alice.request("POST", "/images/load", content=stolen).content


def test_administrators_see_the_owners(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[roles.member]\n")
    with serving(tmp_path, policy_file=str(policy)) as daemon:
        restrict(daemon)
        alice = daemon.as_uid(ALICE)
        id = alice.create("web")
        daemon.create("own")
        assert names(daemon, filters=json.dumps({"owner": [str(ALICE)]})) == ["/web"]
        labels = [row["Labels"] for row in daemon.get("/containers/json", all=1).json()]
        assert labels == [{}, {OWNER_LABEL: str(ALICE)}]
        assert daemon.get(f"/containers/{id}/json").json()["Config"]["Labels"] == {OWNER_LABEL: str(ALICE)}
        assert alice.get(f"/containers/{id}/json").json()["Config"]["Labels"] == {}
        assert alice.refusal("GET", '/containers/json?filters={"owner":["x"]}') == (400, "invalid filter 'owner'")


def test_without_a_policy_there_is_no_filter_of_owners(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        assert daemon.refusal("GET", '/containers/json?filters={"owner":["x"]}') == (400, "invalid filter 'owner'")


def test_builds_that_an_administrator_has_loaded_have_the_users_role(daemon: Daemon) -> None:
    """The administrators' list of the cache loads the builds of all owners that are on disk."""
    alice = daemon.as_uid(ALICE)
    alice.get("/_ping")
    (daemon.services.system.config.data_root / "build" / f"@{ALICE}").mkdir(parents=True)
    daemon.get("/system/df")
    assert alice.post("/build/prune").status_code == 200
    loaded = daemon.services.build.seen_by(Caller(str(ALICE), administrator=False)).loaded
    assert loaded is not None
    assert loaded.builder.caller.role is not None
    assert loaded.builder.caller.uid == ALICE
