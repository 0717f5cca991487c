"""Sockets with a scope: objects outside of it do not exist, and endpoints outside of it are refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from compat_tests.support import engines
from compat_tests.support.api import Api
from compat_tests.support.engines import Wharf
from compat_tests.support.host import resources
from compat_tests.support.users import User, lab

POLICY = """
[scopes.proxy]
labels = ["traefik.enable=true"]
mask_environment = true

[scopes.restarter]
endpoints = ["GET /containers/json", "POST /containers/{id}/restart"]
"""


@dataclass(slots=True)
class Sockets:
    engine: Wharf
    read: Api
    proxy: Api
    restarter: Api


@pytest.fixture(scope="module")
def sockets() -> Iterator[Sockets]:
    allocated = resources.allocate("scopes")
    policy = allocated.root / "policy.toml"
    policy.write_text(POLICY)
    paths = {name: allocated.root / f"{name}.sock" for name in ("read", "proxy", "restarter")}
    hosts = [word for name, path in paths.items() for word in ("-H", f"unix://{path}?scope={name}")]
    with engines.wharf_on(allocated, "--policy-file", str(policy), *hosts) as engine:
        engine.load_busybox()
        yield Sockets(engine, **{name: Api(path) for name, path in paths.items()})


def refusal(scope: str, endpoint: str) -> tuple[int, str]:
    return 403, f"the scope {scope} of this socket does not allow {endpoint}"


def test_a_socket_that_only_reads(sockets: Sockets) -> None:
    words = ("run", "-d", "--name", "seen", "busybox", "sh", "-c", "echo hi; sleep 600")
    id = sockets.engine.docker(*words).stdout.strip()
    assert sockets.read.get(f"/containers/{id}/json").json()["Name"] == "/seen"
    assert [row["Id"] for row in sockets.read.get("/containers/json").json()] == [id]
    assert b"hi" in sockets.read.get(f"/containers/{id}/logs", stdout=1).body
    assert sockets.read.get("/info").json()["ContainersRunning"] == 1
    for method, path, endpoint in (
        ("POST", f"/containers/{id}/stop", "POST /containers/{name}/stop"),
        ("POST", "/containers/create", "POST /containers/create"),
        ("POST", f"/containers/{id}/exec", "POST /containers/{name}/exec"),
        ("DELETE", f"/containers/{id}", "DELETE /containers/{name:path}"),
        ("GET", f"/containers/{id}/archive", "GET /containers/{name}/archive"),
        ("GET", f"/containers/{id}/export", "GET /containers/{name}/export"),
        ("GET", "/images/busybox/get", "GET /images/{name:path}/get"),
        ("POST", "/build", "POST /build"),
        ("POST", "/grpc", "POST /grpc"),
    ):
        assert sockets.read.request(method, path, query={"path": "/etc"}).error == refusal("read", endpoint)
    sockets.engine.docker("rm", "-f", id)


def test_a_scope_of_labels_hides_all_other_containers(sockets: Sockets) -> None:
    run = ("run", "-d", "-e", "TOKEN=secret")
    web = sockets.engine.docker(*run, "-l", "traefik.enable=true", "busybox", "sleep", "600").stdout.strip()
    other = sockets.engine.docker(*run, "--name", "other", "busybox", "sleep", "600").stdout.strip()
    assert [row["Id"] for row in sockets.proxy.get("/containers/json").json()] == [web]
    for key in (other, "other", other[:12]):
        assert sockets.proxy.get(f"/containers/{key}/json").error == (404, f"No such container: {key}")
    shown = sockets.proxy.get(f"/containers/{web}/json")
    assert "TOKEN=***" in shown.json()["Config"]["Env"]
    assert b"secret" not in shown.body
    events = sockets.proxy.get("/events", since=1, until=int(time.time()) + 1).lines()
    assert {event["Actor"]["ID"] for event in events} == {web}
    sockets.engine.docker("rm", "-f", web, other)


def test_a_scope_of_endpoints(sockets: Sockets) -> None:
    id = sockets.engine.docker("run", "-d", "busybox", "sleep", "600").stdout.strip()
    assert [row["Id"] for row in sockets.restarter.get("/containers/json").json()] == [id]
    assert sockets.restarter.post(f"/containers/{id}/restart", t=0).status == 204
    assert sockets.restarter.get("/info").error == refusal("restarter", "GET /info")
    sockets.engine.docker("rm", "-f", id)


OWNERS = """
published_images = ["docker.io/library/*"]
[users]
{alice} = "member"
{bob} = "member"
[roles.member]
[scopes.alices]
owners = ["{alice}"]
[scopes.own]
owners = [""]
"""


def test_a_scope_of_owners(tmp_path: Path) -> None:
    """A scope of users' objects, and one of the administrators', each asked by an administrator."""
    paths = {name: tmp_path / f"{name}.sock" for name in ("alices", "own")}
    hosts = [word for name, path in paths.items() for word in ("-H", f"unix://{path}?scope={name}")]
    with lab("scopeowners", OWNERS, ("alice", "bob"), *hosts) as made:
        clients: dict[str, User | Wharf] = {"alice": made["alice"], "bob": made["bob"], "": made.engine}
        ids = {}
        for name, client in clients.items():
            ids[name] = client.docker("run", "-d", "--name", "web", "busybox", "sleep", "600").stdout.strip()
            client.docker("network", "create", f"net{name}")
            client.docker("volume", "create", f"data{name}")
        for scope, inside in (("alices", "alice"), ("own", "")):
            api = Api(paths[scope])
            assert [row["Id"] for row in api.get("/containers/json").json()] == [ids[inside]]
            assert {row["Name"] for row in api.get("/networks").json() if "net" in row["Name"]} == {f"net{inside}"}
            (volume,) = api.get("/volumes").json()["Volumes"]
            assert volume["Name"].endswith(f"data{inside}")
            for name, id in ids.items():
                status = 200 if name == inside else 404
                assert api.get(f"/containers/{id}/json").status == status
                assert api.get(f"/containers/{id}/logs", stdout=1).status == status
            events = api.get("/events", since=1, until=int(time.time()) + 1).lines()
            assert {event["Actor"]["ID"] for event in events if event["Type"] == "container"} == {ids[inside]}
            assert api.post(f"/containers/{ids[inside]}/stop").status == 403
        made.engine.docker("rm", "-f", *ids.values())
        for name, client in clients.items():
            client.docker("network", "rm", f"net{name}")
            client.docker("volume", "rm", f"data{name}")


@pytest.mark.parametrize(
    ("policy", "scope", "sentence"),
    [
        ("", "write", "the policy has no scope write"),
        ('scopes.a.endpoints = ["GET /nothing"]', "a", "scope a: there is no endpoint GET /nothing"),
    ],
)
def test_a_wrong_scope_ends_the_start(policy: str, scope: str, sentence: str) -> None:
    allocated = resources.allocate("wrong")
    path = allocated.root / "policy.toml"
    path.write_text(policy)
    words = ("--policy-file", str(path), "-H", f"unix://{allocated.root}/a.sock?scope={scope}")
    with pytest.raises(AssertionError, match=sentence), engines.wharf_on(allocated, *words):
        pass
