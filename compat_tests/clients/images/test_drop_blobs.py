"""One copy of each layer (`--feature drop-blobs=true`): layers that are unpacked have no blob on the disk, and every
client finds the same bytes and digests."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support import engines
from compat_tests.support.accounts import on_disk, reported_sizes
from compat_tests.support.disk import baseline_files, collect_garbage, content_store, wait_for_files
from compat_tests.support.engines import Wharf
from compat_tests.support.images import busybox_layer, docker_archive, layer
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry

#: The size from which blobs are dropped.
SMALLEST = 64 << 10


@pytest.fixture(scope="module")
def dropping() -> Iterator[Wharf]:
    with engines.wharf("dropping", "--feature", "drop-blobs=true") as engine:
        engine.load_busybox()
        yield engine


@pytest.fixture(scope="module")
def keeping() -> Iterator[Wharf]:
    with engines.wharf("keeping") as engine:
        engine.load_busybox()
        yield engine


def data(seed: int) -> bytes:
    """A file of at least 340 kB, of which a half compresses."""
    return random.Random(seed).randbytes(200_000) + f"line {seed}\n".encode() * 20_000


def large_blobs(engine: Wharf) -> list[str]:
    found = []
    for path in content_store(engine).glob("blobs/sha256/*"):
        with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
            if path.stat().st_size > SMALLEST:
                found.append(path.name)
    return found


def wait_until_dropped(engine: Wharf) -> None:
    assert until(lambda: not large_blobs(engine), seconds=60), large_blobs(engine)


def layers(engine: Wharf, name: str) -> list[str]:
    """The digests of an image's layers."""
    manifest = json.loads(
        engine.ctr("content", "get", engine.docker("inspect", "-f", "{{.Id}}", name).stdout.strip()).stdout
    )
    return [one["digest"] for one in manifest["layers"]]


