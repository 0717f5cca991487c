"""Timelines over the API: of containers, and of pulls and builds; who sees which."""

from typing import Any

import pytest

from engine.common import limits
from engine.common.errors import Kind, WharfError
from engine.common.timeline import Timeline, latest
from server.tests.api.test_wharf import described
from server.tests.api.victim import ALICE, BOB, restrict
from server.tests.daemon import Daemon


@pytest.fixture
def daemon(daemon: Daemon) -> Daemon:
    daemon.load("busybox:latest")
    return daemon


def timelines(daemon: Daemon, **query: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = described(daemon, "/wharf/v1/timelines", **query).json()
    return found


def test_a_create_has_a_timeline(daemon: Daemon) -> None:
    id = daemon.create("web")
    for key in ("web", id[:12]):
        answer = daemon.get(f"/wharf/v1/containers/{key}/timeline")
        assert answer.status_code == 200
        (made,) = answer.json()
    assert (made["Operation"], made["Subject"], made["Owner"], made["Result"]) == ("create", id, "", "done")
    assert [phase["Name"] for phase in made["Phases"]] == ["checks", "networks", "snapshot", "mounts", "save"]
    ends = [phase["End"] for phase in made["Phases"]]
    assert ends == sorted(ends)
    assert 0 < ends[-1] <= made["Seconds"] + 1e-5
    assert daemon.refusal("GET", "/wharf/v1/containers/nobody/timeline") == (404, "No such container: nobody")


def test_a_start_that_failed_says_why_and_where(daemon: Daemon) -> None:
    """The start itself needs a kernel: the fake has no network for it."""
    daemon.create("web")
    status, sentence = daemon.refusal("POST", "/containers/web/start")
    assert status >= 400
    *_, start = daemon.get("/wharf/v1/containers/web/timeline").json()
    assert (start["Operation"], start["Result"], start["Error"]) == ("start", "failed", sentence[:256])


def test_waits_and_parts_are_in_the_description(daemon: Daemon) -> None:
    with Timeline("pull", "busybox:latest"):
        pass
    failed = Timeline("build", "ref")
    failed.add("RUN make", 0, 1)
    failed.add("wait", 0, 1, within="RUN make", waits_for="another build")
    failed.done(WharfError(Kind.INTERNAL, "no"))
    pull, build = timelines(daemon)
    assert (pull["Operation"], pull["Subject"]) == ("pull", "busybox:latest")
    assert (build["Result"], build["Error"]) == ("failed", "no")
    assert [set(phase) for phase in build["Phases"]] == [
        {"Name", "Begin", "End"},
        {"Name", "Begin", "End", "Within", "WaitsFor"},
    ]
    assert timelines(daemon, operation="pull") == [pull]
    assert timelines(daemon, subject="ref") == [build]
    assert timelines(daemon, operation="pull", subject="ref") == []


def test_an_image_that_is_pulled_has_a_timeline(daemon: Daemon) -> None:
    # Nothing listens on this port.
    daemon.post("/images/create", fromImage="127.0.0.1:9/nothing", tag="1")
    (pull,) = timelines(daemon)
    assert (pull["Operation"], pull["Subject"], pull["Result"]) == ("pull", "127.0.0.1:9/nothing:1", "failed")
    assert "127.0.0.1:9" in pull["Error"]


def test_users_see_their_own(daemon: Daemon) -> None:
    restrict(daemon)
    alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
    alice.create("web")
    assert alice.get("/wharf/v1/containers/web/timeline").json()[0]["Owner"] == str(ALICE)
    assert bob.refusal("GET", "/wharf/v1/containers/web/timeline") == (404, "No such container: web")
    for user in ("", str(ALICE), f"{ALICE}:job"):
        Timeline("pull", "image", user).done()
    assert [row["Owner"] for row in timelines(alice)] == [str(ALICE)]
    assert timelines(bob) == []
    assert len(timelines(daemon)) == 3


def test_a_user_does_not_displace_what_others_did(daemon: Daemon) -> None:
    restrict(daemon)
    Timeline("build", "bob's", str(BOB)).done()
    for number in range(limits.TIMELINES + limits.TIMELINES_OF_OWNER):
        Timeline("pull", str(number), f"{ALICE}:{number}" if number % 2 else str(ALICE)).done()
    assert [row["Subject"] for row in timelines(daemon.as_uid(BOB))] == ["bob's"]
    assert len(timelines(daemon)) == 1 + limits.TIMELINES_OF_OWNER


def test_only_the_last_operation_of_each_kind_stays(daemon: Daemon) -> None:
    container = daemon.services.containers.get(daemon.create("web"))
    for number in range(3):
        made = Timeline("start", container.id)
        made.mark(str(number))
        container.timelines = latest(container.timelines, made.done())
    assert [(each.what, each.phases[-1].name) for each in daemon.services.timelines.of_container("web")] == [
        ("create", "save"),
        ("start", "2"),
    ]
