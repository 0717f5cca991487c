"""Authentication at registries: passwords, tokens, private CAs; and that secrets stay secret."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trustme

from compat_tests.support.disk import entries
from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.images import docker_archive
from compat_tests.support.servers.registry import PASSWORD, USER, Registry, registry
from compat_tests.support.transfers import certificate_directory, unique_layers

pytestmark = pytest.mark.usefixtures("remove_new_images")


@pytest.fixture(scope="module")
def basic() -> Iterator[Registry]:
    with registry(auth="basic") as found:
        found.copy_archive(docker_archive("x:1", unique_layers()), "private:1")
        yield found


@pytest.fixture(scope="module")
def token() -> Iterator[Registry]:
    with registry(auth="token") as found:
        found.copy_archive(docker_archive("x:1", unique_layers()), "team/app:1")
        yield found


def header(document: Mapping[str, object]) -> dict[str, str]:
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(document).encode()).decode()}


def last(engine: Engine, name: str, auth: Mapping[str, object]) -> str:
    """Pull; return the status of the last message, or the error."""
    repository, _, tag = name.rpartition(":")
    query = {"fromImage": repository, "tag": tag}
    answer = engine.api.request("POST", "/images/create", query=query, headers=header(auth))
    message = answer.lines()[-1]
    return str(message.get("status") or message.get("error") or message["message"])


def test_password_is_required(engine: Engine, basic: Registry) -> None:
    name, other = basic.name("private:1"), basic.name("mine:1")
    refused = engine.docker("pull", name, check=False)
    assert refused.status == 1
    assert f"pull access denied for {basic.name('private')}" in refused.stderr
    assert "no basic auth credentials" in refused.stderr
    wrong = engine.docker("login", "-u", USER, "--password-stdin", basic.address, input="wrong", check=False)
    assert wrong.status == 1
    assert f"login attempt to http://{basic.address}/v2/ failed with status: 401 Unauthorized" in wrong.stderr
    engine.docker("tag", "busybox", other)
    assert "no basic auth credentials" in engine.docker("push", other, check=False).output
    login = engine.docker("login", "-u", USER, "--password-stdin", basic.address, input=PASSWORD)
    assert "Login Succeeded" in login.stdout
    assert "Downloaded newer image" in engine.docker("pull", name).stdout
    assert "digest: sha256:" in engine.docker("push", other).stdout
    engine.docker("logout", basic.address)
    assert engine.docker("pull", name, check=False).status == 1
    with pytest.raises(Exception, match="401 Unauthorized"):
        engine.client.login(USER, "wrong", registry=basic.address, reauth=True)
    assert engine.client.login(USER, PASSWORD, registry=basic.address, reauth=True)["Status"] == "Login Succeeded"


def test_credentials_in_every_form(engine: Engine, basic: Registry) -> None:
    name = basic.name("private:1")
    packed = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for good in (
        {"username": USER, "password": PASSWORD},
        {"username": USER, "password": PASSWORD, "serveraddress": basic.address, "email": ""},
        {"auth": packed},
        {"Username": USER, "Password": PASSWORD},
    ):
        assert "for " + name in last(engine, name, good)
    for bad in ({}, {"username": USER}, {"username": USER, "password": "x"}, {"auth": "%"}, {"registrytoken": "x"}):
        assert "denied" in last(engine, name, bad)
    # An invalid header counts as no credentials.
    answer = engine.api.request(
        "POST", "/images/create", query={"fromImage": name}, headers={"X-Registry-Auth": "n0t base64!"}
    )
    assert "denied" in answer.body.decode()
    answer = engine.api.request("GET", f"/distribution/{name}/json", headers=header({"auth": packed}))
    assert answer.json()["Descriptor"]["digest"].startswith("sha256:")
    assert engine.api.get(f"/distribution/{name}/json").status == 401
    bad_filter = engine.api.get("/images/search", term="busybox", filters=json.dumps({"stars": ["a"]}))
    assert bad_filter.message.startswith("invalid filter 'stars=a'")


def test_tokens_are_requested_by_scope(engine: Engine, token: Registry) -> None:
    assert token.tokens is not None
    name, mine = token.name("team/app:1"), token.name("team/mine:1")
    token.tokens.queries.clear()
    engine.docker("pull", "-q", name)  # anonymous pulls are allowed
    assert {scope for query in token.tokens.queries for scope in query["scope"]} == {"repository:team/app:pull"}
    engine.docker("tag", name, mine)
    assert engine.docker("push", mine, check=False).status == 1
    bad = engine.docker("login", "-u", USER, "--password-stdin", token.address, input="wrong", check=False)
    assert bad.status == 1
    assert "incorrect username or password" in bad.stderr
    engine.docker("login", "-u", USER, "--password-stdin", token.address, input=PASSWORD)
    token.tokens.queries.clear()
    engine.docker("push", mine)
    scopes = {scope for query in token.tokens.queries for scope in query["scope"]}
    assert any("repository:team/mine:pull,push" in scope for scope in scopes)
    # A token is requested for each other repository that may have the blobs.
    assert any("repository:team/app:pull" in scope for scope in scopes)
    engine.docker("logout", token.address)
    # An identity token of a login, and a registry token that a client obtained itself.
    answer = engine.api.post("/auth", {"username": USER, "password": PASSWORD, "serveraddress": token.address})
    assert answer.json() == {"Status": "Login Succeeded", "IdentityToken": "identity"}
    assert "for " + mine in last(engine, mine, {"identitytoken": "identity"})
    assert "unauthorized" in last(engine, mine, {"identitytoken": "stolen"})
    signed = token.tokens.sign(USER, ["repository:team/mine:pull"])
    assert "for " + mine in last(engine, mine, {"registrytoken": signed})
    assert "denied" in last(engine, mine, {"registrytoken": signed[:-4] + "AAAA"})


def test_unreachable_registry(engine: Engine, oracle: Dockerd) -> None:
    """500 as dockerd: 503 would mean that the engine is unavailable."""
    found = []
    for each in (engine, oracle):
        name, login = "127.0.0.1:1/a/x", {"username": USER, "password": PASSWORD, "serveraddress": "127.0.0.1:1"}
        each.docker("tag", "busybox", f"{name}:1")
        pull = each.api.request("POST", "/images/create", query={"fromImage": name, "tag": "1"})
        push = each.api.request("POST", f"/images/{name}/push", query={"tag": "1"}, headers=header({}))
        answers = [pull, each.api.post("/auth", login), each.api.get(f"/distribution/{name}:1/json")]
        for message in (*(answer.message for answer in answers), push.lines()[-1]["error"]):
            assert "dial tcp 127.0.0.1:1: connect: connection refused" in message
        found.append([answer.status for answer in (*answers, push)])
        each.docker("rmi", f"{name}:1")
    assert found == [[500, 500, 500, 200]] * 2


def test_secrets_are_not_stored(engine: Engine, basic: Registry, token: Registry) -> None:
    for found in (basic, token):
        for password in (PASSWORD, "wrong" + PASSWORD):
            auth = {"username": USER, "password": password, "serveraddress": found.address}
            engine.api.post("/auth", auth)
            last(engine, found.name("private:1"), auth)
    packed = base64.b64encode(f"{USER}:{PASSWORD}".encode())[:-3]
    root = engine.resources.root
    names = [path for directory in ("data", "run") for path, _ in entries(root / directory)]
    resources = [root / "wharfd.log", *(Path(path) for path in names if ".db" in os.path.basename(path))]
    assert len(resources) > 2
    for path in resources:
        data = b""
        with contextlib.suppress(FileNotFoundError):  # SQLite's log may disappear
            data = path.read_bytes()
        for secret in (PASSWORD.encode(), packed, b"open+sesame", b"open%20sesame"):
            assert secret not in data, path


def test_private_ca_must_be_trusted(engine: Engine) -> None:
    with registry(tls=True, auth="basic") as found:
        assert found.ca is not None
        engine.docker("login", "-u", USER, "--password-stdin", found.address, input=PASSWORD)
        name = found.name("secure:1")
        engine.docker("tag", "busybox", name)
        engine.docker("push", name)  # on loopback, certificates are not verified
        with certificate_directory(found.address, {"ca.crt": trustme.CA().cert_pem.bytes()}):
            done = engine.docker("pull", name, check=False)
            assert done.status == 1
            assert "tls: failed to verify certificate" in done.stderr
        with certificate_directory(found.address, {"ca.crt": found.ca.read_bytes()}):
            assert "Image is up to date" in engine.docker("pull", name).stdout
        engine.docker("logout", found.address)