def test_every_kind_of_image(dropping: Wharf, keeping: Wharf, plain_registry: Registry, tmp_path: Path) -> None:
    """Built, committed, imported, loaded and pulled layers; pushed, pulled elsewhere, saved, read by ctr, and used by
    another build."""
    engine = dropping
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY file /one/\nRUN cp /one/file /two && chmod 4711 /two\n")
    (tmp_path / "file").write_bytes(data(1))
    engine.docker("build", "-q", "-t", "built:1", str(tmp_path), env={"DOCKER_BUILDKIT": "1"})
    (tmp_path / "file").write_bytes(data(2))
    engine.docker("build", "-q", "-t", "classic:1", str(tmp_path), env={"DOCKER_BUILDKIT": "0"})
    engine.docker(
        "run", "--name", "changed", "--network", "none", "built:1", "sh", "-c", "cat /two /two > /three; rm /one/file"
    )
    engine.docker("commit", "changed", "committed:1")
    engine.docker("rm", "changed")
    engine.docker("import", "-", "imported:1", input=layer({"x": data(3), "d/y": data(4)}))
    engine.docker("load", "-q", input=docker_archive("loaded:1", [busybox_layer(), layer({"z": data(5)})]))
    (tmp_path / "file").write_bytes(data(6))
    pulled = plain_registry.name("app:1")
    keeping.docker("build", "-q", "-t", pulled, str(tmp_path))
    keeping.docker("push", "-q", pulled)
    engine.docker("pull", "-q", pulled)
    engine.docker("tag", pulled, "pulled:1")
    names = ["built:1", "classic:1", "committed:1", "imported:1", "loaded:1", "pulled:1"]
    wait_until_dropped(engine)

    ids = {name: engine.docker("inspect", "-f", "{{.Id}}", name).stdout for name in names}
    for name in names:
        pushed = plain_registry.name(f"dropped/{name}")
        engine.docker("tag", name, pushed)
        engine.docker("push", "-q", pushed)
        keeping.docker("pull", "-q", pushed)
        assert keeping.docker("inspect", "-f", "{{.Id}}", pushed).stdout == ids[name]
        for digest in layers(engine, name):
            content = subprocess.run(
                ["ctr", "-a", str(engine.containerd_address), "-n", "moby", "content", "get", digest],
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
    archive = tmp_path / "saved.tar"
    engine.docker("save", "-o", str(archive), *names)
    with tarfile.open(archive) as saved:
        blobs = [one for one in saved.getmembers() if one.name.startswith("blobs/sha256/") and one.isreg()]
        assert len(blobs) > 10
        for one in blobs:
            file = saved.extractfile(one)
            assert file is not None
            assert hashlib.sha256(file.read()).hexdigest() == one.name.rpartition("/")[2]
    keeping.docker("load", "-q", "-i", str(archive))
    assert {name: keeping.docker("inspect", "-f", "{{.Id}}", name).stdout for name in names} == ids
    built = engine.docker("build", "-q", "-", input="FROM built:1\nRUN cmp /one/file /two\n").stdout
    assert built.startswith("sha256:")
    assert "Image is up to date" in engine.docker("pull", pulled).stdout


def test_layers_of_gos_encoder_are_kept(dropping: Wharf, plain_registry: Registry) -> None:
    """The log says which. They are pushed and saved from their blobs."""
    engine = dropping
    name = plain_registry.name("go:1")
    with (
        engines.stock_containerd("encoder") as containerd,
        engines.wharf("encoder", containerd=containerd) as other,
    ):
        other.load_busybox()
        other.docker("run", "--name", "go", "--network", "none", "busybox", "sh", "-c", "cat /bin/busybox > /copy")
        other.docker("commit", "go", name)
        other.docker("push", "-q", name)
        other.docker("rm", "go")
    engine.docker("pull", "-q", name)
    kept = layers(engine, name)[-1]
    assert until(lambda: f"content: {kept} is kept: no known encoder writes its bytes" in engine.log(), seconds=60)
    assert large_blobs(engine) == [kept.removeprefix("sha256:")]
    engine.docker("push", "-q", name)
    engine.docker("rmi", name)
    assert until(lambda: not large_blobs(engine), seconds=60)


def test_df_and_removal(dropping: Wharf, keeping: Wharf) -> None:
    """df, the lists and the data root agree; a removal frees all of it."""
    engine = dropping
    wait_until_dropped(engine)
    before = baseline_files(engine)
    archive = docker_archive("df:1", [busybox_layer(), layer({"z": data(7)})])
    for one in (engine, keeping):
        one.docker("load", "-q", input=archive)
    wait_until_dropped(engine)

    def content(one: Wharf) -> int:
        rows = one.api.get("/images/json", manifests=1).json()
        found: int = next(row for row in rows if row["RepoTags"] == ["df:1"])["Manifests"][0]["Size"]["Content"]
        return found

    assert until(lambda: content(engine) < 100_000 < 300_000 < content(keeping), seconds=30), content(engine)
    account = on_disk(engine)
    assert not account.unowned
    assert until(lambda: on_disk(engine).total == sum(reported_sizes(engine).values()), seconds=30)
    engine.docker("rmi", "df:1")
    wait_for_files(engine, before)


def test_the_option_goes_on_and_off(keeping: Wharf, dropping: Wharf) -> None:
    """With the option, layers of before are dropped at the next start; without it they are read."""
    keeping.docker("load", "-q", input=docker_archive("older:1", [layer({"z": data(8)})]))
    (keeping.resources.root / "daemon.json").write_text(json.dumps({"features": {"drop-blobs": True}}))
    keeping.restart()
    wait_until_dropped(keeping)
    (keeping.resources.root / "daemon.json").write_text("{}")
    keeping.restart()
    saved = subprocess.run(
        ["docker", "-H", keeping.host, "save", "older:1"], stdout=subprocess.PIPE, check=True, timeout=60
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        assert any(one.size > 300_000 for one in tar)
    dropping.docker("load", "-q", input=saved)
    assert (
        dropping.docker("inspect", "-f", "{{.Id}}", "older:1").stdout
        == keeping.docker("inspect", "-f", "{{.Id}}", "older:1").stdout
    )
    keeping.docker("load", "-q", input=docker_archive("newer:1", [layer({"z": data(9)})]))
    collect_garbage(keeping)
    assert large_blobs(keeping)


def test_a_kill_during_a_pull_and_a_drop(dropping: Wharf) -> None:
    """The supervisor and wharfd are killed while layers are dropped: nothing is lost."""
    engine = dropping
    for number in range(3):
        engine.docker("load", "-q", input=docker_archive(f"killed:{number}", [layer({"z": data(20 + number)})]))
    until(lambda: len(large_blobs(engine)) < 3, seconds=60)
    engine.kill("wharf-superviso")
    assert until(lambda: engine.docker("version", check=False).status == 0, seconds=60)
    assert until(lambda: engine.docker("images", "-q", check=False).status == 0, seconds=60)
    wait_until_dropped(engine)
    for number in range(3):
        image = f"killed:{number}"
        saved = subprocess.run(["docker", "-H", engine.host, "save", image], stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
            assert sum(one.size > 300_000 for one in tar) == 1
