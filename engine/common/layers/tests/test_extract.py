"""Archives become files: every kind of entry, compression and source."""

import io
import os
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.common.layers.compression import Compression, compressor
from engine.common.layers.extract import apply, apply_file
from engine.common.layers.header import Header
from engine.common.layers.target import Options, Target
from engine.common.layers.tarwrite import TarWriter
from engine.common.layers.tests.archives import Extract, archive, entry, files

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="chroot and mknod need root")]


def test_a_file_that_is_still_being_written(root: Path) -> None:
    """The end advances during the read, at any position; data that the kernel copied is complete."""
    noise = os.urandom(300_000)

    def build(tar: tarfile.TarFile) -> None:
        for name, size in (("a", 300_000), ("b", 7), ("c", 0)):
            entry(tar, name, noise[:size])

    data = archive(build)
    for step in (1, 511, 70_001):
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            step = max(step, len(data) // 5000)
            asked = [0]

            def end(at: int, step: int = step, asked: list[int] = asked) -> int:
                asked.append(at)
                return min(at + step, len(data))

            applied = apply_file(file.fileno(), end, Target(str(root)))
        assert (applied.size, applied.entries, asked[-1]) == (len(data), 3, len(data))
        assert [(root / name).read_bytes() for name in "abc"] == [noise, noise[:7], b""]


def test_a_write_that_never_completes(root: Path) -> None:
    data = files("a", "b")

    def end(at: int) -> int:
        if at >= 1000:
            raise WharfError(Kind.UNAVAILABLE, "no further")
        return 1000

    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        with pytest.raises(WharfError) as caught:
            apply_file(file.fileno(), end, Target(str(root)))
    assert caught.value.kind is Kind.UNAVAILABLE


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_kinds_of_entries(root: Path, form: int, extract: Extract) -> None:
    long = "d/" + "n" * 120

    def build(tar: tarfile.TarFile) -> None:
        entry(tar, "d", type=tarfile.DIRTYPE, mode=0o2750, uid=5, gid=6, mtime=1_000)
        entry(tar, "d/file", b"hello", mode=0o4711, uid=1234, gid=70000, mtime=2_000)
        entry(tar, "d/link", type=tarfile.SYMTYPE, linkname="../../outside")
        entry(tar, "d/hard", type=tarfile.LNKTYPE, linkname="d/file")
        entry(tar, "d/fifo", type=tarfile.FIFOTYPE, mode=0o600)
        entry(tar, "d/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        entry(tar, "d/block", type=tarfile.BLKTYPE, devmajor=7, devminor=200, mode=0o660)
        if form != tarfile.USTAR_FORMAT:
            entry(tar, long, b"x" * 5000, mode=0o640)
            entry(tar, "ünicode", b"")

    extract(archive(build, form=form), Target(str(root)))
    file = (root / "d/file").stat()
    assert (root / "d/file").read_bytes() == b"hello"
    assert (stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid, file.st_mtime) == (0o4711, 1234, 70000, 2000)
    folder = (root / "d").stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid, folder.st_gid, folder.st_mtime) == (0o2750, 5, 6, 1000)
    assert os.readlink(root / "d/link") == "../../outside"
    assert (root / "d/hard").stat().st_ino == file.st_ino
    assert stat.S_ISFIFO((root / "d/fifo").lstat().st_mode)
    assert (root / "d/null").lstat().st_rdev == os.makedev(1, 3)
    assert (root / "d/block").lstat().st_rdev == os.makedev(7, 200)
    if form != tarfile.USTAR_FORMAT:
        assert (root / long).stat().st_size == 5000
        assert (root / "ünicode").exists()


def test_a_set_group_id_directory_does_not_change_owners(root: Path, extract: Extract) -> None:
    """A set-group-id parent passes its group to new files; the archive's group must win."""
    os.chown(root, 0, 77)
    root.chmod(0o2755)
    extract(files("d/", "d/f"), Target(str(root)))
    assert (root / "d/f").stat().st_gid == 0
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o755


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.ZSTD, Compression.XZ, Compression.BZIP2])
def test_compressions_are_recognised(root: Path, kind: Compression, extract: Extract) -> None:
    import bz2
    import lzma

    data = files("a", "b/", "b/c")
    if kind is Compression.XZ:
        packed = lzma.compress(data)
    elif kind is Compression.BZIP2:
        packed = bz2.compress(data)
    else:
        encoder = compressor(kind)
        packed = encoder.compress(data) + encoder.flush()
    assert extract(packed, Target(str(root))) == extract(data, Target(str(root)))
    assert (root / "b/c").read_text() == "b/c"
    for cut in (len(packed) - 1, len(packed) // 2, 20):
        with pytest.raises(WharfError, match=r"unexpected EOF|invalid") as caught:
            extract(packed[:cut], Target(str(root)))
        assert caught.value.kind is Kind.INVALID_ARGUMENT


def test_ends_of_archives(root: Path, extract: Extract) -> None:
    """As in Go's reader: the padding of the last file and the end-of-archive mark may be missing, but not a part of
    it."""
    whole = files("f")
    for good in (513, 700, 1023, 1024, 1536, 2048):
        extract(whole[:good], Target(str(root)))
        assert (root / "f").read_text() == "f"
    for bad in (300, 512, 1100, 1537, 2047):
        with pytest.raises(WharfError, match="unexpected EOF"):
            extract(whole[:bad], Target(str(root)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format=gnu"],
        ["--format=pax", "--sparse-version=0.0"],
        ["--format=pax", "--sparse-version=0.1"],
        ["--format=pax"],
    ],
)
def test_sparse_files_of_gnu_tar(
    root: Path, tmp_path_factory: pytest.TempPathFactory, arguments: list[str], extract: Extract
) -> None:
    source = tmp_path_factory.mktemp("sparse")
    with open(source / "holes", "wb") as file:
        for index in range(12):
            file.seek(index * 300_000)
            file.write(bytes([65 + index]) * 5000)
        file.truncate(5_000_000)
    data = subprocess.run(
        ["tar", "--sparse", *arguments, "-C", str(source), "-cf", "-", "holes"], capture_output=True, check=True
    ).stdout
    assert len(data) < 500_000
    extract(data, Target(str(root)))
    assert (root / "holes").read_bytes() == (source / "holes").read_bytes()
    assert (root / "holes").stat().st_blocks * 512 < 1_000_000


def test_attributes_and_times(root: Path, extract: Extract) -> None:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    attributes = {"user.colour": b"bl\0ue", "trusted.overlay.opaque": b"y", "trusted.overlay.redirect": b"/etc"}
    writer.add(Header("f", mtime_ns=1_700_000_000_123_456_789, xattrs=attributes), b"data")
    writer.add(Header("old", mtime_ns=-5_500_000_000), b"")
    writer.add(Header("late", mtime_ns=1 << 70), b"")
    writer.close()
    extract(out.getvalue(), Target(str(root)))
    assert os.getxattr(root / "f", "user.colour") == b"bl\0ue"
    assert os.listxattr(root / "f") == ["user.colour"]  # an archive can't set overlayfs's attributes
    assert (root / "f").stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert (root / "old").stat().st_mtime_ns == -5_500_000_000


def test_options_of_copies(root: Path, extract: Extract) -> None:
    (root / "dir/sub").mkdir(parents=True)
    (root / "file").write_text("old")
    (root / "link").symlink_to("dir")
    target = Target(str(root))
    extract(files(".wh.name", "link/"), target, Options(into="dir", owner=(7, 8)))
    assert (root / "dir/.wh.name").stat().st_uid == 7
    extract(files("link/", "link/in"), target, Options(follow_dir_links=True))
    assert (root / "dir/in").exists()
    with pytest.raises(WharfError, match="cannot overwrite directory"):
        extract(files("dir"), target, Options(no_overwrite_kind=True))
    with pytest.raises(WharfError, match="cannot overwrite non-directory"):
        extract(files("file/"), target, Options(no_overwrite_kind=True))
    extract(files("a/b", "skip"), target, Options(map_name=lambda name: None if name == "skip" else f"to/{name}"))
    assert (root / "to/a/b").exists()
    assert not (root / "skip").exists()


def test_cancelled(root: Path) -> None:
    data = archive(lambda tar: entry(tar, "f", bytes(8 << 20)))
    source = io.BytesIO(data)
    with pytest.raises(WharfError) as caught:
        apply(source.read, Target(str(root)), cancelled=lambda: True)
    assert caught.value.kind is Kind.CANCELLED
