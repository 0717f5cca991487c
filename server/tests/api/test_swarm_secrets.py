"""/secrets and /configs."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from api_models.swarm.container import ContainerSpec
from api_models.swarm.secret import ConfigReference, SecretReference
from api_models.swarm.service import ServiceSpec
from api_models.swarm.task import TaskSpec
from server.swarm.model.objects import Service
from server.swarm.state.state import Put
from server.tests.daemon import Daemon

NOUNS = pytest.mark.parametrize(("noun", "limit"), [("secret", 500 * 1024), ("config", 1000 * 1024)])


@pytest.fixture(scope="module")
def manager(shared_daemon: Daemon) -> Iterator[Daemon]:
    shared_daemon.post("/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.1"})
    yield shared_daemon
    shared_daemon.post("/swarm/leave", force=1)


def _data(size: int) -> str:
    return base64.b64encode(b"x" * size).decode()


def _create(daemon: Daemon, noun: str, **spec: Any) -> str:
    answer = daemon.post(f"/{noun}s/create", {"Data": "YWJj", **spec})
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["ID"]
    return found


@NOUNS
def test_from_create_to_remove(manager: Daemon, noun: str, limit: int) -> None:
    id = _create(manager, noun, Name="Key.1", Labels={"a": "b"}, Templating={"Name": "golang"})
    shown = manager.get(f"/{noun}s/Key.1").json()
    spec = {"Name": "Key.1", "Labels": {"a": "b"}, "Templating": {"Name": "golang"}}
    assert shown["Spec"] == (spec if noun == "secret" else {**spec, "Data": "YWJj"})
    for key in (id, id[:12]):
        assert manager.get(f"/{noun}s/{key}").json() == shown
    assert manager.get(f"/{noun}s").json() == [shown]
    update = {"Name": "Key.1", "Labels": {"c": "d"}}
    assert manager.post(f"/{noun}s/Key.1/update", update, version=shown["Version"]["Index"]).status_code == 200
    changed = manager.get(f"/{noun}s/{id}").json()
    assert changed["Spec"] == {**shown["Spec"], "Labels": {"c": "d"}}
    assert changed["Version"]["Index"] > shown["Version"]["Index"]
    stale = {"version": shown["Version"]["Index"]}
    assert manager.refusal("POST", f"/{noun}s/Key.1/update", params=stale, json=update) == (
        409,
        "rpc error: code = Unknown desc = update out of sequence",
    )
    for refused in ({"Name": "other"}, {"Name": "Key.1", "Data": "YWJk"}):
        assert manager.refusal("POST", f"/{noun}s/Key.1/update", params=stale, json=refused) == (
            400,
            "rpc error: code = InvalidArgument desc = only updates to Labels are allowed",
        )
    assert manager.delete(f"/{noun}s/Key.1").status_code == 204
    assert manager.get(f"/{noun}s").json() == []
    events = [(event["Action"], event["Actor"]["ID"]) for event in manager.events(type=[noun])]
    assert events == [("create", id), ("update", id), ("remove", id)]


@NOUNS
def test_the_size_of_data(manager: Daemon, noun: str, limit: int) -> None:
    bounds = f"rpc error: code = InvalidArgument desc = {noun} data must be larger than 0 and less than {limit} bytes"
    for data in ("", _data(limit)):
        assert manager.refusal("POST", f"/{noun}s/create", json={"Name": "one", "Data": data}) == (400, bounds)
    id = _create(manager, noun, Name="one", Data=_data(limit - 1))
    if noun == "config":
        assert manager.get(f"/configs/{id}").json()["Spec"]["Data"] == _data(limit - 1)
    manager.delete(f"/{noun}s/{id}")


@NOUNS
@pytest.mark.parametrize(
    ("path", "spec", "status", "sentence"),
    [
        ("", {}, 400, "rpc error: code = InvalidArgument desc = name must be provided"),
        *(
            (
                "",
                {"Name": name, "Data": "YQ=="},
                400,
                "rpc error: code = InvalidArgument desc = invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and"
                " the start and end character must be [a-zA-Z0-9]",
            )
            for name in ("-a", "a-", "a b", "ä", "a" * 65)
        ),
        ("", {"Name": "a", "Data": "%%%"}, 400, "invalid JSON: illegal base64 data at input byte 0"),
        ("", {"Name": "a", "Data": "abcd%"}, 400, "invalid JSON: illegal base64 data at input byte 4"),
        ("", {"Name": "a", "Data": "abc"}, 400, "invalid JSON: illegal base64 data at input byte 0"),
        (
            "/v1.36",
            {"Name": "a", "Data": "YQ==", "Templating": {"Name": "golang"}},
            400,
            "{noun} templating is not supported on the specified API version: 1.36",
        ),
        (
            "",
            {"Name": "a", "Data": "YQ==", "Templating": {"Name": "jinja"}},
            400,
            'rpc error: code = InvalidArgument desc = templating driver "jinja" is not supported: there is only'
            ' "golang"',
        ),
        (
            "",
            {"Name": "a", "Data": "YQ==", "Labels": {"x": "y" * 2_000_000}},
            400,
            "rpc error: code = Unknown desc = raft: raft message is too large and can't be sent",
        ),
    ],
)
def test_creates_that_are_refused(
    manager: Daemon, noun: str, limit: int, path: str, spec: dict[str, Any], status: int, sentence: str
) -> None:
    found = manager.refusal("POST", f"{path}/{noun}s/create", json=spec)
    assert found == (status, sentence.replace("{noun}", noun))
    assert manager.get(f"/{noun}s").json() == []


def test_drivers_of_secrets_are_refused_by_name(manager: Daemon) -> None:
    spec: dict[str, Any] = {"Name": "a", "Driver": {}}
    found = manager.refusal("POST", "/secrets/create", json=spec)
    assert found == (400, "rpc error: code = InvalidArgument desc = secret driver must have a name")
    found = manager.refusal("POST", "/secrets/create", json={**spec, "Driver": {"Name": "vault"}})
    assert found == (501, "rpc error: code = Unimplemented desc = secret drivers are not part of this engine: vault")


@NOUNS
def test_names_are_unique(manager: Daemon, noun: str, limit: int) -> None:
    _create(manager, noun, Name="one")
    assert manager.refusal("POST", f"/{noun}s/create", json={"Name": "one", "Data": "YQ=="}) == (
        409,
        f"rpc error: code = AlreadyExists desc = {noun} one already exists",
    )
    manager.delete(f"/{noun}s/one")


@NOUNS
def test_filters(manager: Daemon, noun: str, limit: int) -> None:
    ids = {name: _create(manager, noun, Name=name, Labels={"of": name[0]}) for name in ("a1", "a2", "b1")}
    for filters, found in (
        ('{"name":["a"]}', ["a1", "a2"]),
        ('{"name":["a1","b"]}', ["a1", "b1"]),
        (json.dumps({"id": [ids["b1"][:15]]}), ["b1"]),
        ('{"label":["of=b"]}', ["b1"]),
        ('{"label":["of"]}', ["a1", "a2", "b1"]),
        ('{"name":["a"],"label":["of=b"]}', []),
    ):
        shown = manager.get(f"/{noun}s", filters=filters).json()
        assert sorted(item["Spec"]["Name"] for item in shown) == found, filters
    names = {"filters": '{"names":["a1"]}'}
    if noun == "secret":
        assert len(manager.get("/secrets", **names).json()) == 1
    else:
        assert manager.refusal("GET", "/configs", params=names) == (400, "invalid filter 'names'")
    for name in ids:
        manager.delete(f"/{noun}s/{name}")


@NOUNS
def test_what_is_missing(manager: Daemon, noun: str, limit: int) -> None:
    missing = (404, f"{noun} nope not found")
    assert manager.refusal("GET", f"/{noun}s/nope") == missing
    assert manager.refusal("DELETE", f"/{noun}s/nope") == missing
    assert manager.refusal("POST", f"/{noun}s/nope/update", params={"version": 1}, json={"Name": "nope"}) == missing
    found = manager.refusal("POST", f"/{noun}s/nope/update", json={})
    assert found == (400, f"invalid {noun} version")


@NOUNS
def test_what_a_service_uses_stays(manager: Daemon, noun: str, limit: int) -> None:
    id = _create(manager, noun, Name="used")
    container = ContainerSpec(
        image="busybox",
        secrets=(SecretReference(secret_id=id, secret_name="used"),) if noun == "secret" else None,
        configs=(ConfigReference(config_id=id, config_name="used"),) if noun == "config" else None,
    )
    spec = ServiceSpec(name=f"web-{noun}", task_template=TaskSpec(container_spec=container))
    service = Service(id=f"service{noun}", spec=spec)
    state = manager.services.swarm.manager().state
    manager.wait(state.commit([Put(service)]))
    assert manager.refusal("DELETE", f"/{noun}s/used") == (
        400,
        f"rpc error: code = InvalidArgument desc = {noun} 'used' is in use by the following service: web-{noun}",
    )


@pytest.mark.parametrize(("noun", "first", "last"), [("secrets", "1.25", "1.24"), ("configs", "1.30", "1.29")])
def test_the_first_api_version(manager: Daemon, noun: str, first: str, last: str) -> None:
    assert manager.get(f"/v{first}/{noun}").status_code == 200
    assert manager.refusal("GET", f"/v{last}/{noun}")[0] == 400
