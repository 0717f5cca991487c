"""JSON with lone surrogates and invalid UTF-8, wherever requests carry JSON: dockerd reads U+FFFD."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from typing import Any

import pytest

from compat_tests.support.api import Answer
from compat_tests.support.engines import Engine
from compat_tests.support.images import layer

JSON = {"Content-Type": "application/json"}
# Spellings of a value that are all read as "a" and U+FFFD.
SPELLINGS = [rb"a\ud800", rb"a\uDFFF", b"a\xff"]
READ = "a\ufffd"


def post(engine: Engine, path: str, body: bytes, **headers: str) -> Answer:
    return engine.api.request("POST", path, body=body, headers={**JSON, **headers})


@pytest.fixture(params=["engine", "oracle"])
def either(request: pytest.FixtureRequest, engine: Engine, oracle: Engine) -> Engine:
    """Wharf and dockerd: both must pass."""
    found = engine if request.param == "engine" else oracle
    found.load_busybox()
    return found


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_request_bodies(either: Engine, spelling: bytes) -> None:
    body = b'{"Image":"busybox","Cmd":["true","%b"],"Env":["E=%b"],"Labels":{"k%b":"%b"}}' % ((spelling,) * 4)
    created = post(either, "/containers/create", body)
    assert created.status == 201, created.body
    identity = created.json()["Id"]
    try:
        config = either.api.get(f"/containers/{identity}/json").json()["Config"]
        assert config["Cmd"] == ["true", READ]
        assert f"E={READ}" in config["Env"]
        assert config["Labels"] == {f"k{READ}": READ}
        listed = either.api.get("/containers/json", all=1, filters=json.dumps({"label": [f"k{READ}"]})).json()
        assert [item["Id"] for item in listed] == [identity]
        assert either.api.post(f"/containers/{identity}/start").status == 204
    finally:
        either.api.delete(f"/containers/{identity}", force=1)

    volume = post(either, "/volumes/create", b'{"Name":"surrogate","Labels":{"k":"%b"}}' % spelling)
    try:
        assert (volume.status, volume.json()["Labels"]) == (201, {"k": READ})
    finally:
        either.api.delete("/volumes/surrogate")

    network = post(either, "/networks/create", b'{"Name":"surrogate","Internal":true,"Labels":{"k":"%b"}}' % spelling)
    try:
        assert network.status == 201, network.body
        assert either.api.get("/networks/surrogate").json()["Labels"] == {"k": READ}
    finally:
        either.api.delete("/networks/surrogate")


REFUSED = [
    ("/containers/create", b'{"Image":"%b"}'),
    ("/containers/create?name=x", b'{"Image":"busybox","WorkingDir":"%b"}'),
    ("/volumes/create", b'{"Name":"%b"}'),
    ("/networks/create", b'{"Name":"x","Driver":"%b"}'),
    ("/networks/none/connect", b'{"Container":"%b"}'),
    ("/auth", b'{"username":"%b","serveraddress":"127.0.0.1:1"}'),
]


@pytest.mark.parametrize(("path", "body"), REFUSED, ids=[path for path, _ in REFUSED])
def test_errors_quote_the_decoded_text(either: Engine, path: str, body: bytes) -> None:
    answers = [post(either, path, body % spelling) for spelling in SPELLINGS]
    for answer in answers:
        assert 400 <= answer.status <= 503, (answer.status, answer.body)
        assert "internal error" not in answer.message
    assert len({answer.error for answer in answers}) == 1


def quoted(text: bytes) -> str:
    return "".join(f"%{byte:02x}" for byte in text)


@pytest.mark.parametrize("spelling", SPELLINGS[:2])
def test_filters_in_queries(either: Engine, spelling: bytes) -> None:
    filters = quoted(b'{"label":["%b"]}' % spelling)
    for path in ("/containers/json", "/images/json", "/networks", "/volumes"):
        answer = either.api.get(f"{path}?filters={filters}")
        assert answer.status == 200, (path, answer.body)
    context = layer({"Dockerfile": "FROM busybox\nARG A\nLABEL a=$A\n"})
    arguments, labels = quoted(b'{"A":"%b"}' % spelling), quoted(b'{"b":"%b"}' % spelling)
    path = f"/build?t=surrogates&buildargs={arguments}&labels={labels}"
    built = either.api.request("POST", path, body=context, headers={"Content-Type": "application/x-tar"})
    assert (built.status, "errorDetail" in built.body.decode()) == (200, False), built.body
    try:
        found = either.api.get("/images/surrogates/json").json()["Config"]["Labels"]
        assert found == {"a": READ, "b": READ}
    finally:
        either.api.delete("/images/surrogates")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_registry_credentials(either: Engine, spelling: bytes) -> None:
    header = base64.urlsafe_b64encode(b'{"username":"u","password":"%b"}' % spelling).decode()
    answer = either.api.request(
        "POST", "/images/create?fromImage=127.0.0.1:1/none", headers={"X-Registry-Auth": header}
    )
    assert "connection refused" in answer.body.decode(), answer.body
    header = base64.urlsafe_b64encode(b'{"127.0.0.1:1":{"username":"u","password":"%b"}}' % spelling).decode()
    built = either.api.request(
        "POST",
        "/build?t=surrogates",
        body=layer({"Dockerfile": "FROM scratch\nLABEL a=b\n"}),
        headers={"X-Registry-Config": header, "Content-Type": "application/x-tar"},
    )
    assert built.status == 200, built.body
    either.api.delete("/images/surrogates")


def archive(spelling: bytes) -> bytes:
    """Return a docker-archive with such strings in image config and manifest."""
    config: Any = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    config = config.encode()[:-1] + b',"config":{"Labels":{"k":"%b"}},"author":"%b"}' % (spelling, spelling)
    manifest = b'[{"Config":"c.json","RepoTags":["surrogates:latest"],"Layers":[],"More":"%b"}]' % spelling
    return layer({"c.json": config, "manifest.json": manifest})


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_image_configs(engine: Engine, spelling: bytes) -> None:
    loaded = engine.api.request("POST", "/images/load", body=archive(spelling))
    assert loaded.status == 200, loaded.body
    try:
        found = engine.api.get("/images/surrogates/json").json()
        assert (found["Config"]["Labels"], found["Author"]) == ({"k": READ}, READ)
        assert engine.api.get("/images/surrogates/history").status == 200
        assert "surrogates:latest" in engine.api.get("/images/json").body.decode()
        created = engine.api.post("/containers/create", {"Image": "surrogates", "Cmd": ["x"]})
        assert created.status == 201, created.body
        engine.api.delete(f"/containers/{created.json()['Id']}")
    finally:
        engine.api.delete("/images/surrogates")


def test_file_names_with_invalid_utf8(either: Engine) -> None:
    """Answers are JSON, so such a name contains U+FFFD."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", errors="surrogateescape", encoding="utf-8") as archived:
        archived.addfile(tarfile.TarInfo("caf\udce9"))
    identity = either.api.post("/containers/create", {"Image": "busybox"}).json()["Id"]
    try:
        put = either.api.request("PUT", f"/containers/{identity}/archive?path=/tmp", body=buffer.getvalue())
        assert put.status == 200, put.body
        changes = either.api.get(f"/containers/{identity}/changes")
        assert changes.status == 200, changes.body
        assert {"Path": "/tmp/caf\ufffd", "Kind": 1} in changes.json()
    finally:
        either.api.delete(f"/containers/{identity}", force=1)
