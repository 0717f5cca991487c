"""Pulls that are interrupted, requested twice, or get an error or false content from the registry."""

from __future__ import annotations

import contextlib
import gzip
import json
import signal

import pytest

from compat_tests.support.disk import blobs_in, ingest_size
from compat_tests.support.engines import Engine
from compat_tests.support.images import digest, oci_archive
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry
from compat_tests.support.servers.registry_proxy import Cut, Delay, RecordedRequest, Reply, Rule
from compat_tests.support.transfers import layer_statuses, progress_messages, proxied, request_registry, unique_layers

pytestmark = pytest.mark.usefixtures("remove_new_images")

MIB = 1 << 20


@pytest.mark.core
def test_interrupted_pull_resumes(engine: Engine, plain_registry: Registry) -> None:
    """Two failures in one pull: later attempts request only the rest."""
    data = unique_layers(1, 3 * MIB)
    cuts = iter([MIB, 2 * MIB])

    def rule(request: RecordedRequest) -> Cut | None:
        if request.method == "GET" and f"/blobs/{blob[0]}" in request.path and (at := next(cuts, 0)):
            return Cut(at - request.offset)
        return None

    blob = [digest(gzip.compress(data[0], mtime=0))]
    with proxied(plain_registry, "broken", data, rule) as (proxy, _):
        messages = progress_messages(engine, "POST", "/images/create", fromImage=f"{proxy.address}/broken", tag="1")
        offsets = [request.offset for request in proxy.requests_for("GET", blob[0])]
    assert "Downloaded newer image" in messages[-1]["status"]
    assert "Retrying" in layer_statuses(messages, blob[0][7:19])
    assert offsets == [0, MIB, 2 * MIB]


def test_pull_resumes_after_the_daemon_was_killed(own_engine: Engine, plain_registry: Registry) -> None:
    engine = own_engine
    data = unique_layers(1, 4 * MIB)
    blob = digest(gzip.compress(data[0], mtime=0))
    delay = Delay(3 * MIB)

    def rule(request: RecordedRequest) -> Delay | None:
        return delay if request.method == "GET" and blob in request.path and not delay.reached.is_set() else None

    with proxied(plain_registry, "killed", data, rule) as (proxy, _):
        url = f"/images/create?fromImage={proxy.address}/killed&tag=1"
        with contextlib.closing(engine.api.raw()) as sock:
            sock.sendall(f"POST {url} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())
            assert delay.reached.wait(60)  # the next client is not delayed
            assert until(lambda: ingest_size(engine) >= MIB)
        engine.daemon.stop(signal_number=signal.SIGKILL)
        engine.start()
        engine.docker("pull", "-q", f"{proxy.address}/killed:1")
        offsets = [request.offset for request in proxy.requests_for("GET", blob)]
    assert len(offsets) == 2
    assert offsets[1] >= MIB


def test_concurrent_pulls_download_once(engine: Engine, plain_registry: Registry) -> None:
    layers = unique_layers(2, MIB)
    delay = Delay()

    def rule(request: RecordedRequest) -> Delay | None:
        return delay if request.method == "GET" and "/blobs/" in request.path else None

    with proxied(plain_registry, "twice", layers, rule) as (proxy, blob):
        name = f"{proxy.address}/twice:1"
        with engine.popen("pull", name) as first:
            assert delay.reached.wait(60)
            with engine.popen("pull", name) as second:
                assert second.stdout is not None
                output = b""
                while b"Pulling fs layer" not in output:
                    line = second.stdout.readline()
                    assert line, output
                    output += line
                delay.resume.set()
                outputs = [first.communicate(timeout=90)[0], output + second.communicate(timeout=90)[0]]
                assert (first.returncode, second.returncode) == (0, 0)
        for each in blob:
            assert len(proxy.requests_for("GET", each)) == 1
    assert all(b"Digest: sha256:" in output for output in outputs)


def test_disconnect_cancels_the_pull(engine: Engine, plain_registry: Registry) -> None:
    layers = unique_layers(1, 2 * MIB)
    delay = Delay(MIB)

    def rule(request: RecordedRequest) -> Delay | None:
        return delay if request.method == "GET" and "/blobs/" in request.path and not delay.reached.is_set() else None

    with proxied(plain_registry, "left", layers, rule) as (proxy, _):
        name = f"{proxy.address}/left:1"
        with engine.popen("pull", name) as client:
            assert delay.reached.wait(60)
            client.kill()
        assert until(lambda: bool(proxy.disconnected))
        assert engine.api.get(f"/images/{name}/json").status == 404
        engine.docker("pull", "-q", name)
        assert engine.api.get(f"/images/{name}/json").status == 200


def test_busy_registry_and_false_content(engine: Engine, plain_registry: Registry) -> None:
    layers = unique_layers(1)
    answers: list[Reply] = [
        Reply(429, b"", {"Retry-After": "0"}),
        Reply(503, b"busy"),
    ]

    def rule(request: RecordedRequest) -> Reply | None:
        return answers.pop() if answers and blob in request.path else None

    blob = digest(gzip.compress(layers[0], mtime=0))
    with proxied(plain_registry, "busy", layers, rule) as (proxy, _):
        name = f"{proxy.address}/busy:1"
        engine.docker("pull", "-q", name)
        assert len(proxy.requests_for("GET", blob)) == 3
        engine.docker("rmi", "-f", name)
        before = blobs_in(engine)

        def refused(rule: Rule) -> str:
            proxy.rule = rule
            done = engine.docker("pull", name, check=False)
            assert done.status == 1
            assert engine.api.get(f"/images/{name}/json").status == 404
            return done.output

        html = Reply(200, b"<html>log in</html>", {"Content-Type": "text/html"})
        assert "<html>" in refused(lambda request: html if "/manifests/" in request.path else None)
        document = request_registry(plain_registry, "GET", "/v2/busy/manifests/1").json()
        document["layers"][0]["size"] -= 10
        data = json.dumps(document).encode()
        lie = Reply(200, data, {"Content-Type": document["mediaType"], "Docker-Content-Digest": digest(data)})
        fresh_layers = unique_layers(1)
        plain_registry.copy_archive(oci_archive("x:1", fresh_layers), "busy:1", format="oci-archive")
        assert engine.docker("pull", "-q", plain_registry.name("busy:1"))  # a correct answer in between
        engine.docker("rmi", plain_registry.name("busy:1"))
        new = digest(gzip.compress(fresh_layers[0], mtime=0))
        other = gzip.compress(unique_layers(1)[0], mtime=0)
        size = request_registry(plain_registry, "GET", "/v2/busy/manifests/1").json()["layers"][0]["size"]
        other = (other + bytes(size))[:size]
        wrong = Reply(200, other)
        until(lambda: new[7:] not in blobs_in(engine), seconds=30)
        error = refused(lambda request: wrong if request.method == "GET" and new in request.path else None)
        assert f"filesystem layer verification failed for digest {new}" in error
        until(lambda: blob[7:] not in blobs_in(engine), seconds=30)
        assert "manifest says" in refused(lambda request: lie if "/manifests/" in request.path else None)
        assert until(lambda: not blobs_in(engine) - before, seconds=60), blobs_in(engine) - before
        proxy.rule = lambda request: None
        engine.docker("pull", "-q", name)  # then it works
