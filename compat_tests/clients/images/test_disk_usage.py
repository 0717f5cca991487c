"""Disk space is freed: after removal the data root has its original files, also after concurrent work; what is in use
stays; and `docker system df` accounts for all of it."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest
import zstandard

from compat_tests.endurance.stress import RUN, Stress
from compat_tests.support import engines
from compat_tests.support.accounts import on_disk, reported_sizes
from compat_tests.support.disk import baseline_files, files, ingest_size, wait_for_files
from compat_tests.support.engines import Engine
from compat_tests.support.host.filesystems import free_space, tmpfs
from compat_tests.support.images import busybox_layer, config, descriptor, docker_archive, layer, oci_archive
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import Registry
from compat_tests.support.servers.registry_proxy import Delay, RecordedRequest
from compat_tests.support.transfers import OCI, proxied, unique_layers


@pytest.mark.core
def test_removals_free_all_disk_space(own_engine: Engine, plain_registry: Registry) -> None:
    engine = own_engine
    before = baseline_files(engine)
    plain_registry.copy_archive(
        oci_archive("x:1", [busybox_layer(), *unique_layers(2, 200_000)]), "app:1", format="oci-archive"
    )
    name = plain_registry.name("app:1")
    engine.docker("pull", "-q", name)
    engine.docker("load", "-q", input=docker_archive("loaded:1", [busybox_layer(), *unique_layers(2, 200_000)]))
    engine.docker(
        "load", "-q", input=docker_archive("loaded:1", [busybox_layer(), *unique_layers(1)])
    )  # leaves a dangling image
    engine.docker("import", "-", "imported:1", input=layer({"x": os.urandom(200_000)}))
    id = engine.docker(
        "create", "-v", "/volume", "loaded:1", "sh", "-c", "echo x > /volume/x; echo y > /y"
    ).stdout.strip()
    engine.docker("start", "-a", id)
    engine.docker("commit", id, "committed:1")
    engine.docker("tag", "committed:1", plain_registry.name("committed:1"))
    engine.docker("push", "-q", plain_registry.name("committed:1"))
    engine.docker("pull", plain_registry.name("none:1"), check=False)
    engine.docker("load", input=docker_archive("cut:1", unique_layers(1, 3_000_000))[:2_000_000], check=False)
    assert len(files(engine)) > len(before)
    engine.docker("rm", "-v", id)
    engine.docker("rmi", name, "loaded:1", "imported:1", "committed:1", plain_registry.name("committed:1"))
    engine.docker("image", "prune", "-f")
    wait_for_files(engine, before)
    assert [image["RepoTags"] for image in engine.api.get("/images/json", all=1).json()] == [["busybox:latest"]]


def is_accounted(engine: Engine) -> bool:
    account = on_disk(engine)
    return not account.unowned and account.total == sum(reported_sizes(engine).values())


@pytest.mark.core
def test_df_accounts_for_every_byte(own_engine: Engine, plain_registry: Registry, tmp_path: Path) -> None:
    """``system df`` accounts for everything in the data root, except for the engine's own data."""
    engine = own_engine
    layers = [busybox_layer(), *unique_layers(2, 300_000)]

    def check(what: str) -> None:
        assert until(lambda: is_accounted(engine), seconds=60), (what, on_disk(engine), reported_sizes(engine))

    check("busybox")
    for name in ("df/one:1", "df/two:1"):
        engine.docker("load", "-q", input=docker_archive(name, layers, Labels={"name": name}))
    check("images that share layers")
    rows = {image["RepoTags"][0]: image for image in engine.api.get("/system/df").json()["Images"]}
    one, two = rows["df/one:1"], rows["df/two:1"]
    assert one["SharedSize"] == two["SharedSize"] > 600_000
    assert "df/one" in engine.docker("system", "df", "-v").stdout
    engine.docker("load", "-q", input=docker_archive("df/two:1", unique_layers(1, 100_000)))  # leaves a dangling image
    check("a dangling one")
    script = "head -c 100000 /dev/urandom > /v/x; ln /v/x /v/y; head -c 70000 /dev/urandom > /w; ln /w /u; seq 3000"
    engine.docker("run", "--network", "none", "--name", "df-c", "-v", "df-v:/v", "df/one:1", "sh", "-c", script)
    engine.docker("rmi", "-f", "df/one:1")
    check("a container with a log, and a volume")
    assert reported_sizes(engine)["volumes"] == 100_000
    (tmp_path / "f").write_bytes(os.urandom(200_000))
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nCOPY f /f\nRUN --mount=type=cache,target=/c head -c 90000 /dev/urandom > /c/x; echo x > /x\n"
    )
    engine.docker("build", "--provenance=mode=min", "-t", "df/built:1", str(tmp_path), env={"DOCKER_BUILDKIT": "1"})
    check("an index with an attestation, and a build's cache")
    engine.docker("rmi", "df/built:1")
    check("what only the cache has")
    data = unique_layers(1, 4 << 20)
    delay = Delay(2 << 20)

    def rule(request: RecordedRequest) -> Delay | None:
        return delay if "/blobs/" in request.path and request.method == "GET" else None

    with proxied(plain_registry, "df", data, rule) as (proxy, _):
        with engine.popen("pull", f"{proxy.address}/df:1") as client:
            assert delay.reached.wait(60)
            assert until(lambda: ingest_size(engine) >= 1 << 20, seconds=60)
            client.kill()
        check("a pull that was left")
        ingest = ingest_size(engine)
        # On a stock containerd, the removal of the lease also removes the partial data.
        assert ingest >= 1 << 20 or engine.kind == "containerd"
        assert engine.api.post("/images/prune").json()["SpaceReclaimed"] >= ingest
        assert ingest_size(engine) == 0
        delay.resume.set()
        engine.docker("pull", "-q", f"{proxy.address}/df:1")
        engine.docker("rmi", f"{proxy.address}/df:1")
    engine.docker("rm", "df-c")
    engine.docker("volume", "rm", "df-v")
    engine.docker("image", "prune", "-f")
    engine.docker("builder", "prune", "-af")
    check("most of it is gone")
    assert (
        reported_sizes(engine)["containers"]
        == reported_sizes(engine)["volumes"]
        == reported_sizes(engine)["build cache"]
        == 0
    )


