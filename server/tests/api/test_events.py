"""/events: filters and times."""

from server.tests.daemon import Daemon


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
