"""`docker load` and `docker save`: every format and compression, other tools as witnesses, and what is broken."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from compat_tests.support.engines import Dockerd, Engine, Wharf
from compat_tests.support.images import Node, busybox_layer, config, descriptor, docker_archive, layer, oci_archive
from compat_tests.support.traces import until
from compat_tests.support.transfers import blobs_in, fresh, tags

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def images_as_before(engine: Engine) -> Iterator[None]:
    before = tags(engine)
    yield
    for tag in tags(engine) - before:
        engine.api.delete(f"/images/{tag}", force=1)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def files(archive: bytes) -> dict[str, bytes]:
    """The regular files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]


def save(engine: Engine, *names: str) -> bytes:
    answer = engine.api.get("/images/get", names=list(names))
    assert answer.status == 200, answer.body
    return answer.body


@pytest.mark.core
def test_formats_and_compressions(engine: Engine) -> None:
    packers = {
        "none": lambda data: data,
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lambda data: lzma.compress(data, preset=0),
        "zstd": zstandard.ZstdCompressor(level=1).compress,
    }
    for number, (name, pack) in enumerate(packers.items()):
        make = (docker_archive, oci_archive)[number % 2]
        shown = engine.docker("load", input=pack(make(f"packed-{name}:1", fresh()))).stdout
        assert f"Loaded image: packed-{name}:1" in shown
    layers = [busybox_layer(), *fresh()]
    engine.docker("load", "-q", input=oci_archive("runs:1", layers))
    assert engine.docker("run", "--rm", "--network", "none", "runs:1", "ls", "/").stdout.count("file") == 2
    # The same archive again, and another one under its name.
    assert engine.docker("load", input=oci_archive("runs:1", layers)).stdout == "Loaded image: runs:1\n"
    old = engine.api.get("/images/runs:1/json").json()["Id"]
    shown = engine.docker("load", input=oci_archive("runs:1", [busybox_layer(), *fresh()])).stdout
    assert shown.splitlines() == [
        f"The image runs:1 already exists, renaming the old one with ID {old} to empty string",
        "Loaded image: runs:1",
    ]
    [image] = engine.client.images.load(docker_archive("bypy:1", fresh()))
    assert image.tags == ["bypy:1"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_packed_layers_in_an_archive(engine: Engine, oracle: Dockerd, pack: Callable[[bytes], bytes]) -> None:
    """As dockerd takes them; also with bytes behind the end of a layer's archive, which its digest counts."""
    layers = [busybox_layer(), layer({"large": os.urandom(2 << 20)}) + bytes(1 << 20), layer({"small": b"x"})]
    packed = [pack(data) for data in layers]
    document = config(layers)
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["layers:1"], "Layers": names}])
    archive = layer({"c.json": document, **dict(zip(names, packed, strict=True)), "manifest.json": manifest})
    for each in (engine, oracle):
        assert each.docker("load", input=archive).stdout == "Loaded image: layers:1\n"
        ran = each.docker("run", "--rm", "--network", "none", "layers:1", "sh", "-c", "wc -c < /large; cat /small")
        assert ran.stdout == f"{2 << 20}\nx"
    oracle.docker("rmi", "layers:1")
    # What is saved and loaded again is whole.
    saved = save(engine, "layers:1")
    engine.docker("rmi", "layers:1")
    engine.docker("load", input=saved)
    assert engine.docker("run", "--rm", "--network", "none", "layers:1", "cat", "/small").stdout == "x"
    data = layer({"other": os.urandom(1000)})
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["broken:1"], "Layers": ["layer.tar"]}])
    archive = layer({"c.json": config([data]), "layer.tar": pack(data)[:-99], "manifest.json": manifest})
    for each in (engine, oracle):
        assert each.docker("load", input=archive, check=False).status == 1


