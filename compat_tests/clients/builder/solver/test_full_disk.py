"""Builds on an engine of their own: a full disk during a build, and features of an experimental engine."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.clients.builder.builds import Case, by_buildx, classic, tree
from compat_tests.support import engines
from compat_tests.support.daemons import Completed
from compat_tests.support.engines import Engine
from compat_tests.support.host.filesystems import free_space, tmpfs
from compat_tests.support.polling import until

MIB = 1 << 20
BEFORE = "FROM busybox\nRUN head -c 1000 /dev/urandom > /before\n"
FAILS = {
    # the step's own files
    "files": ("RUN head -c 100000000 /dev/zero > /big\n", "exit code: 1", "non-zero code: 1"),
    # its layer: there is space for the step's files once, not twice
    "layer": ("RUN head -c 30000000 /dev/urandom > /big\n", "no space left", "no space left"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    """An engine whose disk has 64 MiB, of which 18 are reserved for its databases."""
    path = tmp_path_factory.mktemp("small")
    with tmpfs(path, "64m"), engines.wharf("small", "--experimental", "--data-root", str(path / "data")) as engine:
        engine.load_busybox()
        yield engine, path


@pytest.mark.parametrize("how", sorted(FAILS))
@pytest.mark.parametrize("front_end", ["classic", "BuildKit"])
def test_disk_is_full_during_a_step(small: tuple[Engine, Path], tmp_path: Path, front_end: str, how: str) -> None:
    engine, disk = small
    step, buildkit_says, dockerd_says = FAILS[how]

    def build(dockerfile: str) -> tuple[str, str]:
        """Build; return the error and the output."""
        case = Case(dockerfile)
        if front_end == "classic":
            built = classic(engine, case, t=f"full-{how}")
            return built.error, built.text
        done = by_buildx(engine, case, tmp_path, "-t", f"full-{how}")
        return (done.stderr if done.status else ""), done.stderr

    assert build(BEFORE)[0] == ""
    available = free_space(disk)
    error, _ = build(BEFORE + step)
    assert (dockerd_says if front_end == "classic" else buildkit_says) in error.lower()
    # databases grow a little; the step's files and the partial layer are removed
    assert until(lambda: free_space(disk) >= available - 8 * MIB, seconds=60)
    assert until(lambda: not list(disk.glob("data/containerd/*content*/ingest/*")), seconds=60)
    # the cache still works
    error, shown = build(BEFORE + "RUN echo fits > /small\n")
    assert error == ""
    assert ("Using cache" if front_end == "classic" else "CACHED") in shown


EXPORTERS = {
    # these exporters rewrite layers, for which the engine's disk has no space
    "engine": ["type=image,name=full:export", "type=oci,dest={}/o.tar"],
    # these write to a disk of the client's
    "client": [
        "type=oci,dest={}/o.tar",
        "type=tar,dest={}/t.tar",
        "type=local,dest={}/l",
        "type=oci,tar=false,dest={}/layout",
    ],
}


@pytest.mark.parametrize("owner", sorted(EXPORTERS))
def test_disk_is_full_while_results_are_written(small: tuple[Engine, Path], tmp_path: Path, owner: str) -> None:
    engine, disk = small
    engine.docker("builder", "prune", "-af")
    context = tmp_path / "c"
    context.mkdir()
    # stored as files and as a layer; there is no space for a third copy
    (context / "Dockerfile").write_text("FROM busybox\nRUN head -c 12000000 /dev/urandom > /big\n")

    def build(*words: str) -> Completed:
        return engine.docker("buildx", "build", "--progress=plain", *words, str(context), check=False, timeout=110)

    assert build("-t", "full:before").status == 0
    dest = tmp_path / "dest"
    dest.mkdir()
    with tmpfs(dest, "64m" if owner == "engine" else "4m"):
        for exporter in EXPORTERS[owner]:
            output = exporter.format(dest)
            if owner == "engine":
                output += ",compression=zstd,force-compression=true"
            available = free_space(disk)
            done = build("-o", output)
            assert done.status == 1, output
            assert "no space left on device" in done.stderr, (output, done.stderr)
            freed = functools.partial(lambda before: free_space(disk) >= before - MIB, available)
            assert until(freed, seconds=60), (output, available, free_space(disk))
            for path in dest.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert until(lambda: not list(disk.glob("data/containerd/*content*/ingest/*")), seconds=60)
    again = build("-t", "full:after")
    assert "CACHED" in again.stderr
    sizes = "wc -c < /big"
    assert engine.docker("run", "--rm", "--network", "none", "full:after", "sh", "-c", sizes).stdout == "12000000\n"
    engine.docker("rmi", "full:before", "full:after")
    engine.docker("builder", "prune", "-af")


def test_squashed_into_one_layer(small: tuple[Engine, Path]) -> None:
    """`squash`, as an experimental dockerd does it."""
    engine, _ = small
    dockerfile = (
        "FROM busybox\nRUN echo 1 > /one; head -c 100000 /dev/urandom > /big\nENV A=b\n"
        "RUN rm /big /etc/shadow; echo 2 > /two\n"
    )
    for _ in range(2):
        built = classic(engine, Case(dockerfile), squash=1, t="squashed:1")
        assert built.error == ""
    image = engine.api.get("/images/squashed:1/json").json()
    below = engine.api.get("/images/busybox/json").json()["RootFS"]["Layers"]
    assert image["RootFS"]["Layers"][:-1] == below
    assert "A=b" in image["Config"]["Env"]
    newest = engine.api.get("/images/squashed:1/history").json()[0]
    assert newest["Comment"].startswith("merge sha256:")
    files = tree(engine, "squashed:1")
    assert {"one", "two"} <= files.keys()
    assert not {"big", "etc/shadow"} & files.keys()
