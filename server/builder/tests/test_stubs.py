"""Mount points of a runtime are removed from a step's layer; the step's own changes stay."""

import os
from pathlib import Path

import pytest

from engine.api.types import Mount
from server.builder.stubs import remove_stubs

pytestmark = pytest.mark.root


def test_only_what_the_runtime_made_is_removed(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for root in (lower, upper):
        (root / "etc").mkdir(parents=True)
        (root / "dev").mkdir()
    (lower / "etc/hosts").write_text("the image's own")
    for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf"):
        (upper / name).touch()
    (upper / "etc/hostname").write_text("written by the step")
    for name in ("proc", "mnt/deep/target", "kept/target"):
        (upper / name).mkdir(parents=True)
    (upper / "kept/file").touch()
    os.symlink("/kept", upper / "link")
    os.chown(upper / "dev", 1, 1)
    rootfs = (Mount("overlay", "overlay", "", (f"lowerdir={lower}", f"upperdir={upper}", f"workdir={tmp_path}/w")),)

    targets = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc", "/dev", "/mnt/deep/target", "/kept/target")
    remove_stubs(rootfs, (*targets, "/link/file", "/nowhere", "/../escape"))

    left = sorted(str(path.relative_to(upper)) for path in upper.rglob("*"))
    assert left == ["dev", "etc", "etc/hostname", "etc/hosts", "kept", "kept/file", "link"]


def test_copied_up_directory_is_removed_with_its_stub(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for root in (lower, upper):
        (root / "etc").mkdir(parents=True)
    (upper / "etc/hosts").touch()
    rootfs = (Mount("overlay", "overlay", "", (f"lowerdir={lower}", f"upperdir={upper}", f"workdir={tmp_path}/w")),)
    remove_stubs(rootfs, ["/etc/hosts"])
    assert not list(upper.iterdir())