def test_annotations_of_an_archives_index(engine: Engine) -> None:
    """As dockerd 28.5 with containerd's store: inspect and list show all of them, an archive the names it has then."""
    before = files(oci_archive("annotated:1", fresh(1)))
    index = json.loads(before["index.json"])
    annotations = index["manifests"][0]["annotations"]
    annotations["my.own"] = "value"
    engine.docker("load", input=layer({**before, "index.json": json.dumps(index)}))
    document = engine.api.get("/images/annotated:1/json").json()
    assert document["Descriptor"]["annotations"] == annotations
    [listed] = engine.api.get("/images/json", filters=json.dumps({"reference": ["annotated:1"]}), manifests=1).json()
    assert listed["Descriptor"]["annotations"] == annotations
    assert list(listed["Descriptor"]["annotations"]) == sorted(annotations)
    engine.docker("tag", "annotated:1", "other:2")
    named = {"io.containerd.image.name": "docker.io/library/other:2", "org.opencontainers.image.ref.name": "2"}
    for name, shown in (("other:2", {**named, "my.own": "value"}), (document["Id"], {"my.own": "value"})):
        [entry] = json.loads(files(save(engine, name))["index.json"])["manifests"]
        assert entry["annotations"] == shown


def test_an_archive_as_old_dockers_wrote_it(engine: Engine) -> None:
    """A folder for each layer, shared ones as links, several images, one without a name."""
    shared, own = busybox_layer(), fresh(1)[0]
    one, two = config([shared]), config([shared, own])
    name, other = hashlib.sha256(one).hexdigest(), hashlib.sha256(two).hexdigest()
    manifest = [
        {"Config": f"{name}.json", "RepoTags": ["old/one:1", "old/one:2"], "Layers": ["a/layer.tar"]},
        {"Config": f"{other}.json", "RepoTags": None, "Layers": ["b/layer.tar", "c/layer.tar"]},
    ]
    archive = layer(
        {
            "a": Node(kind=tarfile.DIRTYPE, mode=0o755),
            "a/VERSION": "1.0",
            "a/json": "{}",
            "a/layer.tar": shared,
            "b/layer.tar": Node(kind=tarfile.SYMTYPE, link="../a/layer.tar"),
            "c/layer.tar": own,
            f"{name}.json": one,
            f"{other}.json": two,
            "manifest.json": json.dumps(manifest),
            "repositories": "{}",
        }
    )
    lines = engine.docker("load", input=archive).stdout.splitlines()
    assert lines[:2] == ["Loaded image: old/one:1", "Loaded image: old/one:2"]
    assert lines[2].startswith("Loaded image ID: sha256:")
    found = engine.api.get(f"/images/{lines[2].partition(': ')[2]}/json").json()
    assert found["RepoTags"] == []
    assert len(found["RootFS"]["Layers"]) == 2
    engine.docker("rmi", lines[2].partition(": ")[2])


def v1_archive(layers: list[bytes], tags: dict[str, dict[str, int]], **last: object) -> tuple[bytes, list[str]]:
    """What Docker before 1.10 saved, and the ids of its folders: each layer's parent is the one before it."""
    ids = [hashlib.sha256(b"v1" + data).hexdigest() for data in layers]
    nodes: dict[str, Node | bytes | str] = {}
    for number, (id, data) in enumerate(zip(ids, layers, strict=True)):
        document: dict[str, object] = {
            "id": id,
            "created": f"2015-01-0{number + 1}T00:00:00Z",
            "container_config": {"Cmd": ["/bin/sh", "-c", f"#(nop) step {number}"]},
            "docker_version": "1.9.1",
            "config": {"Cmd": ["ls", "/"], "Env": ["A=b"]},
            "architecture": "amd64",
            "os": "linux",
            "Size": len(data),
        }
        if number:
            document["parent"] = ids[number - 1]
        if number == len(layers) - 1:
            document.update(last)
        nodes |= {f"{id}/": Node(kind=tarfile.DIRTYPE, mode=0o755), f"{id}/VERSION": "1.0"}
        nodes |= {f"{id}/json": json.dumps(document), f"{id}/layer.tar": data}
    named = {name: {tag: ids[number] for tag, number in found.items()} for name, found in tags.items()}
    return layer({**nodes, "repositories": json.dumps(named)}), ids


