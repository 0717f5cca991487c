"""`docker commit`, `import` and `export`: containers and archives become images."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zstandard

from compat_tests.support.engines import Engine
from compat_tests.support.images import Node, busybox_layer, docker_archive, layer
from compat_tests.support.servers.loopback import LoopbackServer, QuietHandler

pytestmark = pytest.mark.usefixtures("remove_new_images")

RUN = ("run", "--rm", "--network", "none")


@contextlib.contextmanager
def container(engine: Engine, *args: str, running: bool = True) -> Iterator[str]:
    """A container that runs the given script and keeps running."""
    id = engine.docker("create", "--network", "none", *args).stdout.strip()
    try:
        if running:
            engine.docker("start", id)
        yield id
    finally:
        engine.docker("rm", "-f", id)


def inspect(engine: Engine, name: str) -> Any:
    return engine.api.get(f"/images/{name}/json").json()


@pytest.mark.core
def test_commit(engine: Engine) -> None:
    layers = [busybox_layer(), layer({"gone": "x", "kept/a": "y", "own": os.urandom(10)})]
    engine.docker("load", "-q", input=docker_archive("base:1", layers, Labels={"base": "1"}, Env=["A=1", "B=2"]))
    script = "echo new > /new; rm /gone; mkdir -p /kept/b/c; chown 5:6 /kept; ln -s new /link; exec sleep 600"
    with container(engine, "-e", "C=3", "base:1", "sh", "-c", script) as id:
        engine.docker("exec", id, "sh", "-c", "until test -L /link; do sleep 0.01; done")
        args = ("-a", "me <me@x>", "-m", "a word", "-c", "EXPOSE 90", "-c", 'CMD ["cat", "/new"]', "-c", "LABEL a=b")
        created = engine.docker("commit", *args, id, "made:1").stdout.strip()
        assert engine.api.get(f"/containers/{id}/json").json()["State"]["Paused"] is False
        unpaused = engine.docker("commit", "-p=false", id).stdout.splitlines()[-1]  # CLI 29 warns in the first line
        document = inspect(engine, "made:1")
        assert document["Id"] == created
        config = document["Config"]
        assert config["Cmd"] == ["cat", "/new"]
        assert sorted(config["Env"]) == ["A=1", "B=2", "C=3"]
        assert config["Labels"] == {"base": "1", "a": "b"}
        assert config["ExposedPorts"] == {"90/tcp": {}}
        assert (document["Author"], document["Comment"]) == ("me <me@x>", "a word")
        base = inspect(engine, "base:1")
        assert document["Parent"] == base["Id"]
        assert document["RootFS"]["Layers"][:2] == base["RootFS"]["Layers"]
        assert len(document["RootFS"]["Layers"]) == 3
        first = engine.api.get("/images/made:1/history").json()[0]
        assert (first["CreatedBy"], first["Comment"]) == (f"sh -c {script}", "a word")
        assert engine.docker(*RUN, "made:1").stdout == "new\n"
        listing = "ls / /kept /kept/b | tr '\\n' ' '; test ! -e /gone && stat -c %u:%g /kept && readlink /link"
        output = engine.docker(*RUN, "made:1", "sh", "-c", listing).stdout
        assert "5:6\nnew\n" in output
        assert "/kept/b: c" in output
        # Without a name it is a dangling image.
        dangling = json.dumps({"dangling": ["true"]})
        assert [image["Id"] for image in engine.api.get("/images/json", filters=dangling).json()] == [unpaused]
        # The base image can't be removed while it has child images.
        assert "No such container: none" in engine.docker("commit", "none", check=False).stderr
        assert engine.docker("commit", "-c", "FROM x", id, check=False).status == 1
        assert "is not a valid change command" in engine.docker("commit", "-c", "NO x", id, check=False).stderr
        assert "invalid reference format" in engine.docker("commit", id, "UPPER", check=False).stderr
    with container(engine, "made:1", running=False) as id:
        image = engine.client.containers.get(id).commit(repository="bypy", tag="2", conf={"Cmd": ["x"]})
        assert image.tags == ["bypy:2"]
        assert inspect(engine, "bypy:2")["Config"]["Cmd"] == ["x"]


def test_commit_of_large_files(engine: Engine) -> None:
    """Compressible and incompressible data, larger than the pieces of the transfer."""
    data = os.urandom(3_500_000) + bytes(3_000_000) + b"text " * 300_000
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("large")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    with container(engine, "busybox", "true", running=False) as id:
        answer = engine.api.request("PUT", f"/containers/{id}/archive", query={"path": "/"}, body=buffer.getvalue())
        assert answer.status == 200, answer.body
        engine.docker("commit", id, "large:1")
    output = engine.docker(*RUN, "large:1", "sha256sum", "/large").stdout
    assert output.split()[0] == hashlib.sha256(data).hexdigest()
    assert inspect(engine, "large:1")["Size"] < 6_500_000  # compressible data is compressed
    saved = engine.api.get("/images/large:1/get").body
    engine.docker("rmi", "large:1")
    engine.docker("load", "-q", input=saved)
    assert engine.docker(*RUN, "large:1", "sha256sum", "/large").stdout == output


@pytest.mark.core
def test_import_and_export(engine: Engine) -> None:
    with container(engine, "busybox", "sleep", "600") as id:
        engine.docker("exec", id, "sh", "-c", "echo exported > /file; chmod 640 /file")
        answer = engine.api.get(f"/containers/{id}/export")
    exported = answer.body
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        names = {member.name.strip("/"): member for member in archive}
    assert {"file", "bin", "etc/passwd"} <= set(names)
    assert names["file"].mode == 0o640
    args = ("-c", 'CMD ["cat", "/file"]', "-c", "ENV A=b", "-m", "a message", "--platform", "linux/amd64")
    id = engine.docker("import", *args, "-", "imported:1", input=exported).stdout.strip()
    document = inspect(engine, "imported:1")
    assert document["Id"] == id
    assert document["Config"]["Cmd"] == ["cat", "/file"]
    assert document["Config"]["Env"] == ["A=b"]
    assert (document["Comment"], document["Architecture"], document["Os"]) == ("a message", "amd64", "linux")
    assert engine.docker(*RUN, "imported:1").stdout == "exported\n"
    # Compressed, without a name, by docker-py; the default message names the source.
    for pack in (gzip.compress, zstandard.ZstdCompressor().compress, bz2.compress, lzma.compress):
        id = engine.docker("import", "-", input=pack(layer({"x": os.urandom(5)}))).stdout.strip()
        assert inspect(engine, id)["RepoTags"] == []
        assert inspect(engine, id)["Comment"] == "Imported from -"
    # docker-py does not check for errors: the status is the last line.
    lines = engine.client.api.import_image_from_data(layer({"y": "z"}), repository="bypy/imported", tag="3")
    assert "sha256:" in str(lines)
    assert inspect(engine, "bypy/imported:3")["RepoTags"] == ["bypy/imported:3"]
    assert engine.docker("import", "/none", check=False).status == 1
    assert "unexpected EOF" in engine.docker("import", "-", "junk:1", input=b"junk\n", check=False).output
    assert engine.api.get("/images/junk:1/json").status == 404
    done = engine.docker("import", "-c", "NO x", "-", "junk:1", input=exported, check=False)
    assert "NO is not a valid change command" in done.output
    assert "invalid reference format" in engine.docker("import", "-", "UPPER:1", input=exported, check=False).output


@pytest.mark.parametrize("pack", [bytes, bz2.compress, lzma.compress], ids=["plain", "bzip2", "xz"])
def test_padding_behind_an_imported_archive_is_not_kept(engine: Engine, pack: Callable[[bytes], bytes]) -> None:
    """The data after the archive's end is read, so that senders can finish, but not stored."""
    data = layer({"x": os.urandom(300_000), "zeros": bytes(700_000)})
    sizes = []
    for behind in (0, 64 << 20):
        engine.docker("import", "-", "padded:1", input=pack(data + bytes(behind)))
        manifest = engine.api.get("/images/padded:1/json", manifests=1).json()["Manifests"][0]
        sizes.append(manifest["Size"]["Content"])
        created = engine.docker("create", "padded:1", "x").stdout.strip()
        exported = engine.api.get(f"/containers/{created}/export").body
        engine.docker("rm", created)
        with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
            assert archive.getmember("zeros").size == 700_000
    assert abs(sizes[0] - sizes[1]) < 100  # the times in the two configs may differ in length
    assert sizes[0] < len(data) + 10_240


