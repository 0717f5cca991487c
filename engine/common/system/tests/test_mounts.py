"""Overlays whose options exceed the page that mount(2) accepts."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.common.system import linux, mounts

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Path]:
    """The directory of the layers; a tmpfs, which also supports upper directories."""
    base = tmp_path / "a-data-root-with-a-long-name" / ("x" * 200) / "y"
    base.mkdir(parents=True)
    linux.mount("layers", str(base), "tmpfs", 0, "size=8m")
    try:
        yield base
    finally:
        mounts.unmount_under(str(base))


def _options(base: Path, count: int) -> str:
    """The options of an overlay of ``count`` lower layers, each with one file."""
    lowers = []
    for number in range(count):
        layer = base / f"{10000 + number}" / "fs"
        layer.mkdir(parents=True)
        (layer / f"file-{number}").write_text(str(number))
        lowers.append(str(layer))
    for name in ("upper", "work", "merged"):
        (base / name).mkdir()
    return f"index=off,workdir={base}/work,upperdir={base}/upper,lowerdir={':'.join(lowers)}"


@pytest.mark.parametrize("count", [2, 120, mounts.MAX_LOWER_LAYERS])
def test_an_overlay_of_many_layers(layers: Path, count: int) -> None:
    merged = layers / "merged"
    working = os.getcwd()
    mounts.mount("overlay", str(merged), "overlay", linux.MS_NODEV, _options(layers, count))
    assert len(os.listdir(merged)) == count
    (merged / "written").write_text("here")
    assert (layers / "upper" / "written").read_text() == "here"
    (info,) = mounts.mounts_under(str(merged))
    assert info.fstype == info.source == "overlay"
    assert "nodev" in info.options
    assert os.getcwd() == working


def test_many_layers_read_only(layers: Path) -> None:
    lower = _options(layers, mounts.MAX_LOWER_LAYERS).rpartition(",")[2]
    mounts.mount("overlay", str(layers / "merged"), "overlay", linux.MS_RDONLY, lower)
    assert len(os.listdir(layers / "merged")) == mounts.MAX_LOWER_LAYERS
    with pytest.raises(OSError, match="Read-only"):
        (layers / "merged" / "written").write_text("no")


def test_too_many_layers_are_named(layers: Path) -> None:
    with pytest.raises(OSError, match="501 lower layers, overlayfs takes 500"):
        mounts.mount("overlay", str(layers / "merged"), "overlay", 0, _options(layers, 501))
    assert not mounts.is_mountpoint(str(layers / "merged"))
