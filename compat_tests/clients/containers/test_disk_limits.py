"""`--storage-opt size=` and volumes with a size: project quotas on XFS."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from compat_tests.fields.matrix import honours
from compat_tests.support import engines
from compat_tests.support.engines import Engine, Wharf


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wharf]:
    """An engine whose data root is on an XFS in a file, mounted with `pquota`."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("mkfs.xfs is missing (package xfsprogs)")
    folder = tmp_path_factory.mktemp("xfs")
    image, mounted = folder / "image", folder / "data"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)  # the minimum size of an XFS is 300 MB
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True, capture_output=True, timeout=120)
    tried = subprocess.run(
        ["mount", "-o", "loop,prjquota", str(image), str(mounted)], check=False, capture_output=True, timeout=120
    )
    if tried.returncode:
        pytest.skip("this kernel mounts no XFS with project quotas")
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", str(mounted)], check=True, capture_output=True, timeout=120)
        engine = stack.enter_context(engines.wharf("quota", "--data-root", str(mounted / "root")))
        engine.load_busybox()
        yield engine


FILL = "dd if=/dev/zero of={} bs=1M count=50 2>&1; stat -c %s {}"


@honours("HostConfig.StorageOpt")
def test_size_limits_a_containers_layer(limited: Wharf) -> None:
    script = FILL.format("/big", "/big") + "; rm /big && mkdir /a && mv /a /b && echo room > /again && cat /again"
    done = limited.docker(
        "run", "--rm", "--network", "none", "--storage-opt", "size=10M", "busybox", "sh", "-c", script
    ).stdout  # fmt: skip
    assert "No space left on device" in done
    size = int(next(line for line in done.splitlines() if line.isdecimal()))
    assert 8 << 20 < size <= 10 << 20
    assert done.splitlines()[-1] == "room"
    free = limited.docker("run", "--rm", "--network", "none", "busybox", "sh", "-c", FILL.format("/big", "/big")).stdout
    assert str(50 << 20) in free.splitlines()


def test_size_limits_a_volume(limited: Wharf) -> None:
    limited.docker("volume", "create", "--opt", "size=5M", "small")
    script = FILL.format("/v/big", "/v/big")
    done = limited.docker("run", "--rm", "--network", "none", "-v", "small:/v", "busybox", "sh", "-c", script).stdout
    assert "No space left on device" in done
    assert 3 << 20 < int(done.splitlines()[-1]) <= 5 << 20
    limited.docker("volume", "rm", "small")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("size=1G", "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"),
        ("odd=1", "Unknown option odd"),
    ],
)
def test_size_is_refused_without_project_quotas(engine: Engine, option: str, words: str) -> None:
    refused = engine.docker("create", "--storage-opt", option, "busybox", check=False)
    assert (refused.status, words in refused.stderr) == (1, True), refused.stderr
