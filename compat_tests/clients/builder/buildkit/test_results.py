"""Results of `buildx`: exported caches, pushes, provenance, annotations, times; cancelled builds."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from compat_tests.clients.builder.buildx import build, needs_buildx, read_oci_archive, write_context
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry
from compat_tests.support.servers.web import serving

pytestmark = needs_buildx


STAGES = (
    "FROM busybox AS a\nRUN head -c 40 /dev/urandom | od > /a\n"
    "FROM busybox\nRUN head -c 40 /dev/urandom | od > /b\nWORKDIR /w\nCOPY f /f\nCOPY --from=a /a /a\n"
)


@pytest.mark.parametrize("kind", ["inline", "registry", "local"])
def test_exported_cache_is_imported(engine: Engine, plain_registry: Registry, tmp_path: Path, kind: str) -> None:
    root = str(write_context(tmp_path / "c", {"Dockerfile": STAGES, "f": kind}))
    ref = plain_registry.name(f"cache-{kind}")
    to, from_, more = {
        "inline": ("type=inline", f"type=registry,ref={ref}", ["-t", ref, "--push"]),
        "registry": (f"type=registry,ref={ref},mode=max", f"type=registry,ref={ref}", ["-t", ref]),
        "local": (f"type=local,dest={tmp_path / 'l'},mode=max", f"type=local,src={tmp_path / 'l'}", ["-t", ref]),
    }[kind]
    build(engine, "--cache-to", to, *more, root)
    show = ("run", "--rm", "--network", "none")
    before = engine.docker(*show, ref, "cat", "/b").stdout
    # remove the engine's own cache and the image
    engine.docker("buildx", "prune", "-af")
    engine.docker("rmi", "-f", ref)
    again = build(engine, "--cache-from", from_, "-t", ref, root)
    assert "CACHED" in again.stderr
    assert engine.docker(*show, ref, "cat", "/b").stdout == before
    if kind != "inline":
        assert again.stderr.count("CACHED") == 5
    missing = build(engine, "--cache-from", f"type=registry,ref={plain_registry.name('none')}", root)
    assert "importing cache manifest from" in missing.stderr


def test_provenance_and_annotations(engine: Engine, tmp_path: Path) -> None:
    root = str(write_context(tmp_path / "c", {"Dockerfile": "FROM busybox\nRUN true\nCOPY f /f\n", "f": "x"}))
    out = tmp_path / "o.tar"
    annotations = ["--annotation", "a=manifest", "--annotation", "index:b=index"]
    build(engine, "--provenance=mode=min", *annotations, f"--output=type=oci,dest={out}", root)
    blobs = read_oci_archive(out)
    index = blobs[blobs[""]["manifests"][0]["digest"]]
    assert index["annotations"] == {"b": "index"}
    image, attested = index["manifests"]
    assert blobs[image["digest"]]["annotations"] == {"a": "manifest"}
    assert attested["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert attested["annotations"]["vnd.docker.reference.digest"] == image["digest"]
    statement = blobs[blobs[attested["digest"]]["layers"][0]["digest"]]
    assert statement["predicateType"] == "https://slsa.dev/provenance/v0.2"
    assert statement["subject"][0]["digest"]["sha256"] == image["digest"].removeprefix("sha256:")
    assert [item["uri"] for item in statement["predicate"]["materials"]] == [
        "pkg:docker/busybox@latest?platform=linux%2Famd64"
    ]
    assert "https://mobyproject.org/buildkit@v1#metadata" not in statement["predicate"]["metadata"]
    # no provenance unless requested: equal steps give equal images
    plain = tmp_path / "plain.tar"
    build(engine, f"--output=type=oci,dest={plain}", root)
    blobs = read_oci_archive(plain)
    assert "layers" in blobs[blobs[""]["manifests"][0]["digest"]]
    refused = build(engine, "--annotation", "index:b=c", f"--output=type=oci,dest={plain}", root, check=False)
    assert "index annotations not supported for single platform export" in refused.stderr


@pytest.mark.parametrize("kind", ["oci", "docker", "tar", "local"])
def test_the_same_build_gives_the_same_bytes(engine: Engine, tmp_path: Path, kind: str) -> None:
    """With one epoch, steps that run at different times, and touched files of the client, give equal images."""
    dockerfile = "FROM busybox\nCOPY f d/ /c/\nRUN mkdir /d && echo 1 > /d/f && ln -s f /d/l && ln /d/f /d/h\n"
    root = write_context(tmp_path / "c", {"Dockerfile": dockerfile, "f": "x", "d/g": "y", "d/old": "z"})
    os.utime(root / "d/old", (1000, 1000))
    found: list[object] = []
    for number in range(2):
        out = tmp_path / str(number)
        options = "" if kind in ("tar", "local") else ",rewrite-timestamp=true,name=bk:same"
        environ = {"SOURCE_DATE_EPOCH": "1600000000"}
        words = ("--no-cache", f"--output=type={kind},dest={out}{options}", str(root))
        engine.docker("buildx", "build", "-q", *words, env=environ, timeout=110)
        os.utime(root / "f")
        if kind == "local":
            found.append(listed(out))
        else:
            found.append(hashlib.sha256(out.read_bytes()).hexdigest())
    assert found[0] == found[1]
    if kind == "local":
        assert {line.split()[1] for line in listed(tmp_path / "0")} == {str(1600000000 * 10**9)}


def listed(root: Path) -> list[str]:
    """Return every file with its time, mode and content."""
    lines = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        lines.append(f"{path.relative_to(root)} {status.st_mtime_ns} {status.st_mode:o} {status.st_nlink} {content}")
    return lines


def test_provenance_contains_no_secrets(engine: Engine, tmp_path: Path) -> None:
    """Sources with their digests; as in BuildKit, without arguments, labels and credentials of URLs."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "file").write_bytes(b"fetched")
    with serving(tmp_path / "web") as web:
        address = web.removeprefix("http://")
        url = f"http://user:hidden@{address}/file"
        root = str(write_context(tmp_path / "c", {"Dockerfile": f"FROM busybox\nARG A\nADD {url} /f\n"}))
        out = tmp_path / "o.tar"
        words = ["--build-arg", "A=hidden", "--label", "l=hidden", "--build-context", f"unused={url}"]
        environ = {"BUILDX_GIT_INFO": "0"}
        words += ["--provenance=mode=min", f"--output=type=oci,dest={out}", root]
        engine.docker("buildx", "build", "--progress=plain", *words, env=environ, timeout=110)
    blobs = read_oci_archive(out)
    index = blobs[blobs[""]["manifests"][0]["digest"]]
    statement = blobs[blobs[index["manifests"][1]["digest"]]["layers"][0]["digest"]]
    predicate = statement["predicate"]
    redacted = f"http://xxxxx:xxxxx@{address}/file"
    assert {"uri": redacted, "digest": {"sha256": hashlib.sha256(b"fetched").hexdigest()}} in predicate["materials"]
    arguments = predicate["invocation"]["parameters"]["args"]
    assert arguments["context:unused"] == redacted
    assert predicate["invocation"]["parameters"]["locals"] == [{"name": "context"}, {"name": "dockerfile"}]
    assert predicate["metadata"]["completeness"]["parameters"] is False
    assert "hidden" not in json.dumps(statement)


