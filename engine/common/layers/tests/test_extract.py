"""Archives become files: every kind, whiteouts of layers, and hostile archives."""

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.common.layers.compression import Compression, compressor, detect
from engine.common.layers.extract import Options, Target, Whiteouts, apply, apply_file
from engine.common.layers.header import Header
from engine.common.layers.tarwrite import TarWriter, encode

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="chroot and mknod need root")]

Build = Callable[[tarfile.TarFile], None]


def archive(build: Build, *, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        build(tar)
    return buffer.getvalue()


def entry(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def files(*names: str) -> bytes:
    def build(tar: tarfile.TarFile) -> None:
        for name in names:
            if name.endswith("/"):
                entry(tar, name.rstrip("/"), type=tarfile.DIRTYPE, mode=0o755)
            else:
                entry(tar, name, name.encode())

    return archive(build)


_from_file = False


@pytest.fixture(autouse=True, params=["stream", "file"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two sources of archives: plain layers are also extracted directly from a file."""
    monkeypatch.setattr(f"{__name__}._from_file", request.param == "file")


def extract(data: bytes, target: Target, options: Options | None = None) -> str:
    if not _from_file or options is not None or detect(data[:8]) is not Compression.NONE:
        source = io.BytesIO(data)
        return apply(source.read, target, options=options).diff_id
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        applied = apply_file(file.fileno(), lambda _: len(data), target)
    assert applied.size == len(data)
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


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


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A target directory beside a file that must not change."""
    (tmp_path / "outside").write_text("untouched")
    place = tmp_path / "root"
    place.mkdir()
    yield place
    assert (tmp_path / "outside").read_text() == "untouched"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outside", "root"]
    assert os.getcwd() != "/" or Path("/proc").exists()  # this process's own root has not changed


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_kinds_of_entries(root: Path, form: int) -> None:
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


def test_a_set_group_id_directory_does_not_change_owners(root: Path) -> None:
    """A set-group-id parent passes its group to new files; the archive's group must win."""
    os.chown(root, 0, 77)
    root.chmod(0o2755)
    extract(files("d/", "d/f"), Target(str(root)))
    assert (root / "d/f").stat().st_gid == 0
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o755


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.ZSTD, Compression.XZ, Compression.BZIP2])
def test_compressions_are_recognised(root: Path, kind: Compression) -> None:
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


def test_ends_of_archives(root: Path) -> None:
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
def test_sparse_files_of_gnu_tar(root: Path, tmp_path_factory: pytest.TempPathFactory, arguments: list[str]) -> None:
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


def test_attributes_and_times(root: Path) -> None:
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


def _below_a_file(tar: tarfile.TarFile) -> None:
    entry(tar, "f", b"x")
    entry(tar, "f/g", b"y")


HOSTILE: dict[str, tuple[Build, str]] = {
    "climbs": (lambda tar: entry(tar, "../outside", b"bad"), "outside of the root"),
    "climbs later": (lambda tar: entry(tar, "a/../../outside", b"bad"), "outside of the root"),
    "hard link out": (
        lambda tar: entry(tar, "h", type=tarfile.LNKTYPE, linkname="../outside"),
        "outside of the root",
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
def test_hostile_entries_are_refused(root: Path, name: str) -> None:
    build, sentence = HOSTILE[name]
    with pytest.raises(WharfError, match=sentence) as caught:
        extract(archive(build), Target(str(root)))
    assert caught.value.kind is Kind.INVALID_ARGUMENT


def test_links_stay_inside_the_root(root: Path) -> None:
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


def test_a_link_that_names_itself(root: Path) -> None:
    def build(tar: tarfile.TarFile) -> None:
        entry(tar, "loop", type=tarfile.SYMTYPE, linkname="loop")
        entry(tar, "loop/file", b"x")

    with pytest.raises(WharfError, match="too many levels"):
        extract(archive(build), Target(str(root)))


def test_duplicate_entries_replace_each_other(root: Path) -> None:
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
def test_broken_archives(root: Path, name: str) -> None:
    with pytest.raises(WharfError) as caught:
        extract(broken()[name], Target(str(root)))
    assert caught.value.kind is Kind.INVALID_ARGUMENT
    assert "Traceback" not in caught.value.message


def test_full_disk(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("way", [Whiteouts.OVERLAY, Whiteouts.APPLY])
def test_whiteouts(layered: tuple[Path, Path, Path], way: Whiteouts) -> None:
    """Both methods to apply a layer give the same tree."""
    lower, upper, merged = layered
    extract(
        files("gone/", "gone/file", "gone/stays", "removed", "emptied/", "emptied/old", "replaced/", "replaced/old"),
        Target(str(lower)),
    )
    if way is Whiteouts.OVERLAY:
        extract(files(*LAYER), Target(str(upper), way, (str(lower),)))
        mount(lower, upper, merged)
        found = tree(merged)
    else:
        extract(files(*LAYER), Target(str(lower), way))
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
def test_broken_whiteouts(root: Path, name: str) -> None:
    (root / "d").mkdir()
    (root / "file").write_text("stays")
    for way in (Whiteouts.OVERLAY, Whiteouts.APPLY):
        with pytest.raises(WharfError, match="invalid whiteout name"):
            extract(files(name), Target(str(root), way))
    assert (root / "file").read_text() == "stays"


def test_parents_that_only_lower_layers_have(layered: tuple[Path, Path, Path]) -> None:
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


def test_options_of_copies(root: Path) -> None:
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
