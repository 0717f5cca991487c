"""Recipes: every blob that they accept is re-created byte for byte, and damage is an error or shows in the digest."""

import gzip
import io
import os
import random
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from isal import isal_zlib

from engine.common.errors import Kind, WharfError
from engine.common.layers import recipe
from engine.common.layers.blob import LayerWriter
from engine.common.layers.compression import Compression
from engine.common.layers.header import Header
from engine.common.layers.tests.archives import archive, entry

_TEXT = b"".join(b"line %d of a file\n" % number for number in range(120_000))  # 2.5 MB: several pieces
_NOISE = random.Random(1).randbytes(1_500_000)


def _tar(names: tuple[str, ...] = ("a", "d/b", "d/empty", "d/small")) -> bytes:
    contents = {"a": _TEXT, "d/b": _NOISE, "d/empty": b"", "d/small": b"x"}

    def build(tar: tarfile.TarFile) -> None:
        for name in names:
            entry(tar, name, contents[name])

    return archive(build)


def _unpacked(root: Path, data: bytes) -> Path:
    tree = root / "tree"
    tree.mkdir()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(tree, filter="fully_trusted")
    return tree


def _nothing() -> None:
    """A ``check`` that stops nothing."""


def _recorded(root: Path, blob: bytes, tree: Path) -> Path:
    (root / "blob").write_bytes(blob)
    out = root / "recipe"
    with (root / "blob").open("rb") as file, out.open("wb") as written:
        recipe.record(file.fileno(), str(tree), written.fileno(), check=_nothing)
    return out


def _rebuilt(made: Path, tree: Path) -> bytes:
    parts: list[bytes] = []
    with made.open("rb") as file:
        recipe.rebuild(file.fileno(), str(tree), parts.append)
    return b"".join(parts)


def _ours(kind: Compression) -> Callable[[bytes], bytes]:
    def compress(data: bytes) -> bytes:
        parts: list[bytes] = []
        writer = LayerWriter(parts.append, kind)
        writer._take(data)
        # The archive's end is a part of the data.
        writer.tar.close = lambda: None  # type: ignore[method-assign]
        writer.finish()
        return b"".join(parts)

    return compress


def _isal(data: bytes) -> bytes:
    encoder = isal_zlib.compressobj(2, wbits=31)
    pieces = [encoder.compress(data[at : at + (1 << 20)]) for at in range(0, len(data), 1 << 20)]
    return b"".join((*pieces, encoder.flush()))


def _named(data: bytes) -> bytes:
    """A gzip file with a name and a time in its header."""
    out = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", 6, out, mtime=1_700_000_000) as file:
        file.write(data)
    return out.getvalue()


def _zstd(data: bytes) -> bytes:
    encoder = zstandard.ZstdCompressor(level=3).compressobj()
    return encoder.compress(data) + encoder.flush()


_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "ours gzip": _ours(Compression.GZIP),
    "ours zstd": _ours(Compression.ZSTD),
    "isal": _isal,
    "zlib 1": lambda data: gzip.compress(data, 1, mtime=0),
    "zlib 6": lambda data: zlib.compress(data, 6, wbits=31),
    "zlib 9": lambda data: gzip.compress(data, 9, mtime=5),
    "named": _named,
    "zstd": _zstd,
}


@pytest.mark.parametrize("encoder", _ENCODERS)
def test_a_blob_is_made_again(tmp_path: Path, encoder: str) -> None:
    data = _tar()
    blob = _ENCODERS[encoder](data)
    tree = _unpacked(tmp_path, data)
    made = _recorded(tmp_path, blob, tree)
    assert made.stat().st_size < 20_000  # the files' data isn't in it
    assert _rebuilt(made, tree) == blob


