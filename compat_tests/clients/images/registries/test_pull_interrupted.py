"""Pulls that are interrupted, requested twice, or get an error or false content from the registry."""

from __future__ import annotations

import contextlib
import gzip
import json
import signal

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.images import oci_archive
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry
from compat_tests.support.servers.registry_proxy import Cut, Hold, Reply, Rule, Seen
from compat_tests.support.transfers import (
    ask,
    blobs_in,
    digest,
    fresh,
    gated,
    ingested,
    states,
    stream,
)

pytestmark = pytest.mark.usefixtures("remove_new_images")

MIB = 1 << 20


@pytest.mark.core
def test_a_pull_that_breaks_off_goes_on_from_there(engine: Engine, plain_registry: Registry) -> None:
    """Two failures in one pull: later attempts request only the rest."""
    data = fresh(1, 3 * MIB)
    cuts = iter([MIB, 2 * MIB])

    def rule(seen: Seen) -> Cut | None:
        if seen.method == "GET" and "/blobs/" in seen.path and wanted[0] in seen.path and (at := next(cuts, 0)):
            return Cut(at - seen.offset)
        return None

    wanted = [digest(gzip.compress(data[0], mtime=0))]
    with gated(plain_registry, "broken", data, rule) as (gate, _):
        messages = stream(engine, "POST", "/images/create", fromImage=f"{gate.address}/broken", tag="1")
        offsets = [seen.offset for seen in gate.asked("GET", wanted[0])]
    assert "Downloaded newer image" in messages[-1]["status"]
    assert "Retrying" in states(messages, wanted[0][7:19])
    assert offsets == [0, MIB, 2 * MIB]


def test_a_pull_goes_on_after_the_daemon_was_killed(own_engine: Engine, plain_registry: Registry) -> None:
    engine = own_engine
    data = fresh(1, 4 * MIB)
    wanted = digest(gzip.compress(data[0], mtime=0))
    hold = Hold(3 * MIB)

    def rule(seen: Seen) -> Hold | None:
        return hold if seen.method == "GET" and wanted in seen.path and not hold.reached.is_set() else None

    with gated(plain_registry, "killed", data, rule) as (gate, _):
        url = f"/images/create?fromImage={gate.address}/killed&tag=1"
        with contextlib.closing(engine.api.raw()) as sock:
            sock.sendall(f"POST {url} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())
            assert hold.reached.wait(60)  # the next client is not delayed
            assert until(lambda: ingested(engine) >= MIB)
        engine.daemon.stop(signal_number=signal.SIGKILL)
        engine.start()
        engine.docker("pull", "-q", f"{gate.address}/killed:1")
        offsets = [seen.offset for seen in gate.asked("GET", wanted)]
    assert len(offsets) == 2
    assert offsets[1] >= MIB


def test_the_same_pull_twice_at_once_downloads_once(engine: Engine, plain_registry: Registry) -> None:
    layers = fresh(2, MIB)
    hold = Hold()

    def rule(seen: Seen) -> Hold | None:
        return hold if seen.method == "GET" and "/blobs/" in seen.path else None

    with gated(plain_registry, "twice", layers, rule) as (gate, wanted):
        name = f"{gate.address}/twice:1"
        with engine.popen("pull", name) as first:
            assert hold.reached.wait(60)
            with engine.popen("pull", name) as second:
                assert second.stdout is not None
                seen = b""
                while b"Pulling fs layer" not in seen:
                    line = second.stdout.readline()
                    assert line, seen
                    seen += line
                hold.go.set()
                outputs = [first.communicate(timeout=90)[0], seen + second.communicate(timeout=90)[0]]
                assert (first.returncode, second.returncode) == (0, 0)
        for each in wanted:
            assert len(gate.asked("GET", each)) == 1
    assert all(b"Digest: sha256:" in output for output in outputs)


def test_a_pull_ends_with_its_client(engine: Engine, plain_registry: Registry) -> None:
    layers = fresh(1, 2 * MIB)
    hold = Hold(MIB)

    def rule(seen: Seen) -> Hold | None:
        return hold if seen.method == "GET" and "/blobs/" in seen.path and not hold.reached.is_set() else None

    with gated(plain_registry, "left", layers, rule) as (gate, _):
        name = f"{gate.address}/left:1"
        with engine.popen("pull", name) as client:
            assert hold.reached.wait(60)
            client.kill()
        assert until(lambda: bool(gate.left))
        assert engine.api.get(f"/images/{name}/json").status == 404
        engine.docker("pull", "-q", name)
        assert engine.api.get(f"/images/{name}/json").status == 200


def test_a_registry_that_is_busy_or_lies(engine: Engine, plain_registry: Registry) -> None:
    layers = fresh(1)
    answers: list[Reply] = [
        Reply(429, b"", {"Retry-After": "0"}),
        Reply(503, b"busy"),
    ]

    def rule(seen: Seen) -> Reply | None:
        return answers.pop() if answers and wanted in seen.path else None

    wanted = digest(gzip.compress(layers[0], mtime=0))
    with gated(plain_registry, "busy", layers, rule) as (gate, _):
        name = f"{gate.address}/busy:1"
        engine.docker("pull", "-q", name)
        assert len(gate.asked("GET", wanted)) == 3
        engine.docker("rmi", "-f", name)
        before = blobs_in(engine)

        def refused(rule: Rule) -> str:
            gate.rule = rule
            done = engine.docker("pull", name, check=False)
            assert done.status == 1
            assert engine.api.get(f"/images/{name}/json").status == 404
            return done.output

        html = Reply(200, b"<html>log in</html>", {"Content-Type": "text/html"})
        assert "<html>" in refused(lambda seen: html if "/manifests/" in seen.path else None)
        document = ask(plain_registry, "GET", "/v2/busy/manifests/1").json()
        document["layers"][0]["size"] -= 10
        data = json.dumps(document).encode()
        lie = Reply(200, data, {"Content-Type": document["mediaType"], "Docker-Content-Digest": digest(data)})
        fresh_layers = fresh(1)
        plain_registry.copy_archive(oci_archive("x:1", fresh_layers), "busy:1", format="oci-archive")
        assert engine.docker("pull", "-q", plain_registry.name("busy:1"))  # a correct answer in between
        engine.docker("rmi", plain_registry.name("busy:1"))
        new = digest(gzip.compress(fresh_layers[0], mtime=0))
        other = gzip.compress(fresh(1)[0], mtime=0)
        size = ask(plain_registry, "GET", "/v2/busy/manifests/1").json()["layers"][0]["size"]
        other = (other + bytes(size))[:size]
        wrong = Reply(200, other)
        until(lambda: new[7:] not in blobs_in(engine), seconds=30)
        said = refused(lambda seen: wrong if seen.method == "GET" and new in seen.path else None)
        assert f"filesystem layer verification failed for digest {new}" in said
        until(lambda: wanted[7:] not in blobs_in(engine), seconds=30)
        assert "manifest says" in refused(lambda seen: lie if "/manifests/" in seen.path else None)
        assert until(lambda: not blobs_in(engine) - before, seconds=60), blobs_in(engine) - before
        gate.rule = lambda seen: None
        engine.docker("pull", "-q", name)  # then it works
