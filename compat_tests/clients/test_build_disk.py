"""A disk that is full in the middle of a build: the build says so, and nothing of it stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests import engines
from compat_tests.clients.builds import Case, by_buildx, classic
from compat_tests.engines import Engine
from compat_tests.test_faults_disk import small_disk
from compat_tests.traces import until

pytestmark = pytest.mark.root

MIB = 1 << 20
BEFORE = "FROM busybox\nRUN head -c 1000 /dev/urandom > /before\n"
FAILS = {
    # the step's own files
    "files": ("RUN head -c 100000000 /dev/zero > /big\n", "exit code: 1", "non-zero code: 1"),
    # its layer: what the step wrote has space once, not twice
    "layer": ("RUN head -c 30000000 /dev/urandom > /big\n", "no space left", "no space left"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    """An engine whose disk has 48 MiB."""
    path = tmp_path_factory.mktemp("small")
    with small_disk(path, "48m"), engines.wharf("small", "--data-root", str(path / "data")) as engine:
        engine.load_busybox()
        yield engine, path


def free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


@pytest.mark.parametrize("how", sorted(FAILS))
@pytest.mark.parametrize("door", ["classic", "BuildKit"])
def test_full_in_the_middle(small: tuple[Engine, Path], tmp_path: Path, door: str, how: str) -> None:
    engine, disk = small
    step, buildkit_says, dockerd_says = FAILS[how]

    def build(dockerfile: str) -> tuple[str, str]:
        """What failed, and what was shown."""
        case = Case(dockerfile)
        if door == "classic":
            built = classic(engine, case, t=f"full-{how}")
            return built.error, built.text
        done = by_buildx(engine, case, tmp_path, "-t", f"full-{how}")
        return (done.stderr if done.status else ""), done.stderr

    assert build(BEFORE)[0] == ""
    left = free(disk)
    error, _ = build(BEFORE + step)
    assert (dockerd_says if door == "classic" else buildkit_says) in error.lower()
    # databases grow a little; what the step wrote is gone, and so is what was written of its layer
    assert until(lambda: free(disk) >= left - 8 * MIB, seconds=60)
    assert until(lambda: not list(disk.glob("data/containerd/*content*/ingest/*")), seconds=60)
    # the cache is unharmed, and goes on
    error, shown = build(BEFORE + "RUN echo fits > /small\n")
    assert error == ""
    assert ("Using cache" if door == "classic" else "CACHED") in shown
