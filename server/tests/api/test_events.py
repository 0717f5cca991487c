"""/events: filters and times."""

import json
import time
from pathlib import Path

import pytest

from server.events.message import EventMessage
from server.routes import events
from server.tests.daemon import Daemon, serving


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
    assert (answer.status_code, answer.headers["content-type"], answer.text) == (200, "application/jsonl", "")


@pytest.mark.parametrize(
    ("version", "accept", "media_type"),
    [
        ("1.51", "*/*", "application/json"),
        ("1.52", "*/*", "application/jsonl"),
        ("1.51", "application/x-ndjson", "application/x-ndjson"),
        ("1.55", "text/html, application/json-seq", "application/json-seq"),
        ("1.55", "application/jsonl;q=0.4, application/x-ndjson;q=0.5", "application/x-ndjson"),
        ("1.55", "application/x-ndjson;q=0, application/json", "application/jsonl"),
    ],
)
def test_the_stream_has_the_type_that_the_client_accepts(
    daemon: Daemon, version: str, accept: str, media_type: str
) -> None:
    daemon.load("busybox:latest")
    answer = daemon.request(
        "GET", f"/v{version}/events", params={"since": 0, "until": f"{time.time():.9f}"}, headers={"Accept": accept}
    )
    assert answer.headers["content-type"] == media_type
    lines = answer.content.splitlines()
    assert lines
    assert all(line.startswith(b"\x1e{" if media_type.endswith("seq") else b"{") for line in lines)


@pytest.mark.parametrize(
    ("strict", "version", "there"), [(False, "1.55", True), (True, "1.55", False), (True, "1.51", True)]
)
def test_old_names_of_an_event_are_dropped_by_feature(tmp_path: Path, strict: bool, version: str, there: bool) -> None:
    with serving(tmp_path, features={"strict-api": strict}) as daemon:
        daemon.load("busybox:latest")
        daemon.create("one")
        answer = daemon.get(f"/v{version}/events", since=0, until=f"{time.time():.9f}", filters='{"event":["create"]}')
    event = json.loads(answer.text.splitlines()[-1])
    assert event["Action"] == "create"
    assert [name in event for name in ("status", "id", "from")] == [there] * 3


def test_clients_of_the_same_form_share_the_line_of_an_event() -> None:
    """Also two events at the same time, as of two daemons in one process, and more events than lines that are kept."""
    encoded = events._Encoded()
    one, other = (EventMessage("container", "start", name, {}, "local", 7) for name in ("one", "other"))
    first = encoded.line(one, b"", old_names=True)
    assert encoded.line(one, b"", old_names=True) is first
    assert json.loads(first.body)["status"] == "start"
    assert "status" not in json.loads(encoded.line(one, b"", old_names=False).body)
    assert encoded.line(one, b"\x1e", old_names=True).body == b"\x1e" + first.body
    assert json.loads(encoded.line(other, b"", old_names=True).body)["id"] == "other"
    for time_ns in range(8, 8 + 2 * events._KEPT):
        encoded.line(EventMessage("container", "start", "one", {}, "local", time_ns), b"", old_names=True)
    assert len(encoded._lines) == events._KEPT
