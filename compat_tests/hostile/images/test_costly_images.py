"""Images with large configs: while they are read, pings are answered and memory stays bounded."""

from __future__ import annotations

import hashlib
import json

import pytest

from compat_tests.hostile.side_effects import monitored, send
from compat_tests.support.engines import Engine
from compat_tests.support.images import busybox_layer, config, docker_archive, layer

TAR = {"Content-Type": "application/x-tar"}
NUMBERS = range(1, 100_001)
CONFIGS: dict[str, dict[str, object]] = {
    "environment": {"Env": [f"E{number}=x" for number in NUMBERS]},
    "labels": {"Labels": {f"l{number}": "x" for number in NUMBERS}},
    "ports": {"ExposedPorts": {f"{number}-65535/tcp": {} for number in range(1, 60_000)}},
    "command": {"Cmd": ["x"] * len(NUMBERS)},
}


def with_history(tag: str, steps: list[object]) -> bytes:
    """Return a docker-archive of an image with this history."""
    data = busybox_layer()
    document = json.dumps({**json.loads(config([data])), "history": steps}).encode()
    image, name = f"{hashlib.sha256(document).hexdigest()}.json", f"{hashlib.sha256(data).hexdigest()}.tar"
    manifest = json.dumps([{"Config": image, "RepoTags": [tag], "Layers": [name]}])
    return layer({image: document, name: data, "manifest.json": manifest})


HISTORIES: dict[str, list[object]] = {"history": [{"created_by": "x"}] * len(NUMBERS), "steps": [{}] * 400_000}


@pytest.mark.parametrize("name", [*CONFIGS, *HISTORIES])
def test_large_configs(own_engine: Engine, name: str) -> None:
    api = own_engine.api
    if name in CONFIGS:
        archive = docker_archive("large:1", [busybox_layer()], **CONFIGS[name])
    else:
        archive = with_history("large:1", HISTORIES[name])
    with monitored(own_engine):
        status, answer = send(own_engine, "POST", "/images/load", body=archive, headers=TAR, seconds=60)
        assert (status, b"Loaded image" in answer) == (200, True), answer
        try:
            for path in ("/images/json", "/images/large:1/json", "/images/large:1/history"):
                assert api.request("GET", path, timeout=60).status == 200
            built = layer({"Dockerfile": "FROM large:1\nLABEL a=b\n"})
            status, answer = send(own_engine, "POST", "/build?t=large:2", body=built, headers=TAR, seconds=60)
            assert (status, b"Successfully tagged" in answer) == (200, True), answer[-500:]
            created = api.request(
                "POST", "/containers/create", body=json.dumps({"Image": "large:2"}).encode(),
                headers={"Content-Type": "application/json"}, timeout=60,
            )  # fmt: skip
            assert created.status == 201, created.body
            assert api.delete(f"/containers/{created.json()['Id']}").status == 204
        finally:
            for tag in ("large:1", "large:2"):
                api.delete(f"/images/{tag}", force=1)


def test_a_config_of_too_many_values_is_refused(own_engine: Engine) -> None:
    body = with_history("large:1", [{}] * 1_000_000)
    with monitored(own_engine):
        _, answer = send(own_engine, "POST", "/images/load", body=body, headers=TAR, seconds=60)
    assert b"exceeds the limit DOCUMENT_VALUES (500000)" in answer, answer
