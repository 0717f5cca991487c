"""Pulls through mirrors: `registry-mirrors` for Docker Hub, and `certs.d/<host>/hosts.toml` for any registry."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator

import pytest

from compat_tests.support.disk import blobs_in
from compat_tests.support.engines import Engine
from compat_tests.support.images import docker_archive
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import PASSWORD, USER, registry
from compat_tests.support.servers.registry_proxy import RegistryProxy, Reply, Rule
from compat_tests.support.transfers import certificate_directory, unique_layers

pytestmark = pytest.mark.usefixtures("remove_new_images")

MIB = 1 << 20


@contextlib.contextmanager
def hub_mirror(engine: Engine, address: str) -> Iterator[None]:
    """An engine with a mirror of Docker Hub in its configuration."""
    config = engine.resources.root / "daemon.json"

    def known() -> bool:
        return f"http://{address}/" in (engine.api.get("/info").json()["RegistryConfig"]["Mirrors"] or [])

    config.write_text(json.dumps({"registry-mirrors": [f"http://{address}", f"http://{address}/"]}))
    os.kill(engine.daemon.pid, signal.SIGHUP)
    try:
        assert until(known)
        yield
    finally:
        config.write_text("{}")
        os.kill(engine.daemon.pid, signal.SIGHUP)
        assert until(lambda: not known())


def test_mirrors_of_docker_hub(own_engine: Engine) -> None:
    """As in dockerd, the flag applies to Docker Hub only: a mirror that ignores `ns` would serve its content under
    other registries' names, and accept every login."""
    with registry() as mirror, registry(auth="basic") as origin, RegistryProxy(mirror.address) as proxy:
        for name in ("library/mirrored:1", "only/there:1"):
            mirror.copy_archive(docker_archive("x:1", unique_layers()), name)
        with hub_mirror(own_engine, proxy.address):
            found = own_engine.api.get("/info").json()["RegistryConfig"]
            assert found["Mirrors"] == found["IndexConfigs"]["docker.io"]["Mirrors"] == [f"http://{proxy.address}/"]
            assert "Downloaded newer image for mirrored:1" in own_engine.docker("pull", "mirrored:1").stdout
            proxy.requests.clear()
            assert own_engine.docker("pull", origin.name("only/there:1"), check=False).status == 1
            for server in (origin.address, "127.0.0.1:1"):
                login = {"username": USER, "password": "wrong", "serveraddress": server}
                assert own_engine.api.post("/auth", login).status != 200
            assert proxy.requests == []
            own_engine.docker("rmi", "mirrored:1")
            # Both front ends of builds pull in the same way.
            for buildkit in ("0", "1"):
                name = origin.name("only/there:1")
                for base, status in (("mirrored:1", 0), (name, 1)):
                    proxy.requests.clear()
                    file = f"FROM {base}\nLABEL a={buildkit}\n"
                    env = {"DOCKER_BUILDKIT": buildkit}
                    done = own_engine.docker("build", "-q", "-t", "made:1", "-", input=file, env=env, check=False)
                    assert done.status == status, done.output
                    assert bool(proxy.requests) == (status == 0)
                own_engine.docker("rmi", "made:1", "mirrored:1", check=False)


def test_mirrors_by_the_name_of_the_registry(own_engine: Engine) -> None:
    """`certs.d/<host>/hosts.toml`: requests have `ns` and no credentials; the content is verified."""
    with registry() as mirror, registry(auth="basic") as origin, RegistryProxy(mirror.address) as proxy:
        archive = docker_archive("x:1", unique_layers(1, 3 * MIB))
        mirror.copy_archive(archive, "app:1")
        origin.copy_archive(archive, "app:1")
        name = origin.name("app:1")
        text = f'[host."http://{proxy.address}"]\n'
        own_engine.docker("login", "-u", USER, "--password-stdin", origin.address, input=PASSWORD)
        with certificate_directory(origin.address, {"hosts.toml": text.encode()}):
            id = own_engine.docker("pull", name).stdout.partition("Digest: ")[2].split()[0]
            assert proxy.requests_for("GET", "/blobs/")
            assert all(f"ns={origin.address}".replace(":", "%3A") in request.path for request in proxy.requests)
            assert not any("authorization" in request.headers for request in proxy.requests)
            # A mirror with wrong content: the pull by digest falls back to the registry.
            lies: list[Rule] = [
                lambda request: Reply(200, b"x" * 100) if "/blobs/" in request.path else None,
                lambda request: Reply(200, b"x" * (4 * MIB)) if "/blobs/" in request.path else None,
                lambda request: Reply(200, b'{"schemaVersion": 2}') if "/manifests/" in request.path else None,
                lambda request: Reply(503) if "/blobs/" in request.path else None,
            ]
            for lie in lies:
                own_engine.docker("rmi", name, f"{origin.name('app')}@{id}", check=False)
                assert until(lambda: id[7:] not in blobs_in(own_engine), seconds=60)
                proxy.requests.clear()
                proxy.rule = lie
                own_engine.docker("pull", f"{origin.name('app')}@{id}")
                assert proxy.requests
            proxy.requests.clear()
            own_engine.docker("tag", "busybox", origin.name("mine:1"))
            own_engine.docker("push", "-q", origin.name("mine:1"))
            assert proxy.requests == []
            own_engine.docker("rmi", origin.name("mine:1"))
        own_engine.docker("logout", origin.address)
        with certificate_directory(origin.address, {"hosts.toml": b"[host"}):
            done = own_engine.docker("pull", name, check=False)
            assert done.status == 1
            assert "hosts.toml" in done.stderr