def test_other_encoders_are_refused_early(tmp_path: Path) -> None:
    """GNU gzip writes other bytes, as does Go: the first piece shows it."""
    data = _tar() + bytes(30 << 20)
    tree = _unpacked(tmp_path, data)
    blob = subprocess.run(["gzip", "-c", "-n"], input=data, stdout=subprocess.PIPE, check=True).stdout
    (tmp_path / "blob").write_bytes(blob)
    checks: list[int] = []
    with (tmp_path / "blob").open("rb") as file, (tmp_path / "recipe").open("wb") as out:
        with pytest.raises(recipe.NotReproducible, match="no known encoder"):
            recipe.record(file.fileno(), str(tree), out.fileno(), check=lambda: checks.append(1))
    assert len(checks) <= 3  # not all of 34 MiB


def test_data_that_the_tree_lacks_is_stored(tmp_path: Path) -> None:
    """A name that is there twice, a file that a whiteout removed, a longer file, bytes after the archive's end."""

    def build(tar: tarfile.TarFile) -> None:
        entry(tar, "twice", b"first " * 200)
        entry(tar, "twice", b"second" * 200)
        entry(tar, "removed", b"gone" * 200)
        entry(tar, "large", _NOISE)

    data = archive(build) + b"after the end"
    tree = _unpacked(tmp_path, data)
    (tree / "removed").unlink()
    made = _recorded(tmp_path, data, tree)
    assert _rebuilt(made, tree) == data


def test_sparse_files_and_long_names(tmp_path: Path) -> None:
    """GNU tar's formats: fragments of a sparse file lie elsewhere in the file than in the archive."""
    source = tmp_path / "source"
    name = "n" * 150
    (source / name).mkdir(parents=True)
    with (source / name / "sparse").open("wb") as file:
        for at in (0, 5 << 20, 9 << 20):
            file.seek(at)
            file.write(_NOISE[:300_000])
        file.truncate(12 << 20)
    for form in ("gnu", "posix"):
        root = tmp_path / form
        root.mkdir()
        command = ["tar", "-C", str(source), "--sparse", f"--format={form}", "-cf", "-", "."]
        data = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        made = _recorded(root, data, source)
        assert made.stat().st_size < 30_000
        assert _rebuilt(made, source) == data


def test_links_stay_inside(tmp_path: Path) -> None:
    """A link of the tree is resolved inside the tree, at recording and at re-creation."""
    secret = tmp_path / "secret"
    secret.write_bytes(_NOISE)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").symlink_to(secret)
    data = archive(lambda tar: entry(tar, "a", _NOISE))
    with pytest.raises(recipe.NotReproducible):
        _recorded(tmp_path, data, tree)


def test_a_tree_that_changed(tmp_path: Path) -> None:
    data = _tar()
    tree = _unpacked(tmp_path, data)
    made = _recorded(tmp_path, data, tree)
    with (tree / "a").open("r+b") as file:
        file.write(b"X")
    assert _rebuilt(made, tree) != data  # the caller's digest detects it
    with (tree / "a").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(WharfError, match="'a' of its snapshot was truncated") as caught:
        _rebuilt(made, tree)
    assert caught.value.kind is Kind.INTERNAL
    (tree / "a").unlink()
    with pytest.raises(WharfError, match="'a' of its snapshot: no such file"):
        _rebuilt(made, tree)
    (tree / "a").mkdir()
    with pytest.raises(WharfError, match="'a' of its snapshot"):
        _rebuilt(made, tree)


def test_damaged_recipes(tmp_path: Path) -> None:
    """Any damage is an internal error, or the bytes differ; it never makes more bytes than the blob has."""
    data = _tar(("d/b", "d/small"))
    tree = _unpacked(tmp_path, data)
    made = _recorded(tmp_path, data, tree)
    good = made.read_bytes()
    chance = random.Random(3)
    kinds: list[Kind] = []
    for _ in range(200):
        bad = bytearray(good)
        if chance.random() < 0.3:
            del bad[chance.randrange(len(bad)) :]
        else:
            for _ in range(3):
                place = chance.randrange(100) if chance.random() < 0.3 else chance.randrange(recipe._LINE_MAX, len(bad))
                bad[place] = chance.randrange(256)
        made.write_bytes(bad)
        parts: list[bytes] = []
        try:
            with made.open("rb") as file:
                recipe.rebuild(file.fileno(), str(tree), parts.append)
        except WharfError as error:
            kinds.append(error.kind)
    assert len(kinds) > 150
    assert set(kinds) == {Kind.INTERNAL}


