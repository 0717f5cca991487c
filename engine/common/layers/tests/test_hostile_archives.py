"""Archives that lead out of their root, that contradict themselves, and that are no archives."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.common.layers.header import Header
from engine.common.layers.target import Target
from engine.common.layers.tarwrite import encode
from engine.common.layers.tests.archives import Build, Extract, archive, entry, files

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="chroot and mknod need root")]


def _below_a_file(tar: tarfile.TarFile) -> None:
    entry(tar, "f", b"x")
    entry(tar, "f/g", b"y")


HOSTILE: dict[str, tuple[Build, str]] = {
    "climbs": (lambda tar: entry(tar, "../outside", b"bad"), 'invalid entry name "../outside"'),
    "climbs later": (lambda tar: entry(tar, "a/../../outside", b"bad"), 'invalid entry name "a/../../outside"'),
    "climbs from the top": (lambda tar: entry(tar, "/../outside", b"bad"), 'invalid entry name "/../outside"'),
    "hard link out": (
        lambda tar: entry(tar, "h", type=tarfile.LNKTYPE, linkname="../outside"),
        'invalid hardlink target "../outside"',
    ),
    "hard link nowhere": (
        lambda tar: entry(tar, "h", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        "no such file",
    ),
    "unknown kind": (lambda tar: entry(tar, "odd", type=b"Q"), "unhandled tar header type"),
    "file as the root": (lambda tar: entry(tar, ".", b"bad"), "is not a directory"),
    "long component": (lambda tar: entry(tar, "n" * 300, b"x"), "name too long"),
    "parent is a file": (_below_a_file, "not a directory"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_entries_are_refused(root: Path, name: str, extract: Extract) -> None:
    build, sentence = HOSTILE[name]
    with pytest.raises(WharfError, match=sentence) as caught:
        extract(archive(build), Target(str(root)))
    assert caught.value.kind is Kind.INVALID_ARGUMENT


def test_links_stay_inside_the_root(root: Path, extract: Extract) -> None:
    """Data written through an absolute or climbing link stays inside the root."""

    def build(tar: tarfile.TarFile) -> None:
        entry(tar, "up", type=tarfile.SYMTYPE, linkname="../../../..")
        entry(tar, "abs", type=tarfile.SYMTYPE, linkname="/")
        entry(tar, "up/one", b"1")
        entry(tar, "abs/two", b"2")
        entry(tar, "/three", b"3")
        entry(tar, "file", type=tarfile.SYMTYPE, linkname=str(root.parent / "outside"))
        entry(tar, "file", b"replaces the link")
        entry(tar, "far", type=tarfile.SYMTYPE, linkname="/new/place")
        entry(tar, "far/four", b"4")

    extract(archive(build), Target(str(root)))
    assert {p.name for p in root.iterdir()} == {"up", "abs", "one", "two", "three", "file", "far", "new"}
    assert (root / "file").read_text() == "replaces the link"
    assert (root / "new/place/four").read_text() == "4"


def test_a_link_that_names_itself(root: Path, extract: Extract) -> None:
    def build(tar: tarfile.TarFile) -> None:
        entry(tar, "loop", type=tarfile.SYMTYPE, linkname="loop")
        entry(tar, "loop/file", b"x")

    with pytest.raises(WharfError, match="too many levels"):
        extract(archive(build), Target(str(root)))


def test_duplicate_entries_replace_each_other(root: Path, extract: Extract) -> None:
    def build(tar: tarfile.TarFile) -> None:
        entry(tar, "x", b"first")
        entry(tar, "x", b"second")
        entry(tar, "y/z", b"deep")
        entry(tar, "y", b"now a file")
        entry(tar, "w", b"file")
        entry(tar, "w", type=tarfile.DIRTYPE, mode=0o700)
        entry(tar, "w/in", b"in")

    extract(archive(build), Target(str(root)))
    assert (root / "x").read_text() == "second"
    assert (root / "y").read_text() == "now a file"
    assert (root / "w/in").read_text() == "in"


def broken() -> dict[str, bytes]:
    good = bytearray(files("a", "b"))
    bad_sum = bytes(good[:148]) + b"000000\0 " + bytes(good[156:])
    letters = bytearray(encode(Header("n", size=1)))
    letters[124:136] = b"not a number"
    huge_meta = encode(Header("pax", type=b"x", size=64 << 20))
    return {
        "cut in a header": bytes(good[:1124]),
        "cut in data": bytes(encode(Header("f", size=4096))) + b"x" * 100,
        "checksum": bad_sum,
        "size": bytes(letters),
        "pax of 64 MiB": huge_meta,
        "pax record": encode(Header("pax", type=b"x", size=512)) + b"9999 path=x\n".ljust(512, b"\0"),
        "text": b"<html>this is no archive</html>" * 100,
        "nothing but a compressor's head": b"\x1f\x8b\x08",
    }


@pytest.mark.parametrize("name", broken())
def test_broken_archives(root: Path, name: str, extract: Extract) -> None:
    with pytest.raises(WharfError) as caught:
        extract(broken()[name], Target(str(root)))
    assert caught.value.kind is Kind.INVALID_ARGUMENT
    assert "Traceback" not in caught.value.message


def test_full_disk(tmp_path: Path, extract: Extract) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        with pytest.raises(WharfError, match="no space left on device") as caught:
            extract(archive(lambda tar: entry(tar, "big", bytes(8 << 20))), Target(str(small)))
        assert caught.value.kind is Kind.RESOURCE_EXHAUSTED
    finally:
        subprocess.run(["umount", str(small)], check=True)


# layers
