"""Difficult registries: behind proxies, without TLS, with client certificates, stalled, or with redirect loops."""

from __future__ import annotations

import base64
import contextlib
import gzip
import ipaddress
import json
import os
import signal
from collections.abc import Iterator, Mapping

import pytest

from compat_tests.support import engines
from compat_tests.support.disk import blobs_in, ingest_size
from compat_tests.support.engines import Wharf
from compat_tests.support.images import busybox_layer, digest, oci_archive
from compat_tests.support.polling import until
from compat_tests.support.servers.http_proxy import HttpProxy
from compat_tests.support.servers.registry import Registry, registry
from compat_tests.support.servers.registry_proxy import Delay, RecordedRequest, Reply, Rule
from compat_tests.support.transfers import certificate_directory, new_images_removed, proxied, unique_layers

PLAIN, SECURE = "plain.wharf.test:5000", "secure.wharf.test"
MIB = 1 << 20


def configure(engine: Wharf, keys: Mapping[str, object]) -> None:
    """Change settings that the daemon reloads."""
    registries: list[str] = [PLAIN]
    if isinstance(configured := keys.get("insecure-registries"), list):
        registries = configured
    document = {**keys, "insecure-registries": registries}
    (engine.resources.root / "daemon.json").write_text(json.dumps(document))
    os.kill(engine.daemon.pid, signal.SIGHUP)

    def known() -> bool:
        found = engine.api.get("/info").json()["RegistryConfig"]
        return {*found["IndexConfigs"], *found["InsecureRegistryCIDRs"]} >= {*registries}

    assert until(known)


@pytest.fixture(scope="module")
def proxy() -> Iterator[HttpProxy]:
    with HttpProxy({}) as found:
        yield found


@pytest.fixture(scope="module")
def wild(proxy: HttpProxy) -> Iterator[Wharf]:
    """An engine with the proxy in its environment and short timeouts."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("HTTP_PROXY", f"http://{proxy.address}")
        patch.setenv("HTTPS_PROXY", proxy.address)
        patch.delenv("no_proxy", raising=False)
        patch.setenv("NO_PROXY", "10.128.0.0/9")  # contains the bridges of the tests' engines
        patch.setenv("WHARF_TIMEOUTS", "registry.answer=5")
        engine = stack.enter_context(engines.wharf("wild", "--max-download-attempts", "2"))
        engine.load_busybox()
        configure(engine, {})
        yield engine


@pytest.fixture(autouse=True)
def remove_new_images(wild: Wharf) -> Iterator[None]:
    """Remove the images that a test adds to the engine of this module."""
    with new_images_removed(wild):
        yield


def push_and_pull(engine: Wharf, name: str) -> None:
    """Push and pull an image that no registry has."""
    engine.docker("load", "-q", input=oci_archive("wild:1", unique_layers(1, 3 * MIB)))
    engine.docker("tag", "wild:1", name)
    assert "digest: sha256:" in engine.docker("push", name).stdout
    engine.docker("rmi", name, "wild:1")
    assert until(lambda: len(blobs_in(engine)) == 3)  # those of busybox
    assert "Downloaded newer image" in engine.docker("pull", name).stdout
    engine.docker("rmi", name)


def test_through_a_proxy_of_the_environment(wild: Wharf, proxy: HttpProxy, plain_registry: Registry) -> None:
    with registry(tls=True, host=SECURE) as secure:
        assert secure.ca is not None
        port = secure.address.rpartition(":")[2]
        proxy.hosts = {PLAIN: plain_registry.address, secure.address: f"127.0.0.1:{port}"}
        proxy.requests.clear()
        push_and_pull(wild, f"{PLAIN}/proxied:1")
        with certificate_directory(secure.address, {"ca.crt": secure.ca.read_bytes()}):
            push_and_pull(wild, secure.name("proxied:1"))
        assert ("plain", PLAIN) in proxy.requested_hosts()
        assert ("CONNECT", secure.address) in proxy.requested_hosts()
        proxy.requests.clear()
        wild.docker("pull", "-q", plain_registry.name("proxied:1"))  # loopback is never proxied
        assert not proxy.requests
        # A host that the proxy can't reach is unreachable.
        done = wild.docker("pull", "gone.wharf.test:5000/x", check=False)
        assert done.status == 1
        assert ("CONNECT", "gone.wharf.test:5000") in proxy.requested_hosts()


def test_through_a_proxy_of_the_configuration(wild: Wharf, proxy: HttpProxy, plain_registry: Registry) -> None:
    config = wild.resources.root / "daemon.json"
    with HttpProxy({PLAIN: plain_registry.address}) as other:
        url = f"http://ali:hidden@{other.address}"
        proxies = {"http-proxy": url, "https-proxy": url, "no-proxy": "skipped.wharf.test,.direct.test"}
        config.write_text(json.dumps({"proxies": proxies, "insecure-registries": [PLAIN]}))
        try:
            wild.restart()
            proxy.requests.clear()
            push_and_pull(wild, f"{PLAIN}/configured:1")
            assert ("plain", PLAIN) in other.requested_hosts()
            assert not proxy.requests  # the file overrides the environment
            expected = "Basic " + base64.b64encode(b"ali:hidden").decode()
            assert {request.authorization for request in other.requests} == {expected}
            other.requests.clear()
            for host in ("skipped.wharf.test:5000", "a.direct.test"):
                output = wild.docker("pull", f"{host}/x", check=False).stderr
                assert f"dial tcp: lookup {host.partition(':')[0]}: no such host" in output
            assert not other.requests
            info = wild.api.get("/info").json()
            assert info["HttpProxy"] == f"http://xxxxx:xxxxx@{other.address}"
            assert info["NoProxy"] == proxies["no-proxy"]
            assert "hidden" not in wild.docker("info").output
            assert b"hidden" not in wild.daemon.log.read_bytes()
        finally:
            config.write_text("{}")
            wild.restart()
            configure(wild, {})


def test_registry_without_tls_beyond_loopback(wild: Wharf) -> None:
    """A registry on the address of the engine's bridge, which is not a loopback address."""
    address = wild.resources.bip.partition("/")[0]
    network = str(ipaddress.ip_network(wild.resources.bip, strict=False))
    with registry(listen=address, host=address) as found:
        name = found.name("far:1")
        wild.docker("tag", "busybox", name)
        for configured in (found.address, network):
            configure(wild, {})
            refused = wild.docker("push", name, check=False)
            assert refused.status == 1
            assert "server gave HTTP response to HTTPS client" in refused.output
            configure(wild, {"insecure-registries": [configured]})
            wild.docker("push", "-q", name)
            wild.docker("pull", "-q", name)
        configure(wild, {})


