"""`GET /events`: the events of each action, their attributes, and filters."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest

from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.images import layer
from compat_tests.support.polling import until

Event = dict[str, Any]


def now() -> str:
    """Return the current time as clients format it, with nanoseconds."""
    nanoseconds = time.time_ns()
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def events_since(engine: Engine, since: str, **filters: str | list[str]) -> list[Event]:
    """Return the events from a time until now."""
    values = {key: [value] if isinstance(value, str) else value for key, value in filters.items()}
    answer = engine.api.get("/events", since=since, until=now(), filters=json.dumps(values))
    assert answer.status == 200, answer.body
    return answer.lines()


def words(events: list[Event]) -> list[str]:
    return [f"{event['Type']} {event['Action']}" for event in events]


@pytest.fixture
def name() -> str:
    return f"ev{uuid.uuid4().hex[:10]}"


def test_events_of_a_container(engine: Engine, name: str) -> None:
    since = now()
    identity = engine.docker("create", "--name", name, "--label", "a=b", "-v", f"{name}:/v", "busybox", "sleep", "600")
    key = identity.stdout.strip()
    try:
        engine.docker("start", name)
        engine.docker("exec", name, "true")
        engine.docker("exec", name, "sh", "-c", "exit 3", check=False)
        engine.docker("pause", name)
        engine.docker("unpause", name)
        engine.docker("rename", name, f"{name}x")
        engine.docker("update", "--memory", "64m", "--memory-swap", "64m", f"{name}x")
        engine.docker("top", f"{name}x")
        engine.api.post(f"/containers/{key}/resize", h=10, w=20)
        engine.docker("kill", f"{name}x")
        engine.docker("wait", f"{name}x")
        engine.docker("start", f"{name}x")
        engine.docker("stop", "-t", "0", f"{name}x")
    finally:
        engine.docker("rm", "-f", "-v", key)
        engine.docker("volume", "rm", "-f", name)
    events = events_since(engine, since, container=key)
    expected = [
        *("create", "start", "exec_create: true ", "exec_start: true ", "exec_die"),
        *("exec_create: sh -c exit 3", "exec_start: sh -c exit 3", "exec_die"),
        *("pause", "unpause", "rename", "update", "top", "resize", "kill", "die", "start", "kill"),
    ]
    actions = [event["Action"] for event in events]
    assert actions[: len(expected)] == expected
    # At the end of a stop, dockerd sends "die" and "stop" in no fixed order.
    assert sorted(actions[len(expected) : -1]) in (["die", "stop"], ["die", "kill", "stop"])
    assert actions[-1] == "destroy"
    for event in events:
        attributes = event["Actor"]["Attributes"]
        assert event["Actor"]["ID"] == key
        assert (attributes["a"], attributes["image"]) == ("b", "busybox")
        assert attributes["name"] in (name, f"{name}x")
        assert event["scope"] == "local"
        assert event["time"] == event["timeNano"] // 10**9
        # The fields for old clients.
        assert (event["status"], event["id"], event["from"]) == (event["Action"], key, "busybox")
    by_action = {event["Action"]: event["Actor"]["Attributes"] for event in events}
    assert by_action["rename"]["oldName"] == f"/{name}"
    assert (by_action["resize"]["height"], by_action["resize"]["width"]) == ("10", "20")
    kills = [event["Actor"]["Attributes"]["signal"] for event in events if event["Action"] == "kill"]
    assert (kills[0], kills[1]) == ("9", "15")
    assert by_action["die"]["exitCode"] == "137"
    assert "execDuration" in by_action["die"]
    died = [event["Actor"]["Attributes"] for event in events if event["Action"] == "exec_die"]
    assert [attributes["exitCode"] for attributes in died] == ["0", "3"]
    assert all(len(attributes["execID"]) == 64 for attributes in died)
    times = [event["timeNano"] for event in events]
    assert times == sorted(times)
    others = words(events_since(engine, since, type=["volume", "network"]))
    assert "volume create" in others
    assert others.count("volume mount") == others.count("volume unmount") == 2
    assert others.count("network connect") == others.count("network disconnect") == 2
    mount = events_since(engine, since, type="volume", event="mount")[0]
    assert mount["Actor"]["ID"] == name
    assert mount["Actor"]["Attributes"] == {
        "container": key,
        "destination": "/v",
        "driver": "local",
        "propagation": "",
        "read/write": "true",
    }
    assert "status" not in mount


def plain(event: Event, hidden: dict[str, str]) -> tuple[str, str, str, str]:
    """Return type, action, actor and attributes, without values that differ."""
    attributes = dict(event["Actor"]["Attributes"])
    attributes.pop("execDuration", None)
    if "execID" in attributes:
        attributes["execID"] = "<id>"
    text = json.dumps(attributes, sort_keys=True)
    actor = event["Actor"]["ID"]
    for value, word in hidden.items():
        text, actor = text.replace(value, word), actor.replace(value, word)
    return event["Type"], event["Action"], actor, text


def events_of_a_life(engine: Engine, name: str) -> list[tuple[str, str, str, str]]:
    """Return all events of a container, its volume and its network; dockerd orders some of them at random."""
    since = now()
    network = engine.docker("network", "create", "--label", "n=1", name).stdout.strip()
    create = ("create", "--name", name, "--network", name, "-v", f"{name}:/v:ro", "--label", "a=b", "--label", "empty")
    # It ignores SIGTERM, so the way it ends does not depend on timing.
    key = engine.docker(*create, "-e", "X=y", "busybox", "sleep", "600").stdout.strip()
    bridge = engine.api.get("/networks/bridge").json()["Id"]
    try:
        for args in (
            *(("start", key), ("exec", "-u", "0", key, "true"), ("pause", key), ("unpause", key)),
            *(("network", "connect", "bridge", key), ("network", "disconnect", "bridge", key)),
            *(("rename", key, f"{name}2"), ("update", "--cpu-shares", "7", key), ("top", key)),
            *(("cp", f"{key}:/etc/passwd", "-"), ("export", key)),
            *(("kill", "-s", "CONT", key), ("restart", "-t", "0", key), ("stop", "-t", "0", key)),
        ):
            engine.docker(*args)
    finally:
        engine.docker("rm", "-f", key)
        engine.docker("volume", "rm", name)
        engine.docker("network", "rm", name)
    hidden = {key: "<container>", network: "<network>", bridge: "<bridge>", name: "<name>"}
    events = [event for event in events_since(engine, since) if any(word in json.dumps(event) for word in hidden)]
    return sorted(plain(event, hidden) for event in events)


def test_events_equal_dockerds(engine: Engine, oracle: Dockerd, name: str) -> None:
    ours, theirs = events_of_a_life(engine, name), events_of_a_life(oracle, name)
    assert [line for line in ours if line not in theirs] == [line for line in theirs if line not in ours] == []
    # dockerd mounts volumes again for a copy, and reports twice that a container left a network.
    counted = [[line for line in each if line[0] == "container" and line[1] != "kill"] for each in (ours, theirs)]
    assert counted[0] == counted[1]


def test_networks_volumes_and_images(engine: Engine, name: str) -> None:
    since = now()
    engine.docker("network", "create", "--label", "x=y", name)
    engine.docker("create", "--name", name, "--network", name, "busybox", "true")
    engine.docker("commit", name, f"{name}:one")
    engine.docker("rm", name)
    engine.docker("network", "rm", name)
    engine.docker("volume", "create", name)
    engine.docker("volume", "rm", name)
    engine.docker("tag", f"{name}:one", f"{name}:two")
    engine.docker("rmi", f"{name}:one", f"{name}:two")
    engine.docker("network", "prune", "-f", "--filter", f"label={name}")
    engine.docker("volume", "prune", "-f", "--filter", f"label={name}")
    engine.docker("image", "prune", "-f", "--filter", f"label={name}")
    engine.docker("container", "prune", "-f", "--filter", f"label={name}")
    # There may be late events of earlier tests.
    tags = [event["Actor"] for event in events_since(engine, since, type="image", event="tag")]
    image = next(actor["ID"] for actor in tags if actor["Attributes"]["name"] == f"{name}:one")
    events = [
        event
        for event in events_since(engine, since)
        if event["Action"] == "prune" or event["Actor"]["ID"] == image or name in json.dumps(event)
    ]
    assert words(events) == [
        *("network create", "container create", "image create", "image tag", "container commit"),
        "container destroy",
        *("network destroy", "volume create", "volume destroy"),
        *("image tag", "image untag", "image untag", "image delete"),
        *("network prune", "volume prune", "image prune", "container prune"),
    ]
    assert events[0]["Actor"]["Attributes"] == {"name": name, "type": "bridge"}
    assert [event["Actor"]["Attributes"]["name"] for event in events[2:4]] == [image, f"{name}:one"]
    commit = events[4]["Actor"]["Attributes"]
    assert (commit["imageRef"], commit["imageID"]) == (f"{name}:one", image)
    assert events[7]["Actor"] == {"ID": name, "Attributes": {"driver": "local"}}
    for event in events[-4:]:
        assert event["Actor"] == {"ID": "", "Attributes": {"reclaimed": "0"}}
        assert "id" not in event


def test_events_of_import_and_build(engine: Engine, name: str) -> None:
    """Import or build: clients before 1.46 get no `create` event, and no client gets one of a step's network."""
    archive = layer({"file": b"x"})
    for args, input, expected in (
        (("import", "-", name), archive, ["image tag", "image import"]),
        (("build", "-t", name, "-"), b"FROM busybox\nRUN true\n", ["image create", "image tag"]),
    ):
        since = now()
        engine.docker(*args, input=input)
        id = engine.api.get(f"/images/{name}/json").json()["Id"]
        try:
            events = [
                event for event in events_since(engine, since) if event["Type"] in ("image", "network", "container")
            ]
            assert words(events) == expected
            assert [event["Actor"]["ID"] for event in events] == [id, id]
            older = engine.api.get("/v1.45/events", since=since, until=now(), filters=json.dumps({"image": [id]}))
            assert words(older.lines()) == [word for word in expected if word != "image create"]
        finally:
            engine.docker("rmi", name)


