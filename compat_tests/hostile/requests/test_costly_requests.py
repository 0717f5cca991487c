"""Costly requests: concurrent pings are answered, memory stays bounded, refusals are 4xx."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from compat_tests.hostile.side_effects import monitored, send
from compat_tests.support.engines import Engine
from compat_tests.support.images import layer

JSON = {"Content-Type": "application/json"}
LISTS: dict[str, tuple[str, object]] = {
    "expression": ("/containers/json", {"name": ["(a+)+$", "(b|b)*c"]}),
    "expressions": ("/containers/json", {"name": [f"x{number}.*" for number in range(1000)]}),
    "networks": ("/networks", {"name": ["(a+)+$"]}),
    "volumes": ("/volumes", {"name": ["(a+)+$"]}),
    "wildcards": ("/images/json", {"reference": ["*a" * 200 + "b"]}),
    "ports": ("/containers/json", {"publish": [f"1-65535/p{number}" for number in range(500)]}),
    "many": ("/events", {"container": [f"{number:x}" for number in range(9000)]}),
    "too many": ("/events", {"container": [f"{number:x}" for number in range(80_000)]}),
    "references": ("/images/json", {"reference": [f"{number}*" for number in range(9000)]}),
    "digits": ("/containers/json", {"exited": ["9" * 5000]}),
}
TOO_MANY = {"expressions": "REGEX_BYTES", "too many": "FILTER_VALUES", "references": "GLOB_BYTES"}
BODIES = {
    "deep": b"[" * 1_000_000,
    "objects": b'{"a":' * 1_000_000,
    "string": b'{"a":"' + b"x" * 15_000_000,
    "number": b'{"Memory":' + b"9" * 10_000_000 + b"}",
    "long": b"x" * 40_000_000,
    "elements": b"[" + b"0," * 8_000_000,
    "members": b"{" + b'"a":0,' * 2_500_000,
    "arrays": b"[" + b"[0]," * 1_000_000,
    "types": b'{"Env":[' + b"1," * 5_000_000 + b"1]}",
    "models": b'{"HostConfig":{"Mounts":[' + b"{}," * 4_000_000 + b"{}]}}",
}
COUNT = 100_000
NUMBERS = range(1, COUNT + 1)
PORTS = range(20_000, 60_000)
CONTAINERS: dict[str, dict[str, object]] = {
    "labels": {"Labels": {f"l{number}": "x" for number in NUMBERS}},
    "environment": {"Env": [f"E{number}=x" for number in range(20_000)]},  # crun takes 40 s for 100,000
    "volumes": {"Volumes": {f"/x{number}": {} for number in NUMBERS}},
    "commands": {"Cmd": ["true", *["x"] * COUNT]},
    "networks": {"NetworkingConfig": {"EndpointsConfig": {f"n{number}": {} for number in NUMBERS}}},
    "ports": {
        "ExposedPorts": {f"{number}/tcp": {} for number in range(1, 65536)},
        "HostConfig": {"PortBindings": {f"{number}/tcp": [{"HostPort": str(number)}] for number in PORTS}},
    },
}
HOSTS: dict[str, dict[str, object]] = {
    "bindings": {"PortBindings": {f"{number}/tcp": [{"HostPort": str(number)}] for number in range(1, 65536)}},
    "binds": {"Binds": [f"/tmp:/x{number}" for number in NUMBERS]},
    "fewer binds": {"Binds": [f"/tmp:/x{number}:ro,rslave" for number in range(3000)]},
    "mounts": {"Mounts": [{"Type": "tmpfs", "Target": f"/x{number}"} for number in range(120_000)]},
    "fewer mounts": {"Mounts": [{"Type": "tmpfs", "Target": f"/x{number}"} for number in range(115_000)]},
    "tmpfs": {"Tmpfs": {f"/x{number}": "" for number in NUMBERS}},
    "hosts": {"ExtraHosts": [f"h{number}:1.2.3.4" for number in NUMBERS]},
    "ulimits": {"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 10}] * COUNT},
    "devices": {"Devices": [{"PathOnHost": "/dev/null"} for _ in NUMBERS]},
    "groups": {"GroupAdd": [str(number) for number in NUMBERS]},
    "annotations": {"Annotations": {f"a{number}": "x" for number in NUMBERS}},
}
CONTAINERS |= {name: {"HostConfig": {"NetworkMode": "none", **host}} for name, host in HOSTS.items()}
LIMITED = {
    "volumes": "CONTAINER_MOUNTS (10000)",
    "binds": "CONTAINER_MOUNTS",
    "mounts": "JSON_VALUES (350000)",
    "ulimits": "JSON_VALUES",
    "fewer mounts": "CONTAINER_MOUNTS",
    "tmpfs": "CONTAINER_MOUNTS",
    "devices": "CONTAINER_DEVICES (10000)",
    "networks": "CONTAINER_NETWORKS (1000)",
}


@pytest.mark.parametrize("name", LISTS)
def test_costly_filters(own_engine: Engine, name: str) -> None:
    path, filters = LISTS[name]
    with monitored(own_engine):
        packed = json.dumps(filters, separators=(",", ":"))
        status, answer = send(
            own_engine, "GET", f"{path}?since=1&until=2&filters={quote(packed, safe='[]{},:')}", seconds=60
        )
    assert status in (200, 400), answer
    assert name not in TOO_MANY or f"exceeds the limit {TOO_MANY[name]}" in answer.decode()


@pytest.mark.parametrize("name", BODIES)
def test_costly_bodies(own_engine: Engine, name: str) -> None:
    with monitored(own_engine):
        status, answer = send(own_engine, "POST", "/containers/create", body=BODIES[name], headers=JSON, seconds=60)
    assert status == 400, answer


@pytest.mark.parametrize("name", CONTAINERS)
def test_many_elements_of_one_kind(own_engine: Engine, name: str) -> None:
    api = own_engine.api
    body = json.dumps({"Image": "busybox", "Cmd": ["true"], **CONTAINERS[name]}).encode()
    with monitored(own_engine):
        status, answer = send(own_engine, "POST", "/containers/create", body=body, headers=JSON, seconds=60)
        if name in LIMITED:
            assert status == 400
            assert f"exceeds the limit {LIMITED[name]}" in answer.decode()
            return
        assert status == 201, answer
        created = json.loads(answer)["Id"]
        try:
            started = api.request("POST", f"/containers/{created}/start", timeout=300)
            assert started.status in (204, 500), started.body[-500:]
            for path in (f"/containers/{created}/json", "/containers/json?all=1"):
                assert api.request("GET", path, timeout=60).status == 200
        finally:
            assert api.request("DELETE", f"/containers/{created}?force=1", timeout=60).status == 204


@pytest.mark.parametrize("tag", ['{{printf "%999999999d" 1}}', '{{pad "x" 999999999 999999999}}'])
def test_log_tags(own_engine: Engine, tag: str) -> None:
    host = {"LogConfig": {"Type": "json-file", "Config": {"tag": tag}}, "NetworkMode": "none"}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    created = own_engine.api.post("/containers/create", body).json()["Id"]
    try:
        with monitored(own_engine):
            status, _ = send(own_engine, "POST", f"/containers/{created}/start", seconds=60)
        assert status in (204, 500)  # dockerd's 500 for a tag that fails
    finally:
        own_engine.api.delete(f"/containers/{created}", force=1)


def test_long_queries(own_engine: Engine) -> None:
    """As ``docker build`` with many --build-arg sends them. Go's server accepts heads of 1 MiB plus 4 KiB."""
    arguments = {f"NAME_{number}": "x" * 1000 for number in range(700)}
    archive = layer({"Dockerfile": "FROM busybox\nARG NAME_699\nLABEL found=$NAME_699\n"})
    query = {"buildargs": json.dumps(arguments), "t": "long-query"}
    with monitored(own_engine):
        status, answer = send(
            own_engine, "POST", "/build", query=query, body=archive, headers={"Content-Type": "application/x-tar"}
        )
    assert (status, b"Successfully tagged" in answer) == (200, True), answer[-500:]
    labels = own_engine.api.get("/images/long-query/json").json()["Config"]["Labels"]
    own_engine.api.delete("/images/long-query")
    assert labels == {"found": "x" * 1000}
    status, _ = send(own_engine, "GET", "/containers/json", query={"filters": "x" * (1 << 20)})
    assert status == 400
    status, _ = send(own_engine, "GET", "/containers/json", query={"filters": "x" * (2 << 20)})
    assert status == 431


def test_costly_subnets(own_engine: Engine) -> None:
    subnets = [{"Subnet": f"10.{number >> 8}.{number & 255}.0/24"} for number in range(20_000)]
    body = {"Name": "subnets", "Driver": "macvlan", "IPAM": {"Config": subnets}}
    with monitored(own_engine):
        status, answer = send(
            own_engine, "POST", "/networks/create", body=json.dumps(body).encode(), headers=JSON, seconds=60
        )
    assert (status, b"exceeds the limit NETWORK_SUBNETS (1000)" in answer) == (400, True), answer