def test_times_and_compression(engine: Engine, tmp_path: Path) -> None:
    dockerfile = "FROM busybox\nRUN touch /made && mkdir /d && echo 1 > /d/f\nCOPY f /f\n"
    root = str(write_context(tmp_path / "c", {"Dockerfile": dockerfile, "f": "x"}))
    out = tmp_path / "zstd.tar"
    build(engine, f"--output=type=oci,dest={out},compression=zstd,force-compression=true", root)
    blobs = read_oci_archive(out)
    layers = blobs[blobs[""]["manifests"][0]["digest"]]["layers"]
    assert {layer["mediaType"] for layer in layers} == {"application/vnd.oci.image.layer.v1.tar+zstd"}
    loaded = engine.docker("load", "-i", str(out)).stdout.split()[-1]
    assert engine.docker("run", "--rm", "--network", "none", loaded, "cat", "/d/f").stdout == "1\n"


def test_pushed_with_metadata(engine: Engine, plain_registry: Registry, tmp_path: Path) -> None:
    root = str(write_context(tmp_path / "c", {"Dockerfile": "FROM busybox\nCOPY f /f\n", "f": "pushed"}))
    meta, name = tmp_path / "meta.json", plain_registry.name("pushed:1")
    build(engine, "-t", name, "--push", f"--metadata-file={meta}", root)
    metadata = json.loads(meta.read_text())
    assert metadata["image.name"] == name
    engine.docker("rmi", "-f", name)
    engine.docker("pull", "-q", name)
    assert engine.docker("image", "inspect", "-f", "{{.Id}}", name).stdout.strip() == metadata["containerimage.digest"]