@pytest.mark.core
def test_cached_sizes_equal_those_on_disk(own_engine: Engine, tmp_path: Path) -> None:
    """Sizes of containers are cached; every writer to a layer is noticed, and a new daemon measures the same."""
    engine = own_engine
    before = baseline_files(engine)
    (tmp_path / "f").write_bytes(os.urandom(1 << 20))

    def sizes() -> dict[str, tuple[int, int]]:
        rows = engine.api.get("/containers/json", all=1, size=1).json()
        return {row["Names"][0]: (row.get("SizeRw", 0), row["SizeRootFs"]) for row in rows}

    script = "dd if=/dev/urandom of=/x bs=1M count=1"
    for name, command in (
        ("plain", ("busybox",)),
        ("copied", ("busybox",)),
        ("ran", ("busybox", "sh", "-c", script)),
        ("runs", ("busybox", "sh", "-c", f"{script}; sleep 1000")),
        ("failed", ("-v", "/some/volume", "busybox", "nosuch")),
        ("workdir", ("-w", "/some/where", "busybox")),
    ):
        engine.docker("create", "--network", "none", "--name", name, *command)
    fresh_sizes = sizes()
    assert fresh_sizes["/plain"] == fresh_sizes["/ran"]
    assert sizes() == fresh_sizes
    empty = fresh_sizes["/plain"][0]
    engine.docker("cp", str(tmp_path / "f"), "copied:/f")
    engine.docker("start", "-a", "ran")
    engine.docker("start", "runs")
    assert engine.docker("start", "failed", check=False).status
    assert until(lambda: sizes()["/runs"][0] >= empty + (1 << 20))
    engine.docker("exec", "runs", "cp", "/x", "/y")
    now = sizes()
    assert now["/plain"] == fresh_sizes["/plain"]
    for name, size in (("/copied", 1 << 20), ("/ran", 1 << 20), ("/runs", 2 << 20)):
        assert size <= now[name][0] - empty < size + 100_000, name
        assert now[name][1] - now[name][0] == fresh_sizes["/plain"][1] - empty
    engine.docker("cp", str(tmp_path / "f"), "ran:/again")
    engine.docker("stop", "-t", "0", "runs")
    engine.docker("commit", "ran", "sized:1")
    now = sizes()
    assert now["/ran"][0] - empty >= 2 << 20
    told_by_df = {row["Names"][0]: row["SizeRootFs"] for row in engine.api.get("/system/df").json()["Containers"]}
    assert told_by_df == {name: total for name, (_, total) in now.items()}
    engine.restart()
    assert sizes() == now
    engine.remove_all()
    engine.docker("rmi", "sized:1")
    wait_for_files(engine, before)


