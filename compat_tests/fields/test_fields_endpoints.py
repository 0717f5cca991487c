"""Endpoint fields that need two networks or two containers to test. See matrix.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.fields.matrix import honours
from compat_tests.support.containers import output, running
from compat_tests.support.engines import Engine

FIRST, SECOND = "fields-a", "fields-b"


@pytest.fixture
def networks(engine: Engine) -> Iterator[dict[str, str]]:
    """Two networks with their gateways."""
    for name in (FIRST, SECOND):
        assert engine.api.post("/networks/create", {"Name": name, "Driver": "bridge"}).status == 201
    yield {name: engine.api.get(f"/networks/{name}").json()["IPAM"]["Config"][0]["Gateway"] for name in (FIRST, SECOND)}
    for name in (FIRST, SECOND):
        engine.api.delete(f"/networks/{name}")


def on_both(**second: Any) -> dict[str, Any]:
    return {
        "HostConfig": {"NetworkMode": FIRST},
        "NetworkingConfig": {"EndpointsConfig": {FIRST: {}, SECOND: second}},
    }


@honours("Endpoint.GwPriority")
def test_a_gateways_priority(engine: Engine, networks: dict[str, str]) -> None:
    if engine.kind == "dockerd":
        pytest.skip("new in API 1.48")
    script = "ip route | grep ^default | cut -d' ' -f3"
    assert output(engine, on_both(), script) == [networks[FIRST]]
    assert output(engine, on_both(GwPriority=1), script) == [networks[SECOND]]


@honours("Endpoint.DriverOpts")
def test_an_endpoints_sysctls(engine: Engine, networks: dict[str, str]) -> None:
    if engine.kind == "dockerd":
        pytest.skip("new in Docker 27")
    options = {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.tag=7"}
    script = "cat /proc/sys/net/ipv4/conf/eth*/tag"
    assert output(engine, on_both(), script) == ["0", "0"]
    assert output(engine, on_both(DriverOpts=options), script) == ["0", "7"]


@honours("Endpoint.Links")
def test_an_endpoints_links(engine: Engine, networks: dict[str, str]) -> None:
    """An alias that only this container resolves, and only on that network."""
    with running(engine, {"HostConfig": {"NetworkMode": SECOND}}, name="fields-target") as target:
        inspected = engine.api.get(f"/containers/{target}/json").json()["NetworkSettings"]["Networks"][SECOND]
        script = "nslookup mate | grep -c 'Address: *" + inspected["IPAddress"] + "$'"
        assert output(engine, on_both(Links=["fields-target:mate"]), script) == ["1"]
        assert output(engine, on_both(), script) == ["0"]


def test_a_link_local_address(engine: Engine, networks: dict[str, str]) -> None:
    script = "ip -4 -o addr show | grep -c ' 169.254.7.7/'"
    assert output(engine, on_both(IPAMConfig={"LinkLocalIPs": ["169.254.7.7"]}), script) == ["1"]
    assert output(engine, on_both(), script) == ["0"]
