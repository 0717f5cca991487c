"""Images of many layers, whose overlay options exceed the page that mount(2) accepts, in everything that mounts
them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.clients.builder.builds import Case, by_buildx, classic
from compat_tests.support.engines import Engine, wharf
from compat_tests.support.host.subids import USER, subordinate_ids
from compat_tests.support.images import busybox_layer, docker_archive, layer

STEPS = 60  # here a page holds about 40 layer paths
CASE = Case("\n".join(["FROM busybox", *(f"COPY f /f{n}" for n in range(STEPS)), "RUN ls / | grep -c f"]), {"f": "x"})
LAYERS = 120


@pytest.fixture
def mapped() -> Iterator[Engine]:
    """An engine with `userns-remap`, whose layers have other paths."""
    with subordinate_ids(), wharf("deep", "--userns-remap", USER) as engine:
        yield engine


def load(engine: Engine, count: int) -> None:
    """Load an image `deep`; every layer but the first adds one file."""
    layers = [busybox_layer(), *(layer({f"file{number}": str(number)}) for number in range(count - 1))]
    engine.docker("load", "-q", input=docker_archive("deep:latest", layers))


def check(engine: Engine, tmp_path: Path) -> None:
    """Run the image `deep`, and use every operation that mounts its layers."""
    (tmp_path / "in").write_text("brought")
    docker = engine.docker
    files = docker("run", "--name", "deep", "deep", "sh", "-c", "rm /file0; echo a > /a; ls / | grep -c file").stdout
    try:
        docker("cp", str(tmp_path / "in"), "deep:/file1")
        assert "brought" in docker("cp", "deep:/file1", "-").stdout
        assert sorted(docker("diff", "deep").stdout.splitlines()) == ["A /a", "C /file1", "D /file0"]
        docker("commit", "deep", "deep:committed")
        assert docker("run", "--rm", "deep:committed", "cat", "/a", "/file1", "/file2").stdout == "a\nbrought2"
        with tarfile.open(fileobj=io.BytesIO(engine.api.get("/containers/deep/export").body)) as tar:
            assert len([name for name in tar.getnames() if name.startswith("file")]) == int(files)
    finally:
        docker("rm", "-f", "deep")
        docker("rmi", "-f", "deep:committed")


@pytest.mark.core
@pytest.mark.usefixtures("remove_new_images")
def test_every_use_of_a_deep_image(engine: Engine, tmp_path: Path) -> None:
    load(engine, LAYERS)
    check(engine, tmp_path)


def test_a_deep_image_with_mapped_ids(mapped: Engine, tmp_path: Path) -> None:
    load(mapped, LAYERS)
    check(mapped, tmp_path)


@pytest.mark.core
@pytest.mark.usefixtures("remove_new_images")
def test_builds_of_many_steps(engine: Engine, tmp_path: Path) -> None:
    built = classic(engine, CASE, t="deep:classic")
    assert built.error == ""
    assert f"\n{STEPS}\n" in built.text
    assert by_buildx(engine, CASE, tmp_path, "-t", "deep:buildkit").status == 0
    for tag in ("classic", "buildkit"):
        assert engine.docker("run", "--rm", f"deep:{tag}", "ls", f"/f{STEPS - 1}").stdout == f"/f{STEPS - 1}\n"
