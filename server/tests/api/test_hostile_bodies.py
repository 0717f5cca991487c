"""Bodies and queries of requests that name another user's objects: they answer as for what doesn't exist."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from server.tests.api.victim import Victim, comparable


@dataclass(frozen=True, slots=True)
class Case:
    """One request. ``path`` may have KEY for the key of an object of ``noun``; ``query`` and ``body`` are called with
    it."""

    noun: str
    method: str
    path: str
    query: Callable[[str], Mapping[str, object]] = lambda key: {}
    body: Callable[[str], Any] = lambda key: None


def _host(noun: str, **fields: Callable[[str], Any]) -> Case:
    """A container whose HostConfig names the object."""

    def body(key: str) -> Any:
        return {"Image": "busybox", "HostConfig": {name: make(key) for name, make in fields.items()}}

    return Case(noun, "POST", "/containers/create", body=body)


def _filters(noun: str, path: str, name: str, method: str = "GET") -> Case:
    """A list with a filter."""

    window = {"since": 0, "until": 1} if path == "/events" else {}  # without it the answer has no end
    return Case(noun, method, path, lambda key: {"all": 1, **window, "filters": json.dumps({name: [key]})})


CASES = {
    "create: Image": Case("image", "POST", "/containers/create", body=lambda key: {"Image": key}),
    "create: NetworkMode": _host("network", NetworkMode=lambda key: key),
    "create: NetworkMode of a container": _host("container", NetworkMode=lambda key: f"container:{key}"),
    "create: PidMode": _host("container", PidMode=lambda key: f"container:{key}"),
    "create: IpcMode": _host("container", IpcMode=lambda key: f"container:{key}"),
    "create: VolumesFrom": _host("container", VolumesFrom=lambda key: [f"{key}:ro"]),
    "create: Links": _host("container", Links=lambda key: [f"{key}:web"]),
    "create: Binds": _host("volume", Binds=lambda key: [f"{key}:/data"]),
    "create: a volume's mount": _host(
        "volume", Mounts=lambda key: [{"Type": "volume", "Source": key, "Target": "/data"}]
    ),
    "create: an image's mount": _host(
        "image", Mounts=lambda key: [{"Type": "image", "Source": key, "Target": "/data"}]
    ),
    "create: EndpointsConfig": Case(
        "network",
        "POST",
        "/containers/create",
        body=lambda key: {"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {key: {}}}},
    ),
    "create: Links of an endpoint": Case(
        "container",
        "POST",
        "/containers/create",
        body=lambda key: {
            "Image": "busybox",
            "HostConfig": {"NetworkMode": "ownnet"},
            "NetworkingConfig": {"EndpointsConfig": {"ownnet": {"Links": [f"{key}:web"]}}},
        },
    ),
    "create: name": Case(
        "container", "POST", "/containers/create", lambda key: {"name": key}, lambda key: {"Image": "busybox"}
    ),
    "connect": Case("container", "POST", "/networks/ownnet/connect", body=lambda key: {"Container": key}),
    "disconnect": Case("container", "POST", "/networks/ownnet/disconnect", body=lambda key: {"Container": key}),
    "disconnect by force": Case(
        "container", "POST", "/networks/ownnet/disconnect", body=lambda key: {"Container": key, "Force": True}
    ),
    "a network's configuration": Case(
        "network",
        "POST",
        "/networks/create",
        body=lambda key: {"Name": "copy", "ConfigFrom": {"Network": key}},
    ),
    "commit": Case("container", "POST", "/commit", lambda key: {"container": key, "repo": "stolen"}),
    "save": Case("image", "GET", "/images/get", lambda key: {"names": key}),
    "save several": Case("image", "GET", "/images/get", lambda key: {"names": ["busybox", key]}),
    "pull": Case(
        "image", "POST", "/images/create", lambda key: {"fromImage": f"127.0.0.1:9/{key}" if "/" not in key else key}
    ),
    "cancel a build": Case("container", "POST", "/build/cancel", lambda key: {"id": key}),
    "delete a link": Case("container", "DELETE", "/containers/own/KEY", lambda key: {"link": 1}),
    "delete a link of another's container": Case("container", "DELETE", "/containers/KEY/own", lambda key: {"link": 1}),
    **{
        f"list containers: {name}": _filters("container", "/containers/json", name)
        for name in ("id", "name", "before", "since")
    },
    "list containers: ancestor": _filters("image", "/containers/json", "ancestor"),
    "list containers: volume": _filters("volume", "/containers/json", "volume"),
    "list containers: network": _filters("network", "/containers/json", "network"),
    **{f"list images: {name}": _filters("image", "/images/json", name) for name in ("before", "since", "reference")},
    **{f"list networks: {name}": _filters("network", "/networks", name) for name in ("id", "name")},
    "list volumes: name": _filters("volume", "/volumes", "name"),
    **{f"events: {noun}": _filters(noun, "/events", noun) for noun in ("container", "image", "network", "volume")},
    "prune the build cache": _filters("container", "/build/prune", "id", "POST"),
}


def _asked(victim: Victim, case: Case, key: str) -> tuple[int, str, str]:
    """Status, answer, and the document of the container that was created, which is removed."""
    body = case.body(key)
    creates = case.path == "/containers/create"
    query = {**({"name": "attack"} if creates else {}), **case.query(key)}
    answer = victim.bob.request(
        case.method, case.path.replace("KEY", key), params=query, **({} if body is None else {"json": body})
    )
    made = ""
    if creates and answer.status_code == 201:
        id = answer.json()["Id"]
        made = comparable(victim.bob.get(f"/containers/{id}/json").text.replace(id, "ID"), key)
        victim.bob.delete(f"/containers/{id}", force=1, v=1)
        for volume in victim.bob.get("/volumes").json()["Volumes"]:
            victim.bob.delete(f"/volumes/{volume['Name']}")
    return answer.status_code, comparable(answer.text, key), made


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_names_in_queries_and_bodies(victim: Victim, case: Case) -> None:
    for key, absent in victim.keys[case.noun]:
        assert _asked(victim, case, key) == _asked(victim, case, absent), key