def test_progress_is_json(engine: Engine, tmp_path: Path) -> None:
    root = str(write_context(tmp_path, {"Dockerfile": "FROM busybox\nRUN echo spoken\n"}))
    done = engine.docker("buildx", "build", "--progress=rawjson", "--no-cache", root, timeout=110)
    decoder, at, messages = json.JSONDecoder(), 0, []
    text = done.stderr.strip()
    while at < len(text):
        message, at = decoder.raw_decode(text, at)
        at += len(text[at:]) - len(text[at:].lstrip())
        messages.append(message)
    vertexes = {v["digest"]: v for m in messages for v in m.get("vertexes") or ()}
    names = [v["name"] for v in vertexes.values()]
    assert "[2/2] RUN echo spoken" in names
    # compare as times: as text, different numbers of digits sort wrongly
    assert all(
        datetime.fromisoformat(v["started"]) <= datetime.fromisoformat(v["completed"]) and not v.get("error")
        for v in vertexes.values()
    )
    assert any(log.get("data") for m in messages for log in m.get("logs") or ())


def test_parallel_builds_share_their_steps(engine: Engine, tmp_path: Path) -> None:
    root = str(
        write_context(tmp_path, {"Dockerfile": "FROM busybox\nRUN head -c 40 /dev/urandom | od > /r; sleep 1\n"})
    )
    argv = ("buildx", "build", "-q", root)
    clients = [engine.popen(*argv) for _ in range(3)]
    ids = {client.communicate(timeout=110)[0] for client in clients}
    assert [client.returncode for client in clients] == [0, 0, 0]
    assert len(ids) == 1


def test_cancelled_build_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    marker = f"96{os.getpid()}"
    dockerfile = (
        f"FROM busybox AS a\nRUN sleep {marker}\nFROM busybox\n"
        f"RUN --mount=type=bind,target=/c,rw --mount=type=secret,id=k --mount=type=tmpfs,target=/t sleep {marker}\n"
        "COPY --from=a /etc/passwd /p\n"
    )
    root = write_context(tmp_path, {"Dockerfile": dockerfile, "k": "hidden"})
    below = str(engine.resources.root)

    def mounts() -> set[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        # prepared namespaces come and go
        return {line.split()[4] for line in lines if below in line and "/netns/" not in line.split()[4]}

    before = mounts()
    with engine.popen("buildx", "build", "--secret", f"id=k,src={root / 'k'}", str(root)) as client:
        assert until(lambda: len(sleeping(marker)) == 2, seconds=60)
        client.terminate()
        client.communicate(timeout=60)
    assert until(lambda: not sleeping(marker), seconds=60)
    assert until(lambda: mounts() <= before, seconds=60), mounts() - before
    folder = engine.resources.root / "run" / "build"
    assert until(lambda: not folder.exists() or not os.listdir(folder), seconds=60)


def sleeping(marker: str) -> list[str]:
    done = subprocess.run(["pgrep", "-f", f"^sleep {marker}$"], capture_output=True, text=True, check=False)
    return done.stdout.split()


@pytest.mark.parametrize("path", ["/grpc", "/session"])
def test_garbage_after_the_upgrade(engine: Engine, path: str) -> None:
    """Input that is not HTTP/2 harms neither the daemon nor other clients."""
    headers = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    if path == "/session":
        headers += "X-Docker-Expose-Session-Uuid: none\r\nX-Docker-Expose-Session-Name: n\r\n"
    for garbage in (b"", b"\0" * 4096, os.urandom(20000), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 4096):
        with engine.api.raw() as sock:
            sock.settimeout(60)
            sock.sendall(headers.encode() + b"\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 101")
            try:
                sock.sendall(garbage)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    continue
            except (ConnectionError, BrokenPipeError):
                continue
    plain = engine.api.request("POST", path)
    assert plain.status == http.client.BAD_REQUEST
    build(engine, "-", input=b"FROM busybox\nLABEL still=here\n")