def test_health_and_oom_events(engine: Engine, name: str) -> None:
    since = now()
    engine.docker(
        "run", "-d", "--name", name, "--health-cmd", "true", "--health-interval", "1s", "busybox", "sleep", "600"
    )
    try:
        assert until(lambda: bool(events_since(engine, since, container=name, event="health_status")))
        reports = events_since(engine, since, container=name, event="health_status")
        assert words(reports) == ["container health_status: healthy"]
    finally:
        engine.docker("rm", "-f", name)


def test_filters_of_events(engine: Engine, name: str) -> None:
    since = now()
    try:
        for suffix in ("a", "b"):
            engine.docker("create", "--name", name + suffix, "--label", f"which={suffix}", "busybox", "true")
    finally:
        engine.docker("rm", f"{name}a", f"{name}b")
    creates = ["container create"]
    assert words(events_since(engine, since, container=f"{name}a")) == ["container create", "container destroy"]
    assert len(events_since(engine, since, container=name)) == 4  # names match by prefix
    assert words(events_since(engine, since, container=f"{name}b", event="create")) == creates
    assert words(events_since(engine, since, label="which=a", event="create")) == creates
    assert len(events_since(engine, since, label="which")) == 4
    assert len(events_since(engine, since, image="busybox", container=name)) == 4
    assert events_since(engine, since, image="busybox:nosuch", container=name) == []
    assert events_since(engine, since, type="volume", container=name) == []
    assert events_since(engine, since, scope="swarm") == []
    assert len(events_since(engine, since, scope="local", container=name)) == 4
    assert len(events_since(engine, since, event=["create", "destroy"], container=name)) == 4