@pytest.mark.core
def test_an_archive_without_a_manifest(engine: Engine) -> None:
    """Of Docker before 1.10: only `repositories`, and folders that name their parents."""
    layers = [busybox_layer(), *fresh()]
    archive, _ = v1_archive(layers, {"ancient": {"1": 2, "base": 1}, "lab:5000/ancient": {"1": 2}})
    shown = engine.docker("load", input=archive).stdout.splitlines()
    assert sorted(shown) == sorted(
        f"Loaded image: {name}" for name in ("ancient:1", "ancient:base", "lab:5000/ancient:1")
    )
    assert engine.docker("run", "--rm", "--network", "none", "ancient:1").stdout.count("file") == 2
    found = engine.api.get("/images/ancient:1/json").json()
    assert found["RootFS"]["Layers"] == [digest(data) for data in layers]
    assert engine.api.get("/images/ancient:base/json").json()["RootFS"]["Layers"] == [
        digest(data) for data in layers[:2]
    ]
    engine.docker("rmi", "ancient:1", "ancient:base", "lab:5000/ancient:1")
    # Without names, what is no other folder's parent is an image; a layer may be compressed.
    archive, _ = v1_archive([gzip.compress(data, mtime=0) for data in layers], {})
    [line] = engine.docker("load", input=archive).stdout.splitlines()
    id = line.removeprefix("Loaded image ID: ")
    assert engine.api.get(f"/images/{id}/json").json()["RootFS"]["Layers"] == [digest(data) for data in layers]
    engine.docker("rmi", id)
    first, last = (hashlib.sha256(b"v1" + data).hexdigest() for data in (layers[0], layers[-1]))
    for wrong, sentence in (
        ({"parent": last}, "its own ancestor"),
        ({"parent": "0" * 64}, "invalid parent ID"),
        ({"parent": "../" + first}, "invalid parent ID"),
        ({"id": first}, "is invalid"),
        ({"os": "windows"}, "cannot load windows image on linux"),
    ):
        archive, _ = v1_archive(layers, {"ancient": {"1": 2}}, **wrong)
        assert sentence in engine.docker("load", input=archive, check=False).stderr
    repositories = json.dumps({"ancient": {"1": "0" * 64}})
    archive = layer({f"{first}/json": json.dumps({"id": first}), "repositories": repositories})
    assert "invalid target ID" in engine.docker("load", input=archive, check=False).stderr


def test_dockerd_makes_the_same_of_an_archive_without_a_manifest(engine: Engine, oracle: Dockerd) -> None:
    layers = [busybox_layer(), *fresh()]
    archive, _ = v1_archive(layers, {"ancient": {"1": 2}}, author="ali", comment="c", throwaway=True)
    found = []
    for each in (engine, oracle):
        each.docker("load", "-q", input=archive)
        document = each.api.get("/images/ancient:1/json").json()
        names = ("Architecture", "Os", "Author", "Created", "RootFS", "RepoTags")
        command = {name: document["Config"].get(name) for name in ("Cmd", "Env", "Entrypoint")}
        rows = each.api.get("/images/ancient:1/history").json()
        history = [(row["Created"], row["CreatedBy"], row["Comment"]) for row in rows]
        found.append(({name: document.get(name) for name in names}, command, history))
        each.docker("rmi", "ancient:1")
    assert found[0] == found[1]


@pytest.mark.core
def test_an_archive_of_something_else_is_not_kept(engine: Engine) -> None:
    """Its files went into the content store before anything had said that it was an image's archive."""
    nodes: dict[str, Node | bytes | str] = {f"usr/share/file{number}": os.urandom(2 << 20) for number in range(10)}
    nodes |= {f"etc/{number}": b"x" * 1000 for number in range(2000)}
    nodes |= {f"lib/{number}.json": b"{}" for number in range(100)}
    before = blobs_in(engine)
    done = engine.docker("load", input=layer(nodes), check=False)
    assert "unrecognized image format" in done.stderr
    assert blobs_in(engine) <= before
    # Files beside those of an image, too.
    engine.docker("load", "-q", input=layer({**nodes, **unpacked(docker_archive("beside:1", fresh()))}))
    assert len(blobs_in(engine) - before) == 4  # layers, config, manifest