def _crafted(path: Path, records: bytes) -> Path:
    head = recipe.Head(1000, "", b"").line()
    body = zstandard.ZstdCompressor().compress(records)
    path.write_bytes(head.rstrip(b"\n").ljust(recipe._LINE_MAX - 1) + b"\n" + body)
    return path


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[" * 2000, b'{"version": 2}', b'{"version": 1, "size": 9, "encoder": "zlib-99"}'],
)
def test_hostile_heads(tmp_path: Path, line: bytes) -> None:
    path = _crafted(tmp_path / "recipe", b"E")
    good = path.read_bytes()
    path.write_bytes(line.ljust(recipe._LINE_MAX) + good[recipe._LINE_MAX :])
    with pytest.raises(WharfError) as caught:
        _rebuilt(path, tmp_path)
    assert caught.value.kind is Kind.INTERNAL


@pytest.mark.parametrize("name", ["zlib-99", "zlib-\u00b2", "isal-", "brotli-1", "zstd-23"])
def test_unknown_encoders(tmp_path: Path, name: str) -> None:
    line = recipe.Head(1000, name, b"").line()
    path = _crafted(tmp_path / "recipe", b"E")
    path.write_bytes(line.ljust(recipe._LINE_MAX) + path.read_bytes()[recipe._LINE_MAX :])
    with pytest.raises(WharfError, match="unknown encoder"):
        _rebuilt(path, tmp_path)


def _range(path: bytes, offset: int, length: int) -> bytes:
    return b"F" + len(path).to_bytes(2, "little") + path + offset.to_bytes(8, "little") + length.to_bytes(8, "little")


@pytest.mark.parametrize(
    "records",
    [
        b"",
        b"?",
        b"L" + (2**32 - 1).to_bytes(4, "little"),
        b"L" + (2000).to_bytes(4, "little") + bytes(2000) + b"E",  # more than the blob has
        _range(b"a", 2**64 - 1, 1) + b"E",
        _range(b"a", 0, 2**64 - 1) + b"E",
        _range(b"../secret", 0, 10) + b"E",
        _range(b"a\0b", 0, 10) + b"E",
        _range(b"pipe", 0, 10) + b"E",
    ],
)
def test_hostile_recipes(tmp_path: Path, records: bytes) -> None:
    (tmp_path / "secret").write_bytes(b"0123456789")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(_TEXT)
    os.mkfifo(tree / "pipe")
    with pytest.raises(WharfError) as caught:
        _rebuilt(_crafted(tmp_path / "recipe", records), tree)
    assert caught.value.kind is Kind.INTERNAL


def test_a_check_stops_the_recording(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    (tmp_path / "blob").write_bytes(_tar())
    with (tmp_path / "blob").open("rb") as file, (tmp_path / "recipe").open("wb") as out, pytest.raises(Stopped):
        recipe.record(file.fileno(), str(tmp_path), out.fileno(), check=stop)


def test_an_entry_of_our_own_writer(tmp_path: Path) -> None:
    """A layer with attributes: whatever its headers say is stored."""
    parts: list[bytes] = []
    writer = LayerWriter(parts.append, Compression.GZIP)
    writer.tar.add(Header(name="d/", type=b"5", mode=0o755, mtime_ns=1_600_000_000_000_000_000))
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_bytes(_TEXT)
    with (tree / "f").open("rb") as file:
        writer.tar.add_file(
            Header(name="f", size=len(_TEXT), uid=1000, xattrs={"user.note": b"v" * 300}), file.fileno()
        )
    writer.finish()
    blob = b"".join(parts)
    made = _recorded(tmp_path, blob, tree)
    assert _rebuilt(made, tree) == blob