def test_client_certificates(wild: Wharf) -> None:
    with registry(tls=True, client_certificates=True) as found:
        assert found.ca is not None
        assert found.client_certificate is not None
        name = found.name("inside:1")
        wild.docker("tag", "busybox", name)
        files = {"ca.crt": found.ca.read_bytes()}
        with certificate_directory(found.address, files) as folder:
            assert "certificate" in wild.docker("push", name, check=False).stderr
            (folder / "client.cert").write_bytes(found.client_certificate[0].read_bytes())
            missing = wild.docker("push", name, check=False).stderr
            assert "missing key client.key for client certificate client.cert" in missing
            (folder / "client.key").write_bytes(found.client_certificate[1].read_bytes())
            wild.docker("push", "-q", name)
            wild.docker("pull", "-q", name)
            (folder / "client.cert").unlink()
            assert (
                "missing client certificate client.cert for key client.key"
                in wild.docker("pull", name, check=False).stderr
            )


def test_errors_of_registries_are_named(wild: Wharf, plain_registry: Registry) -> None:
    """A clear error, the store unchanged, and the next pull works."""
    layers = [busybox_layer(), *unique_layers(1, 2 * MIB)]
    blob = digest(gzip.compress(layers[1], mtime=0))
    with proxied(plain_registry, "bad", layers, lambda request: None) as (registry_proxy, _):
        name = f"{registry_proxy.address}/bad:1"
        before = blobs_in(wild)
        dead = 'Bearer realm="http://127.0.0.1:1/token",service="s"'

        def blobs(reply: Reply) -> Rule:
            return lambda request: reply if request.method == "GET" and blob in request.path else None

        def manifests(reply: Reply) -> Rule:
            return lambda request: reply if "/manifests/" in request.path else None

        def loops(request: RecordedRequest) -> Reply | None:
            return Reply(307, b"", {"Location": request.path}) if blob in request.path else None

        cases: list[tuple[Rule, str]] = [
            (loops, "stopped after 10 redirects"),
            (blobs(Reply(307, b"", {"Location": "ftp://elsewhere/blob"})), "a redirect without a location"),
            (manifests(Reply(401, b"", {"WWW-Authenticate": dead})), "127.0.0.1:1"),
            (manifests(Reply(503, b"<html>down</html>")), "503 Service Unavailable"),
            (manifests(Reply(429, b"", {"Retry-After": "1"})), "429 Too Many Requests"),
            (blobs(Reply(500)), "500 Internal Server Error"),
            (blobs(Reply(200, b"")), "unexpected EOF"),
        ]
        for rule, sentence in cases:
            registry_proxy.rule = rule
            done = wild.docker("pull", name, check=False)
            assert done.status == 1, sentence
            assert sentence in done.stderr, (sentence, done.stderr)
            assert wild.api.get(f"/images/{name}/json").status == 404
        # blobs of earlier tests may be collected meanwhile
        assert until(lambda: blobs_in(wild) <= before), blobs_in(wild) - before
        # A stalled registry is given up after its deadline, and the next attempt resumes.
        delay = Delay(MIB)

        def first(request: RecordedRequest) -> Delay | None:
            return delay if request.method == "GET" and blob in request.path and not request.offset else None

        registry_proxy.rule = first
        registry_proxy.requests.clear()
        wild.docker("pull", "-q", name)
        assert [request.offset for request in registry_proxy.requests_for("GET", blob)] == [0, MIB]
        delay.resume.set()
        # Other layers, whose downloads were cancelled, resumed too: no partial data is left.
        assert ingest_size(wild) == 0