def unpacked(archive: bytes) -> dict[str, Node | bytes | str]:
    return dict(files(archive))


def test_documents_of_an_archive_are_limited(engine: Engine) -> None:
    before = blobs_in(engine)
    huge = b" " * (9 << 20)
    for name in ("manifest.json", "index.json", "repositories"):
        assert "DOCUMENT_BYTES" in engine.docker("load", input=layer({name: huge}), check=False).stderr
    manifest = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": []}])
    orders: list[dict[str, Node | bytes | str]] = [
        {"c.json": huge, "manifest.json": manifest},
        {"manifest.json": manifest, "c.json": huge},
    ]
    for nodes in orders:
        assert "DOCUMENT_BYTES" in engine.docker("load", input=layer(nodes), check=False).stderr
    assert "unrecognized" in engine.docker("load", input=layer({"c.json": huge}), check=False).stderr
    assert blobs_in(engine) <= before


def test_what_is_saved(engine: Engine, tmp_path: Path) -> None:
    layers = [busybox_layer(), *fresh()]
    engine.docker("load", "-q", input=oci_archive("saved:1", layers))
    engine.docker("tag", "saved:1", "saved:2")
    id = engine.api.get("/images/saved:1/json").json()["Id"]
    engine.docker("load", "-q", input=docker_archive("other/saved:1", fresh()))
    whole = save(engine, "saved:1")
    assert whole == save(engine, "saved:1")  # byte by byte
    content = files(whole)
    for name, data in content.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    [entry] = json.loads(content["index.json"])["manifests"]
    assert entry["digest"] == id
    assert entry["annotations"] == {
        "io.containerd.image.name": "docker.io/library/saved:1",
        "org.opencontainers.image.ref.name": "1",
    }
    assert json.loads(content["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    [row] = json.loads(content["manifest.json"])
    assert row["RepoTags"] == ["saved:1"]
    assert [digest(gzip.decompress(content[path])) for path in row["Layers"]] == [digest(data) for data in layers]
    # A repository, several names, an id.
    [row] = json.loads(files(save(engine, "saved"))["manifest.json"])
    assert row["RepoTags"] == ["saved:1", "saved:2"]
    rows = json.loads(files(save(engine, "saved:2", "other/saved:1"))["manifest.json"])
    assert [each["RepoTags"] for each in rows] == [["saved:2"], ["other/saved:1"]]
    [row] = json.loads(files(save(engine, id))["manifest.json"])
    assert not row["RepoTags"]
    assert files(engine.api.get("/images/saved:1/get").body) == content
    done = engine.docker("save", "saved:1", "none:1", check=False)
    assert (done.status, done.stdout) == (1, "")
    assert "No such image: none:1" in done.stderr
    # And back: the same id.
    target = tmp_path / "saved.tar"
    engine.docker("save", "-o", str(target), "saved:1")
    engine.docker("rmi", "-f", id)
    assert "Loaded image: saved:1" in engine.docker("load", "-i", str(target)).stdout
    assert engine.api.get("/images/saved:1/json").json()["Id"] == id
    pieces = engine.client.images.get("saved:1").save(named=True)
    assert files(b"".join(pieces)) == content


def test_others_take_what_is_saved(engine: Engine, tmp_path: Path) -> None:
    layers = [busybox_layer(), *fresh()]
    engine.docker("load", "-q", input=oci_archive("witness:1", layers, Labels={"a": "b"}))
    id = engine.api.get("/images/witness:1/json").json()["Id"]
    target = tmp_path / "witness.tar"
    engine.docker("save", "-o", str(target), "witness:1")

    def skopeo(*args: str) -> bytes:
        done = subprocess.run(["skopeo", *args], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = json.loads(skopeo("inspect", f"oci-archive:{target}"))
    assert (shown["Digest"], shown["Labels"]) == (id, {"a": "b"})
    assert json.loads(skopeo("inspect", "--config", f"docker-archive:{target}"))["rootfs"]["diff_ids"] == [
        digest(data) for data in layers
    ]
    # What skopeo writes is taken here.
    skopeo("copy", "-q", "--insecure-policy", f"oci-archive:{target}", f"docker-archive:{tmp_path}/back.tar:back:1")
    assert "Loaded image: back:1" in engine.docker("load", "-i", str(tmp_path / "back.tar")).stdout
    skopeo("copy", "-q", "--insecure-policy", f"oci-archive:{target}", f"oci-archive:{tmp_path}/oci.tar:back:2")
    assert "Loaded image" in engine.docker("load", "-i", str(tmp_path / "oci.tar")).stdout


def test_dockerd_takes_what_is_saved(engine: Engine, oracle: Dockerd, tmp_path: Path) -> None:
    layers = [busybox_layer(), *fresh()]
    engine.docker("load", "-q", input=docker_archive("there:1", layers, Cmd=["ls", "/"]))
    there = save(engine, "there:1")
    assert "Loaded image: there:1" in oracle.docker("load", input=there).stdout
    try:
        assert oracle.docker("run", "--rm", "--network", "none", "there:1").stdout.count("file") == 2
        oracle.docker("tag", "there:1", "back:1")
        back = oracle.api.get("/images/get", names="back:1").body
    finally:
        oracle.docker("rmi", "-f", "there:1", "back:1")
    assert "Loaded image: back:1" in engine.docker("load", input=back).stdout
    assert engine.docker("run", "--rm", "--network", "none", "back:1").stdout.count("file") == 2
    mine, theirs = (engine.api.get(f"/images/{name}/json").json()["RootFS"] for name in ("there:1", "back:1"))
    assert mine == theirs


def test_ctr_takes_what_is_saved(engine: Engine, tmp_path: Path) -> None:
    """containerd's own tool on our supervisor's socket, in a namespace of its own."""
    engine.docker("load", "-q", input=oci_archive("forctr:1", [busybox_layer(), *fresh()]))
    id = engine.api.get("/images/forctr:1/json").json()["Id"]
    target = tmp_path / "ctr.tar"
    engine.docker("save", "-o", str(target), "forctr:1")
    assert isinstance(engine, Wharf)
    address = engine.place.root / "run/containerd/containerd.sock"

    def ctr(*args: str) -> str:
        argv = ["ctr", "--address", str(address), "--namespace", "witness", *args]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # not by the transfer service, which newer ones prefer
    ctr("images", "import", "--local", str(target))
    try:
        assert id in ctr("images", "ls")
        ctr("images", "export", "--local", str(tmp_path / "back.tar"), "docker.io/library/forctr:1")
    finally:
        ctr("images", "rm", "--sync", "docker.io/library/forctr:1")
        # Nothing holds them any more: the collector takes them.
        assert until(lambda: not ctr("snapshots", "ls").splitlines()[1:])
    engine.docker("rmi", "forctr:1")
    assert "Loaded image: forctr:1" in engine.docker("load", "-i", str(tmp_path / "back.tar")).stdout
    assert engine.api.get("/images/forctr:1/json").json()["Id"] == id


def broken_archives() -> dict[str, tuple[bytes, str]]:
    """Archives with what is wrong with them, and a part of what is said about it."""
    layers = fresh(2, 300)
    whole = docker_archive("broken:1", layers)
    packed_whole = gzip.compress(whole)
    lies = oci_archive("broken:1", layers)
    packed = gzip.compress(layers[0], mtime=0)
    lies = lies.replace(packed, packed[:-1] + bytes([packed[-1] ^ 1]))
    blob = config(layers)
    short = json.dumps([{"Config": "c.json", "RepoTags": ["broken:1"], "Layers": ["l.tar"]}])
    wrong = config([b"something else"])
    index = {"schemaVersion": 2, "manifests": [descriptor(b"{}", "application/vnd.oci.image.manifest.v1+json")]}
    climbing = layer({"../../out": "x"})
    return {
        "nothing": (b"", "unrecognized image format"),
        "words": (b"hello world\n", "unexpected EOF"),
        "a tar of something else": (layer({"x": "y"}), "unrecognized image format"),
        "cut": (whole[: len(whole) // 2], "unexpected EOF"),
        "cut gzip": (packed_whole[: len(packed_whole) // 2], "unexpected EOF"),
        "a blob with another digest": (lies, digest(packed)),
        "too few layers": (
            layer({"c.json": blob, "l.tar": layers[0], "manifest.json": short}),
            "layers length mismatch",
        ),
        "another layer": (layer({"c.json": wrong, "l.tar": layers[0], "manifest.json": short}), "wrong diff id"),
        "no config": (layer({"l.tar": layers[0], "manifest.json": short}), "not found"),
        "manifest is no JSON": (layer({"manifest.json": "{"}), "invalid JSON"),
        "a manifest that is missing": (
            layer({"oci-layout": '{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index)}),
            "no image",
        ),
        "a layer that climbs out": (docker_archive("broken:1", [climbing]), "outside of the root"),
        "a layer that is no tar": (docker_archive("broken:1", [os.urandom(2048)]), "invalid tar header"),
    }


def test_who_reads_the_head_finds_the_image(engine: Engine) -> None:
    """There are clients that look no further than the head of the answer."""
    for number in range(3):
        connection = engine.api.connection()
        try:
            connection.request("POST", "/images/load?quiet=1", body=docker_archive(f"head:{number}", fresh()))
            assert connection.getresponse().status == 200
            assert engine.api.get(f"/images/head:{number}/json").status == 200
        finally:
            connection.close()


def test_broken_archives(engine: Engine) -> None:
    before = blobs_in(engine)
    for name, (archive, said) in broken_archives().items():
        done = engine.docker("load", input=archive, check=False)
        assert done.status == 1, name
        assert said in done.output, f"{name}: {done.output}"
        assert "Loaded" not in done.output, name
        assert engine.api.get("/images/broken:1/json").status == 404, name
    # Nothing of them stays, and the next one works.
    assert until(lambda: not blobs_in(engine) - before, seconds=60), blobs_in(engine) - before
    assert "Loaded image: fine:1" in engine.docker("load", input=docker_archive("fine:1", fresh())).stdout


def test_tricks_of_layers(engine: Engine) -> None:
    """Whatever an archive says, it is unpacked inside of its root; whiteouts hide, hard links hold together."""
    first = layer(
        {
            "dir": Node(kind=tarfile.DIRTYPE, mode=0o751),
            "dir/gone": "x",
            "dir/stays": "y",
            "opaque": Node(kind=tarfile.DIRTYPE, mode=0o755),
            "opaque/below": "z",
            "/absolute": "inside",
            "link": Node(kind=tarfile.SYMTYPE, link="/etc"),
            "suid": Node(b"s", mode=0o4755),
            "hard": Node(kind=tarfile.LNKTYPE, link="absolute"),
            "twice": "one",
        }
    )
    second = layer(
        {
            "dir/.wh.gone": "",
            "opaque/.wh..wh..opq": "",
            "opaque/new": "n",
            "link/through": "in the image's own etc",
            "twice": "two",
            "a" * 90 + "/" + "b" * 90: "long",
            "dev-null": Node(kind=tarfile.CHRTYPE),
        }
    )
    engine.docker("load", "-q", input=docker_archive("tricks:1", [busybox_layer(), first, second]))
    script = (
        "ls dir opaque; cat absolute twice; echo; stat -c '%a %h' dir suid absolute;"
        "cat /etc/through; echo; cat a*/b*; test ! -e dir/gone"
    )
    shown = engine.docker("run", "--rm", "--network", "none", "tricks:1", "sh", "-c", script).stdout
    assert shown.splitlines() == [
        *("dir:", "stays", "", "opaque:", "new"),
        "insidetwo",
        *("751 1", "4755 1", "644 2"),
        "in the image's own etc",
        "long",
    ]
    assert not Path("/etc/through").exists()
    outside = {"hard link": Node(kind=tarfile.LNKTYPE, link="../../../../etc/passwd"), "climb": None}
    for name, node in outside.items():
        nodes: dict[str, Node | bytes | str] = {"x": node} if node else {"y/../../../x": "out"}
        done = engine.docker("load", input=docker_archive("outside:1", [layer(nodes)]), check=False)
        assert done.status == 1, name
        assert engine.api.get("/images/outside:1/json").status == 404
