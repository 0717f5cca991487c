"""Layers: whiteouts, and parents that only a lower layer has."""

import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.common.errors import WharfError
from engine.common.layers.target import Target, Whiteouts
from engine.common.layers.tests.archives import Extract, archive, entry, files

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="chroot and mknod need root")]


@pytest.fixture
def layered(tmp_path: Path) -> Iterator[tuple[Path, Path, Path]]:
    """lower, upper and the mount point of both."""
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for path in (lower, upper, work, merged):
        path.mkdir()
    yield lower, upper, merged
    subprocess.run(["umount", "-q", str(merged)], check=False)


def mount(lower: Path, upper: Path, merged: Path) -> None:
    options = f"lowerdir={lower},upperdir={upper},workdir={upper.parent / 'work'}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() if path.is_file() and not path.is_symlink() else "-"
        for path in sorted(root.rglob("*"))
    }


LAYER = (
    "gone/.wh.file",
    ".wh.removed",
    "emptied/",
    "emptied/.wh..wh..opq",
    "emptied/new",
    "replaced/",
    ".wh.replaced",
    "replaced/only",
    ".wh..wh.plnk",
    "kept",
    ".wh.kept",
)


@pytest.mark.parametrize("whiteouts", [Whiteouts.OVERLAY, Whiteouts.APPLY])
def test_whiteouts(layered: tuple[Path, Path, Path], whiteouts: Whiteouts, extract: Extract) -> None:
    """Both methods to apply a layer give the same tree."""
    lower, upper, merged = layered
    extract(
        files("gone/", "gone/file", "gone/stays", "removed", "emptied/", "emptied/old", "replaced/", "replaced/old"),
        Target(str(lower)),
    )
    if whiteouts is Whiteouts.OVERLAY:
        extract(files(*LAYER), Target(str(upper), whiteouts, (str(lower),)))
        mount(lower, upper, merged)
        found = tree(merged)
    else:
        extract(files(*LAYER), Target(str(lower), whiteouts))
        found = tree(lower)
    assert found == {
        "gone": "-",
        "gone/stays": "gone/stays",
        "emptied": "-",
        "emptied/new": "emptied/new",
        "replaced": "-",
        "replaced/only": "replaced/only",
        "kept": "kept",
    }


@pytest.mark.parametrize("name", [".wh.", "d/.wh..", ".wh..."])
def test_broken_whiteouts(root: Path, name: str, extract: Extract) -> None:
    (root / "d").mkdir()
    (root / "file").write_text("stays")
    for whiteouts in (Whiteouts.OVERLAY, Whiteouts.APPLY):
        with pytest.raises(WharfError, match="invalid whiteout name"):
            extract(files(name), Target(str(root), whiteouts))
    assert (root / "file").read_text() == "stays"


def test_parents_that_only_lower_layers_have(layered: tuple[Path, Path, Path], extract: Extract) -> None:
    lower, upper, merged = layered

    def base(tar: tarfile.TarFile) -> None:
        entry(tar, "usr", type=tarfile.DIRTYPE, mode=0o711, uid=9, gid=8, mtime=500)
        entry(tar, "usr/lib", type=tarfile.DIRTYPE, mode=0o750)
        entry(tar, "usr/lib/old", b"old", mtime=700)
        entry(tar, "lib", type=tarfile.SYMTYPE, linkname="usr/lib")

    def layer(tar: tarfile.TarFile) -> None:
        entry(tar, "lib/new", b"new")
        entry(tar, "usr/lib/second", type=tarfile.LNKTYPE, linkname="usr/lib/old")

    extract(archive(base), Target(str(lower)))
    extract(archive(layer), Target(str(upper), Whiteouts.OVERLAY, (str(lower),)))
    mount(lower, upper, merged)
    assert os.readlink(merged / "lib") == "usr/lib"
    assert (merged / "usr/lib/new").read_text() == "new"
    assert (merged / "usr/lib/second").read_text() == "old"
    usr = (merged / "usr").stat()
    assert (stat.S_IMODE(usr.st_mode), usr.st_uid, usr.st_gid) == (0o711, 9, 8)
    assert stat.S_IMODE((merged / "usr/lib").stat().st_mode) == 0o750