def test_concurrent_operations_leave_no_files(own_engine: Engine, plain_registry: Registry) -> None:
    """A few seconds of ``python -m compat_tests.endurance.stress``."""
    before = baseline_files(own_engine)
    stress = Stress(own_engine, plain_registry)
    stress.run(rounds=3)
    stress.finish()
    wait_for_files(own_engine, before)


def bomb(name: str) -> bytes:
    """Return an archive of about one MiB whose layer has a file of 10 GB of zeros."""
    size = 10_000_000_000
    packer = zstandard.ZstdCompressor(level=3)
    piece = 100_000_000
    zeros = packer.compress(bytes(piece))
    info = tarfile.TarInfo("zeros")
    info.size = size
    packed = packer.compress(info.tobuf()) + zeros * (size // piece) + packer.compress(bytes(10240))
    blob = config([b"what it is nobody will find out"])
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": descriptor(blob, f"{OCI}.config.v1+json"),
            "layers": [descriptor(packed, f"{OCI}.layer.v1.tar+zstd")],
        }
    ).encode()
    named = {"io.containerd.image.name": f"docker.io/library/{name}"}
    index = {"schemaVersion": 2, "manifests": [descriptor(manifest, f"{OCI}.manifest.v1+json", annotations=named)]}
    blobs = {f"blobs/sha256/{hashlib.sha256(data).hexdigest()}": data for data in (blob, packed, manifest)}
    return layer({"oci-layout": '{"imageLayoutVersion":"1.0.0"}', **blobs, "index.json": json.dumps(index)})


def test_full_disk_leaves_no_partial_data(plain_registry: Registry, tmp_path: Path) -> None:
    """The error is reported, partial data is removed, and smaller images still work."""
    root = tmp_path / "small"
    root.mkdir()
    with tmpfs(root, "42m"), engines.wharf("full", "--data-root", str(root / "data")) as engine:
        engine.load_busybox()
        large = unique_layers(1, 22_000_000)
        plain_registry.copy_archive(oci_archive("x:1", large), "large:1", format="oci-archive")
        free = free_space(root)
        for args, input in (
            (("pull", plain_registry.name("large:1")), b""),
            (("load",), docker_archive("large:1", large)),
            (("import", "-", "large:1"), large[0]),
        ):
            done = engine.docker(*args, input=input, check=False)
            assert done.status == 1, args
            assert "no space left on device" in done.output, args
            assert until(lambda: free_space(root) > free * 0.7, seconds=60), args
        engine.docker(
            *RUN[:1], "--name", "large", *RUN[2:], "busybox", "sh", "-c", "head -c 12000000 /dev/urandom > /x"
        )
        done = engine.docker("commit", "large", "large:1", check=False)
        assert done.status == 1
        assert "no space left on device" in done.output
        assert engine.api.get("/images/large:1/json").status == 404
        engine.docker("rm", "large")
        assert until(lambda: free_space(root) > free * 0.7, seconds=60)
        before = files(engine)
        done = engine.docker("load", input=bomb("bomb:1"), check=False)
        assert done.status == 1
        assert "no space left on device" in done.output
        wait_for_files(engine, before)
        assert engine.docker(*RUN, "busybox", "echo", "still").stdout == "still\n"
        engine.docker("load", "-q", input=docker_archive("small:1", unique_layers(1)))
