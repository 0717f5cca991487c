"""Requests for networks, by the API, because the docker CLI itself refuses some of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from compat_tests.support.engines import Engine

V4, V6 = "com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"


@contextmanager
def network(engine: Engine, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    answer = engine.api.post("/networks/create", {"Name": "asked", **body})
    assert answer.status == 201, answer.body
    try:
        yield engine.api.get("/networks/asked").json()
    finally:
        engine.api.delete("/networks/asked")


@pytest.mark.parametrize(
    ("body", "families", "shown"),
    [
        ({"Options": {V6: "true"}}, (True, True), {V6: "true"}),
        ({"Options": {V6: "false"}}, (True, False), {V6: "false"}),
        ({"Options": {V4: "0", V6: "1"}}, (False, True), {V4: "0", V6: "1"}),
        ({"Options": {V6: "true"}, "EnableIPv6": False}, (True, False), {}),
        ({"Options": {V6: "odd"}, "EnableIPv6": True}, (True, True), {}),
        ({"Options": {V4: "false"}, "EnableIPv4": True}, (True, False), {}),
    ],
)
def test_families_as_options(
    engine: Engine, body: dict[str, Any], families: tuple[bool, bool], shown: dict[str, str]
) -> None:
    """As Compose files specify them; the request's own fields override."""
    with network(engine, body) as found:
        assert (found["EnableIPv4"], found["EnableIPv6"]) == families
        assert found["Options"] == shown
        versions = {ipaddress.ip_network(item["Subnet"]).version for item in found["IPAM"]["Config"]}
        assert versions == {version for version, enabled in zip((4, 6), families, strict=True) if enabled}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Options": {V6: "odd"}}, f'driver-opt "{V6}" is not a valid bool'),
        ({"Options": {V4: "false"}}, "IPv4 or IPv6 must be enabled"),
        ({"Options": {V4: "false", V6: "true"}, "EnableIPv6": False}, "IPv4 or IPv6 must be enabled"),
    ],
)
def test_contradictory_families_are_refused(engine: Engine, body: dict[str, Any], message: str) -> None:
    answer = engine.api.post("/networks/create", {"Name": "asked", **body})
    assert answer.error == (400, message)


def test_invalid_addresses(engine: Engine) -> None:
    pool = ipaddress.IPv4Network(engine.resources.pool.partition("=")[2].partition(",")[0])
    *_, subnet = pool.subnets(new_prefix=26)  # networks without a subnet get lower ones
    first, last, usual = str(subnet[0]), str(subnet[-1]), str(subnet[1])
    config = {"Subnet": str(subnet)}
    for more, message in (
        ({"Gateway": first}, f"failed to allocate gateway ({first}): Address already in use"),
        ({"Gateway": last}, f"failed to allocate gateway ({last}): Address already in use"),
        (
            {"Gateway": usual, "AuxiliaryAddresses": {"router": usual}},
            f"failed to allocate secondary ip address (router:{usual}): Address already in use",
        ),
    ):
        body = {"Name": "asked", "IPAM": {"Config": [{**config, **more}]}}
        answer = engine.api.post("/networks/create", body)
        assert answer.error == (500, message)
    # The subnet can be used by a valid request.
    with network(engine, {"IPAM": {"Config": [{**config, "Gateway": str(subnet[-2])}]}}) as found:
        assert found["IPAM"]["Config"] == [{**config, "Gateway": str(subnet[-2])}]


@pytest.mark.parametrize("name", ["lo", "a/b", "a b", "..", "sixteen-letters-"])
def test_invalid_interface_names_are_refused(engine: Engine, name: str) -> None:
    config = {"bridge": {"DriverOpts": {"com.docker.network.endpoint.ifname": name}}}
    body = {"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": config}}
    answer = engine.api.post("/containers/create", body)
    assert answer.status == 400
    assert f"invalid interface name '{name}'" in answer.message


def test_unknown_driver_options_are_kept(engine: Engine, oracle: Engine) -> None:
    """Of a network, of its IPAM and of an endpoint, at create and at connect."""
    options = {"com.docker.network.bridge.nosuch": "1", "foo": "bar"}
    found = []
    for each in (engine, oracle):
        with network(each, {"Options": options, "IPAM": {"Options": {"odd": "x"}}}) as created:
            connected = {"asked": {"DriverOpts": {"com.docker-py.setting": "true", "x": "y"}}}
            body = {
                "Image": "busybox",
                "Cmd": ["sleep", "1000"],
                "HostConfig": {"NetworkMode": "asked"},
                "NetworkingConfig": {"EndpointsConfig": connected},
            }
            answer = each.api.post("/containers/create", body)
            assert answer.status == 201, answer.body
            identity = answer.json()["Id"]
            try:
                assert each.api.post(f"/containers/{identity}/start").status == 204
                body = {"Container": identity, "EndpointConfig": {"DriverOpts": {"foo": "bar"}}}
                assert each.api.post("/networks/bridge/connect", body).status == 200
                inspected = each.api.get(f"/containers/{identity}/json").json()["NetworkSettings"]["Networks"]
            finally:
                each.api.delete(f"/containers/{identity}", force=1)
            opts = {name: settings["DriverOpts"] for name, settings in inspected.items()}
            found.append((created["Options"], created["IPAM"]["Options"], opts))
    assert found[0] == found[1]
    assert found[0] == (options, {"odd": "x"}, {"asked": connected["asked"]["DriverOpts"], "bridge": {"foo": "bar"}})


def test_link_applies_to_one_network(engine: Engine, oracle: Engine) -> None:
    """After the target has left the network, the alias does not resolve, even if both are on another network."""
    found = []
    for each in (engine, oracle):
        results = []
        for name in ("one", "two"):
            each.docker("network", "create", f"link-{name}")
        try:
            each.docker("run", "-d", "--name", "linked", "--network", "link-one", "busybox", "sleep", "1000")
            joined = ("--network", "link-one", "--link", "linked:alias")
            each.docker("run", "-d", "--name", "client", *joined, "busybox", "sleep", "1000")
            for name in ("linked", "client"):
                each.docker("network", "connect", "link-two", name)
            for verb in ("", "disconnect", "connect"):
                if verb:
                    each.docker("network", verb, "link-one", "linked")
                for name in ("linked", "alias", "alias.link-two"):
                    pinged = each.docker("exec", "client", "ping", "-c1", "-W5", name, check=False)
                    results.append((verb, name, pinged.status))
        finally:
            each.docker("rm", "-f", "linked", "client")
            each.docker("network", "rm", "link-one", "link-two")
        found.append(results)
    assert found[0] == found[1]
    assert ("disconnect", "alias", 1) in found[0]
