"""What the API has for the page, checked against its description."""

from server.tests.api.test_wharf import ALICE, POLICY, described
from server.tests.daemon import Daemon


def test_layers_that_images_share_have_one_id(daemon: Daemon) -> None:
    daemon.load("busybox:latest", files={"etc/hostname": b"x"})
    daemon.load("other:latest", files={"etc/hostname": b"x"}, config={"Cmd": ["true"]})
    daemon.load("third:latest", files={"etc/hostname": b"y"})
    found = {row["Id"]: row["Layers"] for row in described(daemon, "/wharf/v1/images/layers").json()}
    assert set(found) == {image["Id"] for image in daemon.get("/images/json").json()}
    ids = sorted(layer["Id"] for layers in found.values() for layer in layers)
    assert len(ids) == 3
    assert len(set(ids)) == 2


def test_a_user_sees_the_layers_of_the_own_images(daemon: Daemon) -> None:
    daemon.load("secret:latest")
    daemon.restrict(POLICY)
    alice = daemon.as_uid(ALICE)
    assert alice.get("/wharf/v1/images/layers").json() == []


def test_a_list_of_builds_does_not_load_the_builder(daemon: Daemon) -> None:
    assert described(daemon, "/wharf/v1/builds").json() == []
    assert daemon.services.build.loaded is None
    assert daemon.refusal("GET", "/wharf/v1/builds/nothing/log") == (404, "no such build nothing")