def test_since_and_until_of_events(engine: Engine, name: str) -> None:
    engine.docker("volume", "create", name)
    between = now()
    engine.docker("volume", "rm", name)
    assert words(events_since(engine, between, volume=name)) == ["volume destroy"]
    earlier = engine.api.get("/events", until=between, since=0, filters=json.dumps({"volume": [name]}))
    assert words(earlier.lines()) == ["volume create"]
    # With only an end, past events are included too.
    alone = engine.api.get("/events", until=between, filters=json.dumps({"volume": [name]}))
    assert words(alone.lines()) == ["volume create"]
    for query, status, sentence in (
        ({"since": "x"}, 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ({"until": "x"}, 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ({"since": "10", "until": "5"}, 400, "`since` time (10) cannot be after `until` time (5)"),
        ({"since": "9" * 20}, 400, f'strconv.ParseInt: parsing "{"9" * 20}": value out of range'),
        ({"until": "9" * 5000}, 400, f'strconv.ParseInt: parsing "{"9" * 5000}": value out of range'),
        ({"filters": "x"}, 400, "invalid filter"),
    ):
        answer = engine.api.get("/events", **query)
        assert answer.error == (status, sentence)
    # A time before the epoch is ignored.
    for early in ("0", "-5"):
        all_of_it = engine.api.get("/events", until=early, filters=json.dumps({"volume": [name]}))
        assert words(all_of_it.lines()) == ["volume create", "volume destroy"]
    done = engine.docker(
        *("events", "--since", "10m", "--until", now(), "--filter", f"volume={name}", "--format", "{{.Action}}")
    )
    assert done.stdout.split() == ["create", "destroy"]


def test_live_events_and_until(engine: Engine, name: str) -> None:
    def listeners() -> int:
        return int(engine.api.get("/info").json()["NEventsListener"])

    assert until(lambda: listeners() == 0)  # listeners of earlier tests are gone
    with engine.popen("events", "--filter", f"volume={name}", "--format", "{{json .}}", stdin=None) as events:
        assert events.stdout is not None
        try:
            assert until(lambda: listeners() == 1)
            engine.docker("volume", "create", name)
            assert json.loads(events.stdout.readline())["Action"] == "create"
            engine.docker("volume", "rm", name)
            assert json.loads(events.stdout.readline())["Action"] == "destroy"
        finally:
            events.kill()
    # A listener that disconnects is removed.
    assert until(lambda: listeners() == 0)
    # An end in the future.
    answer = engine.api.get("/events", until=int(time.time()) + 1, filters=json.dumps({"volume": [name]}))
    assert words(answer.lines()) == ["volume create", "volume destroy"]