def test_import_from_a_url(engine: Engine) -> None:
    data = layer({"fetched": "yes", "bin": Node(kind=tarfile.DIRTYPE, mode=0o755)})

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            found = self.path == "/root.tar"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(data) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(data)

    with LoopbackServer(Handler) as server:
        url = f"http://{server.address}"
        output = engine.docker("import", f"{url}/root.tar", "fetched:1").stdout
        assert "Downloading from" in output
        assert inspect(engine, "fetched:1")["Id"] in output
        assert inspect(engine, "fetched:1")["Comment"] == f"Imported from {url}/root.tar"
        assert "404" in engine.docker("import", f"{url}/none", check=False).output
    done = engine.docker("import", "http://127.0.0.1:1/x.tar", check=False)
    assert "dial tcp 127.0.0.1:1: connect: connection refused" in done.output


def test_commit_of_an_exiting_container(engine: Engine) -> None:
    for _ in range(8):
        id = engine.docker("create", "busybox", "touch", "/made").stdout.strip()
        try:
            # two requests without a pause: the process exits before, during or after the commit
            assert engine.api.post(f"/containers/{id}/start").status == 204
            answer = engine.api.post("/commit", container=id)
            assert answer.status == 201, answer.body
            engine.api.delete(f"/images/{answer.json()['Id']}")
        finally:
            engine.docker("rm", "-f", id)
