"""Requests that would cost much: pings beside them are answered, memory stays bounded, what is refused is a 4xx."""

from __future__ import annotations

import json

import pytest

from compat_tests.engines import Engine
from compat_tests.hostile.beside import beside, send

pytestmark = pytest.mark.root

JSON = {"Content-Type": "application/json"}
LISTS: dict[str, tuple[str, object]] = {
    "expression": ("/containers/json", {"name": ["(a+)+$", "(b|b)*c"]}),
    "expressions": ("/containers/json", {"name": [f"x{number}.*" for number in range(700)]}),
    "networks": ("/networks", {"name": ["(a+)+$"]}),
    "volumes": ("/volumes", {"name": ["(a+)+$"]}),
    "wildcards": ("/images/json", {"reference": ["*a" * 200 + "b"]}),
    "ports": ("/containers/json", {"publish": [f"1-65535/p{number}" for number in range(500)]}),
    "digits": ("/containers/json", {"exited": ["9" * 5000]}),
}
BODIES = {
    "deep": b"[" * 1_000_000,
    "objects": b'{"a":' * 1_000_000,
    "string": b'{"a":"' + b"x" * 15_000_000,
    "number": b'{"Memory":' + b"9" * 10_000_000 + b"}",
    "long": b"x" * 40_000_000,
}


@pytest.mark.parametrize("name", LISTS)
def test_filters(own_engine: Engine, name: str) -> None:
    path, filters = LISTS[name]
    with beside(own_engine):
        status, answer = send(own_engine, "GET", path, query={"filters": json.dumps(filters)}, seconds=60)
    assert status in (200, 400), answer
    assert name != "expressions" or b"exceeds the limit REGEX_BYTES" in answer


@pytest.mark.parametrize("name", BODIES)
def test_bodies(own_engine: Engine, name: str) -> None:
    with beside(own_engine):
        status, answer = send(own_engine, "POST", "/containers/create", body=BODIES[name], headers=JSON, seconds=60)
    assert status == 400, answer


@pytest.mark.parametrize("tag", ['{{printf "%999999999d" 1}}', '{{pad "x" 999999999 999999999}}'])
def test_log_tags(own_engine: Engine, tag: str) -> None:
    host = {"LogConfig": {"Type": "json-file", "Config": {"tag": tag}}, "NetworkMode": "none"}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    created = own_engine.api.post("/containers/create", body).json()["Id"]
    try:
        with beside(own_engine):
            status, _ = send(own_engine, "POST", f"/containers/{created}/start", seconds=60)
        assert status in (204, 500)  # dockerd's 500 for a tag that fails
    finally:
        own_engine.api.delete(f"/containers/{created}", force=1)
