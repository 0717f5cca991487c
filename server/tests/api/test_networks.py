"""/networks over records only: there is no kernel below."""

import json
from typing import Any

import pytest

from server.tests.daemon import Daemon


def networks(daemon: Daemon, **filters: list[str]) -> list[str]:
    return [row["Name"] for row in daemon.get("/networks", filters=json.dumps(filters)).json()]


def test_networks_are_listed_and_inspected(shared_daemon: Daemon) -> None:
    assert sorted(networks(shared_daemon)) == ["bridge", "host", "none"]
    assert networks(shared_daemon, driver=["null"]) == ["none"]
    assert networks(shared_daemon, name=["hos"]) == ["host"]
    assert networks(shared_daemon, type=["custom"]) == []
    identity = shared_daemon.get("/networks/host").json()["Id"]
    for expression in (identity, identity[:12], f"^/?{identity}$", identity[3:40]):
        assert networks(shared_daemon, id=[expression], name=["^host$"]) == ["host"]
    assert networks(shared_daemon, id=[f"{identity[:12]}$"]) == []
    shown = shared_daemon.get("/networks/bridge").json()
    assert (shown["Driver"], shown["Scope"], shown["Containers"]) == ("bridge", "local", {})
    assert shown["IPAM"]["Config"] == [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]
    old = shared_daemon.get("/v1.46/networks/bridge").json()
    assert "EnableIPv4" in shown
    assert "EnableIPv4" not in old


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("GET", "/networks/nope", None, 404, "network nope not found"),
        ("DELETE", "/networks/nope", None, 404, "network nope not found"),
        ("DELETE", "/networks/bridge", None, 403, "bridge is a pre-defined network and cannot be removed"),
        ("GET", "/networks?filters={%22nope%22:[]}", None, 400, "invalid filter 'nope'"),
        ("POST", "/networks/create", {"Name": ""}, 400, None),
        ("POST", "/networks/create", {"Name": "a", "Driver": "nope"}, 404, None),
        ("POST", "/networks/create", {"Name": "host"}, 403, None),
        (
            "POST",
            "/networks/create",
            {"Name": "a", "IPAM": {"Config": [{"Subnet": "0.0.0.0/24", "Gateway": "0.0.0.1"}]}},
            400,
            "invalid network config:\ninvalid subnet 0.0.0.0/24: a size has no ip-range, gateway or auxiliary address",
        ),
        ("POST", "/networks/nope/connect", {"Container": "created"}, 404, "network nope not found"),
        ("POST", "/networks/bridge/connect", {"Container": "nope"}, 404, "No such container: nope"),
    ],
)
def test_networks_that_are_refused(
    shared_daemon: Daemon, method: str, path: str, body: dict[str, Any] | None, status: int, sentence: str | None
) -> None:
    found = shared_daemon.refusal(method, path, **({} if body is None else {"json": body}))
    assert found[0] == status, found
    assert sentence is None or found[1] == sentence
