"""Differences of trees become layers, and applying them gives the same tree; other tools read the archives."""

import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.common.layers import header as tar
from engine.common.layers.blob import Written
from engine.common.layers.compression import Compression
from engine.common.layers.diff import ChangeKind, changes, write_changes, write_upper
from engine.common.layers.extract import apply
from engine.common.layers.header import Header
from engine.common.layers.pack import pack_tree
from engine.common.layers.target import Target, Whiteouts
from engine.common.layers.tarwrite import TarWriter

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="overlay mounts need root")]


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything of a tree that a layer carries."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            content,
            tuple(key for key in os.listxattr(path, follow_symlinks=False) if key.startswith("user.")),
        )
    return found


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[tuple[Path, Path, Path]]:
    """(lower, upper, merged): a base and a mounted overlay with many changes."""
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for path in (lower, upper, work, merged):
        path.mkdir()
    for folder in ("etc", "var/log", "opaque/deep", "same"):
        (lower / folder).mkdir(parents=True)
    for name in ("etc/passwd", "etc/gone", "var/log/a", "opaque/old", "opaque/deep/old", "same/file", "swapped"):
        (lower / name).write_text(name)
        os.utime(lower / name, (1000, 1000))
    options = f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    try:
        (merged / "etc/passwd").write_text("changed")
        (merged / "etc/gone").unlink()
        (merged / "new").mkdir(mode=0o700)
        (merged / "new/file").write_bytes(b"\0" * 3000)
        os.link(merged / "new/file", merged / "new/second")
        (merged / "new/link").symlink_to("/etc/passwd")
        os.mkfifo(merged / "new/fifo", 0o600)
        os.setxattr(merged / "new/file", "user.mark", b"1")
        subprocess.run(["rm", "-r", str(merged / "opaque")], check=True)
        (merged / "opaque").mkdir()
        (merged / "opaque/new").write_text("new")
        (merged / "swapped").unlink()
        (merged / "swapped").mkdir()
        (merged / "swapped/in").write_text("in")
        os.chown(merged / "var/log/a", 7, 7)
        yield lower, upper, merged
    finally:
        subprocess.run(["umount", str(merged)], check=True)


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP, Compression.ZSTD])
def test_both_diffs_reproduce_the_tree(
    trees: tuple[Path, Path, Path], tmp_path: Path, compression: Compression
) -> None:
    lower, upper, merged = trees

    def translated(out: Callable[[bytes], object]) -> Written:
        return write_upper(str(upper), out, compression=compression)

    def compared(out: Callable[[bytes], object]) -> Written:
        return write_changes(str(lower), str(merged), out, compression=compression)

    for number, write in enumerate((translated, compared)):
        out = io.BytesIO()
        written = write(out.write)
        assert written.size == len(out.getvalue())
        again = io.BytesIO()
        assert write(again.write) == written
        copy = tmp_path / f"copy{number}"
        subprocess.run(["cp", "-a", str(lower), str(copy)], check=True)
        out.seek(0)
        applied = apply(out.read, Target(str(copy), Whiteouts.APPLY))
        assert applied.diff_id == written.diff_id
        assert snapshot(copy) == snapshot(merged)
        assert (copy / "new/file").stat().st_ino == (copy / "new/second").stat().st_ino


def test_changes_match_docker_diff(trees: tuple[Path, Path, Path]) -> None:
    lower, _, merged = trees
    found = {change.path: change.kind for change in changes(str(lower), str(merged))}
    assert found["etc/gone"] is ChangeKind.DELETED
    assert found["etc/passwd"] is ChangeKind.MODIFIED
    assert found["new/file"] is ChangeKind.ADDED
    assert found["opaque/old"] is ChangeKind.DELETED
    assert not any(path.startswith("same") for path in found)


def test_an_upper_directory_with_renames_is_refused(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    os.setxattr(tmp_path / "moved", "trusted.overlay.redirect", b"/old")
    with pytest.raises(WharfError) as caught:
        write_upper(str(tmp_path), lambda data: None)
    assert caught.value.kind is Kind.FAILED_PRECONDITION


def test_tarfile_and_tar_read_our_archives(tmp_path: Path) -> None:
    entries = [
        Header("dir", type=tar.DIRECTORY, mode=0o755, uid=3_000_000, gid=5),
        Header("dir/" + "long" * 60, mode=0o600, mtime_ns=1_500_000_000_250_000_000),
        Header("p" * 90 + "/" + "q" * 90, mtime_ns=1_000_000_000),
        Header("ümlaut", uname="jürgen"),
        Header("sym", type=tar.SYMLINK, mode=0o777, linkname="t" * 150),
        Header("dev", type=tar.CHAR, devmajor=1, devminor=5, mode=0o666),
        Header("attr", xattrs={"user.a": b"x\n=y", "security.capability": b"\1\0"}),
    ]
    out = io.BytesIO()
    writer = TarWriter(out.write)
    for entry in entries:
        writer.add(entry, b"content" if entry.type == tar.REGULAR else b"")
    writer.close()
    assert writer.size == len(out.getvalue())
    out.seek(0)
    with tarfile.open(fileobj=out) as reader:
        found = reader.getmembers()
    assert [info.name for info in found] == [entry.name for entry in entries]
    assert (found[0].uid, found[0].gid, found[0].isdir()) == (3_000_000, 5, True)
    assert found[1].mtime == 1_500_000_000.25
    assert found[3].uname == "jürgen"
    assert found[4].linkname == "t" * 150
    assert found[5].devminor == 5
    assert found[6].pax_headers["SCHILY.xattr.user.a"] == "x\n=y"
    listed = subprocess.run(["tar", "-tvf", "-"], input=out.getvalue(), capture_output=True, check=True)
    assert len(listed.stdout.splitlines()) == len(entries)


def test_a_tree_is_packed_without_leaving_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a/f").write_text("f")
    (root / "out").symlink_to("/etc")
    out = io.BytesIO()
    writer = TarWriter(out.write)
    pack_tree(str(root), writer, prefix="in/")
    writer.close()
    out.seek(0)
    with tarfile.open(fileobj=out) as reader:
        assert reader.getnames() == ["in/a", "in/a/f", "in/out"]
        assert reader.getmember("in/out").issym()
