"""Pulls from Debian's docker-registry: every form of an image, the progress stream, breaks and lies."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator

import docker.errors
import pytest
import zstandard

from compat_tests.support.engines import Engine
from compat_tests.support.gate import Cut, Gate, Hold, Reply, Rule, Seen
from compat_tests.support.images import busybox_layer, descriptor, docker_archive, oci_archive
from compat_tests.support.registry import PASSWORD, USER, Registry, registry
from compat_tests.support.serving import LoopbackServer, QuietHandler
from compat_tests.support.traces import until
from compat_tests.support.transfers import (
    OCI,
    ask,
    blobs_in,
    digest,
    fresh,
    gated,
    ingested,
    manifest,
    put,
    put_blob,
    short,
    states,
    stream,
    tags,
    trusted,
)

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("images_as_before")]

DOCKER = "application/vnd.docker"
LIFE = ["Pulling fs layer", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"]
MIB = 1 << 20


@pytest.mark.core
def test_pull_by_tag_digest_and_everything(engine: Engine, plain: Registry) -> None:
    layers = [busybox_layer(), *fresh()]
    archive = oci_archive("app:1", layers)
    for tag in ("app:1", "app:2", "app:latest"):
        plain.copy_archive(archive, tag, format="oci-archive")
    name = plain.name("app")
    messages = stream(engine, "POST", "/images/create", fromImage=name, tag="1")
    packed = [gzip.compress(data, mtime=0) for data in layers]
    assert messages[0] == {"status": "Pulling from app", "id": "1"}
    for data in packed[1:]:
        assert states(messages, short(data)) == LIFE
    id = engine.api.get(f"/images/{name}:1/json").json()["Id"]
    assert messages[-2:] == [
        {"status": f"Digest: {id}"},
        {"status": f"Status: Downloaded newer image for {name}:1"},
    ]
    again = engine.docker("pull", f"{name}:1").stdout.splitlines()
    assert again == [
        "1: Pulling from app",
        f"Digest: {id}",
        f"Status: Image is up to date for {name}:1",
        f"{name}:1",
    ]
    assert engine.docker("pull", "-q", f"{name}@{id}").stdout.strip() == f"{name}@{id}"
    # What is here is asked for all the same: the other repository doesn't have it.
    elsewhere = engine.docker("pull", f"{plain.name('elsewhere')}@{id}", check=False)
    assert elsewhere.status == 1
    assert "not found" in elsewhere.stderr
    assert "Using default tag: latest" in engine.docker("pull", name).stdout
    everything = engine.docker("pull", "-a", name).stdout
    assert everything.count("Pulling from app") == 3
    assert {f"{name}:1", f"{name}:2", f"{name}:latest"} <= tags(engine)
    image = engine.client.images.pull(name, tag="2")
    assert image.id == id
    assert engine.docker("run", "--rm", "--network", "none", f"{name}:2", "ls", "/").stdout.count("file") == 2
    witness = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}:1"], capture_output=True, timeout=60, check=True
    )
    assert json.loads(witness.stdout)["Digest"] == id


def test_what_is_not_there(engine: Engine, plain: Registry) -> None:
    plain.copy_archive(docker_archive("known:1", fresh()), "known:1")
    name = plain.name("known")
    done = engine.docker("pull", f"{name}:none", check=False)
    assert done.status == 1
    assert f"manifest for {name}:none not found: manifest unknown: manifest unknown" in done.stderr
    with pytest.raises(docker.errors.NotFound):
        engine.client.images.pull(plain.name("never"), tag="1")
    zeros = "sha256:" + "0" * 64
    assert "manifest unknown" in engine.docker("pull", f"{name}@{zeros}", check=False).stderr
    done = engine.docker("pull", "127.0.0.1:1/app:1", check=False)
    assert "dial tcp 127.0.0.1:1: connect: connection refused" in done.stderr
    assert "invalid reference format" in engine.api.post("/images/create", fromImage="UPPER").message
    assert "must be of form" in engine.docker("pull", "--platform", "a/b/c/d", f"{name}:1", check=False).stderr
    # A registry that is up and has an image without the platform.
    done = engine.docker("pull", "--platform", "linux/s390x", f"{name}:1", check=False)
    assert done.status == 1
    assert "does not provide the specified platform (linux/s390x)" in done.output


def test_indexes_and_platforms(engine: Engine, plain: Registry) -> None:
    entries = []
    for architecture in ("amd64", "arm64"):
        layers = fresh(1)
        packed = [gzip.compress(layers[0], mtime=0)]
        data, blob = manifest(layers, packed, [f"{OCI}.layer.v1.tar+gzip"], Cmd=[architecture])
        blob = blob.replace(b'"architecture": "amd64"', f'"architecture": "{architecture}"'.encode())
        document = json.loads(data) | {"config": descriptor(blob, f"{OCI}.config.v1+json")}
        data = json.dumps(document).encode()
        for part in (blob, packed[0]):
            put_blob(plain, "many", part)
        put(plain, "many", data, f"{OCI}.manifest.v1+json")
        platform = {"architecture": architecture, "os": "linux"}
        entries.append(descriptor(data, f"{OCI}.manifest.v1+json", platform=platform))
    index = json.dumps({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": entries}).encode()
    put(plain, "many", index, f"{OCI}.index.v1+json", tag="1")
    name = plain.name("many:1")
    assert f"Digest: {digest(index)}" in engine.docker("pull", "--platform", "linux/amd64", name).stdout
    document = engine.api.get(f"/images/{name}/json", manifests=1).json()
    assert document["Id"] == digest(index)
    assert document["Config"]["Cmd"] == ["amd64"]
    assert [entry["Available"] for entry in document["Manifests"]] == [True, False]
    engine.docker("pull", "--platform", "linux/arm64", name)
    document = engine.api.get(f"/images/{name}/json", manifests=1).json()
    assert [entry["Available"] for entry in document["Manifests"]] == [True, True]
    assert [entry["ImageData"]["Platform"]["architecture"] for entry in document["Manifests"]] == ["amd64", "arm64"]
    one = engine.api.get(f"/images/{name}/json", platform='{"os":"linux","architecture":"arm64"}').json()
    assert one["Config"]["Cmd"] == ["arm64"]
    done = engine.docker("pull", "--platform", "linux/riscv64", name, check=False)
    assert "no matching manifest for linux/riscv64 in the manifest list entries" in done.output
    # All of it is here: it goes back as it came.
    engine.docker("tag", name, plain.name("again:1"))
    assert f"digest: {digest(index)}" in engine.docker("push", plain.name("again:1")).stdout


@pytest.mark.core
def test_every_kind_of_layer(engine: Engine, plain: Registry) -> None:
    layers = fresh(4)
    packed = [
        gzip.compress(layers[0], mtime=0),
        zstandard.ZstdCompressor().compress(layers[1]),
        layers[2],
        gzip.compress(layers[3][:600], mtime=0) + gzip.compress(layers[3][600:], mtime=0),
    ]
    kinds = [f"{OCI}.layer.v1.tar+{kind}".rstrip("+") for kind in ("gzip", "zstd", "", "gzip")]
    data, blob = manifest([busybox_layer(), *layers], [busybox_layer(), *packed], [f"{OCI}.layer.v1.tar", *kinds])
    for part in (blob, busybox_layer(), *packed):
        put_blob(plain, "kinds", part)
    put(plain, "kinds", data, f"{OCI}.manifest.v1+json", tag="1")
    engine.docker("pull", plain.name("kinds:1"))
    shown = engine.docker("run", "--rm", "--network", "none", plain.name("kinds:1"), "sha256sum", "/file2", "/file3")
    for number in (2, 3):
        assert hashlib.sha256(layers[number][512:612]).hexdigest() in shown.stdout
    # The same image in Docker's own format.
    plain.copy_archive(docker_archive("schema2:1", [busybox_layer(), *fresh()]), "schema2:1")
    engine.docker("pull", plain.name("schema2:1"))
    found = engine.api.get(f"/images/{plain.name('schema2:1')}/json").json()
    assert found["Descriptor"]["mediaType"] == f"{DOCKER}.distribution.manifest.v2+json"


def test_layers_that_lie_elsewhere(engine: Engine, plain: Registry) -> None:
    layers = fresh()
    packed = [gzip.compress(data, mtime=0) for data in layers]
    asked: list[str] = []

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(packed[0])))
            self.end_headers()
            self.wfile.write(packed[0])

    with LoopbackServer(Handler) as server:
        foreign = f"{OCI}.layer.nondistributable.v1.tar+gzip"
        data, blob = manifest(layers, packed, [foreign, f"{OCI}.layer.v1.tar+gzip"])
        document = json.loads(data)
        document["layers"][0]["urls"] = [f"http://{server.address}/foreign"]
        data = json.dumps(document).encode()
        for part in (blob, packed[1]):
            put_blob(plain, "foreign", part)
        put(plain, "foreign", data, f"{OCI}.manifest.v1+json", tag="1")
        engine.docker("pull", plain.name("foreign:1"))
    assert asked == ["/foreign"]
    # It stays where it is, also with a push.
    engine.docker("tag", plain.name("foreign:1"), plain.name("foreign:2"))
    engine.docker("push", plain.name("foreign:2"))
    assert not plain.blob(digest(packed[0])).exists()


# what goes wrong on the way


@pytest.mark.core
def test_a_pull_that_breaks_off_goes_on_from_there(engine: Engine, plain: Registry) -> None:
    """Twice in one pull: the attempts after the first ask for the rest only."""
    data = fresh(1, 3 * MIB)
    cuts = iter([MIB, 2 * MIB])

    def rule(seen: Seen) -> Cut | None:
        if seen.method == "GET" and "/blobs/" in seen.path and wanted[0] in seen.path and (at := next(cuts, 0)):
            return Cut(at - seen.offset)
        return None

    wanted = [digest(gzip.compress(data[0], mtime=0))]
    with gated(plain, "broken", data, rule) as (gate, _):
        messages = stream(engine, "POST", "/images/create", fromImage=f"{gate.address}/broken", tag="1")
        offsets = [seen.offset for seen in gate.asked("GET", wanted[0])]
    assert "Downloaded newer image" in messages[-1]["status"]
    assert "Retrying" in states(messages, wanted[0][7:19])
    assert offsets == [0, MIB, 2 * MIB]


def test_a_pull_goes_on_after_the_daemon_was_killed(own_engine: Engine, plain: Registry) -> None:
    engine = own_engine
    data = fresh(1, 4 * MIB)
    wanted = digest(gzip.compress(data[0], mtime=0))
    hold = Hold(3 * MIB)

    def rule(seen: Seen) -> Hold | None:
        return hold if seen.method == "GET" and wanted in seen.path and not hold.reached.is_set() else None

    with gated(plain, "killed", data, rule) as (gate, _):
        url = f"/images/create?fromImage={gate.address}/killed&tag=1"
        with contextlib.closing(engine.api.raw()) as sock:
            sock.sendall(f"POST {url} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())
            assert hold.reached.wait(60)  # who comes next is not held
            assert until(lambda: ingested(engine) >= MIB)
        engine.daemon.stop(signal_number=signal.SIGKILL)
        engine.start()
        engine.docker("pull", "-q", f"{gate.address}/killed:1")
        offsets = [seen.offset for seen in gate.asked("GET", wanted)]
    assert len(offsets) == 2
    assert offsets[1] >= MIB


def test_the_same_pull_twice_at_once_downloads_once(engine: Engine, plain: Registry) -> None:
    layers = fresh(2, MIB)
    hold = Hold()

    def rule(seen: Seen) -> Hold | None:
        return hold if seen.method == "GET" and "/blobs/" in seen.path else None

    with gated(plain, "twice", layers, rule) as (gate, wanted):
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


def test_a_pull_ends_with_its_client(engine: Engine, plain: Registry) -> None:
    layers = fresh(1, 2 * MIB)
    hold = Hold(MIB)

    def rule(seen: Seen) -> Hold | None:
        return hold if seen.method == "GET" and "/blobs/" in seen.path and not hold.reached.is_set() else None

    with gated(plain, "left", layers, rule) as (gate, _):
        name = f"{gate.address}/left:1"
        with engine.popen("pull", name) as client:
            assert hold.reached.wait(60)
            client.kill()
        assert until(lambda: bool(gate.left))
        assert engine.api.get(f"/images/{name}/json").status == 404
        engine.docker("pull", "-q", name)
        assert engine.api.get(f"/images/{name}/json").status == 200


def test_a_registry_that_is_busy_or_lies(engine: Engine, plain: Registry) -> None:
    layers = fresh(1)
    answers: list[Reply] = [
        Reply(429, b"", {"Retry-After": "0"}),
        Reply(503, b"busy"),
    ]

    def rule(seen: Seen) -> Reply | None:
        return answers.pop() if answers and wanted in seen.path else None

    wanted = digest(gzip.compress(layers[0], mtime=0))
    with gated(plain, "busy", layers, rule) as (gate, _):
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
        document = ask(plain, "GET", "/v2/busy/manifests/1").json()
        document["layers"][0]["size"] -= 10
        data = json.dumps(document).encode()
        lie = Reply(200, data, {"Content-Type": document["mediaType"], "Docker-Content-Digest": digest(data)})
        fresh_layers = fresh(1)
        plain.copy_archive(oci_archive("x:1", fresh_layers), "busy:1", format="oci-archive")
        assert engine.docker("pull", "-q", plain.name("busy:1"))  # an honest one in between
        engine.docker("rmi", plain.name("busy:1"))
        new = digest(gzip.compress(fresh_layers[0], mtime=0))
        other = gzip.compress(fresh(1)[0], mtime=0)
        size = ask(plain, "GET", "/v2/busy/manifests/1").json()["layers"][0]["size"]
        other = (other + bytes(size))[:size]
        wrong = Reply(200, other)
        until(lambda: new[7:] not in blobs_in(engine), seconds=30)
        said = refused(lambda seen: wrong if seen.method == "GET" and new in seen.path else None)
        assert f"filesystem layer verification failed for digest {new}" in said
        until(lambda: wanted[7:] not in blobs_in(engine), seconds=30)
        assert "manifest says" in refused(lambda seen: lie if "/manifests/" in seen.path else None)
        assert until(lambda: not blobs_in(engine) - before, seconds=60), blobs_in(engine) - before
        gate.rule = lambda seen: None
        engine.docker("pull", "-q", name)  # and then it works


@contextlib.contextmanager
def hub_mirror(engine: Engine, address: str) -> Iterator[None]:
    """The engine has a mirror of Docker Hub, by its configuration."""
    config = engine.place.root / "daemon.json"

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
    """The flag is for Docker Hub alone, as dockerd's: a mirror that ignores `ns` put its content under others' names,
    and let everybody log in."""
    with registry() as mirror, registry(auth="basic") as origin, Gate(mirror.address) as gate:
        for name in ("library/mirrored:1", "only/there:1"):
            mirror.copy_archive(docker_archive("x:1", fresh()), name)
        with hub_mirror(own_engine, gate.address):
            found = own_engine.api.get("/info").json()["RegistryConfig"]
            assert found["Mirrors"] == found["IndexConfigs"]["docker.io"]["Mirrors"] == [f"http://{gate.address}/"]
            assert "Downloaded newer image for mirrored:1" in own_engine.docker("pull", "mirrored:1").stdout
            gate.seen.clear()
            assert own_engine.docker("pull", origin.name("only/there:1"), check=False).status == 1
            for server in (origin.address, "127.0.0.1:1"):
                login = {"username": USER, "password": "wrong", "serveraddress": server}
                assert own_engine.api.post("/auth", login).status != 200
            assert gate.seen == []
            own_engine.docker("rmi", "mirrored:1")
            # Builds of both kinds pull in the same way.
            for buildkit in ("0", "1"):
                name = origin.name("only/there:1")
                for base, status in (("mirrored:1", 0), (name, 1)):
                    gate.seen.clear()
                    file = f"FROM {base}\nLABEL a={buildkit}\n"
                    env = {"DOCKER_BUILDKIT": buildkit}
                    done = own_engine.docker("build", "-q", "-t", "made:1", "-", input=file, env=env, check=False)
                    assert done.status == status, done.output
                    assert bool(gate.seen) == (status == 0)
                own_engine.docker("rmi", "made:1", "mirrored:1", check=False)


def test_mirrors_by_the_name_of_the_registry(own_engine: Engine) -> None:
    """`certs.d/<host>/hosts.toml`: asked with `ns` and without credentials; what it sends is checked."""
    with registry() as mirror, registry(auth="basic") as origin, Gate(mirror.address) as gate:
        archive = docker_archive("x:1", fresh(1, 3 * MIB))
        mirror.copy_archive(archive, "app:1")
        origin.copy_archive(archive, "app:1")
        name = origin.name("app:1")
        text = f'[host."http://{gate.address}"]\n'
        own_engine.docker("login", "-u", USER, "--password-stdin", origin.address, input=PASSWORD)
        with trusted(origin.address, {"hosts.toml": text.encode()}):
            id = own_engine.docker("pull", name).stdout.partition("Digest: ")[2].split()[0]
            assert gate.asked("GET", "/blobs/")
            assert all(f"ns={origin.address}".replace(":", "%3A") in seen.path for seen in gate.seen)
            assert not any("authorization" in seen.headers for seen in gate.seen)
            # A mirror that sends something else: by digest the registry itself is asked.
            lies: list[Rule] = [
                lambda seen: Reply(200, b"x" * 100) if "/blobs/" in seen.path else None,
                lambda seen: Reply(200, b"x" * (4 * MIB)) if "/blobs/" in seen.path else None,
                lambda seen: Reply(200, b'{"schemaVersion": 2}') if "/manifests/" in seen.path else None,
                lambda seen: Reply(503) if "/blobs/" in seen.path else None,
            ]
            for lie in lies:
                own_engine.docker("rmi", name, f"{origin.name('app')}@{id}", check=False)
                assert until(lambda: id[7:] not in blobs_in(own_engine), seconds=60)
                gate.seen.clear()
                gate.rule = lie
                own_engine.docker("pull", f"{origin.name('app')}@{id}")
                assert gate.seen
            gate.seen.clear()
            own_engine.docker("tag", "busybox", origin.name("mine:1"))
            own_engine.docker("push", "-q", origin.name("mine:1"))
            assert gate.seen == []
            own_engine.docker("rmi", origin.name("mine:1"))
        own_engine.docker("logout", origin.address)
        with trusted(origin.address, {"hosts.toml": b"[host"}):
            done = own_engine.docker("pull", name, check=False)
            assert done.status == 1
            assert "hosts.toml" in done.stderr
