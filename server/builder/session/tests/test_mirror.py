"""The mirror of a context transfers only differences and never leaves its root."""

import os
import stat
from pathlib import Path

import pytest

from engine.common.errors import WharfError
from server.builder.session.mirror import Mirror, walk
from server.builder.session.stat import Entry, to_go, to_unix

DIR = stat.S_IFDIR | 0o755
FILE = stat.S_IFREG | 0o644
LINK = stat.S_IFLNK | 0o777


def _sync(root: Path, tree: list[tuple[Entry, bytes]]) -> tuple[Mirror, list[str]]:
    mirror = Mirror(str(root))
    asked = []
    try:
        for number, (entry, content) in enumerate(tree):
            if mirror.add(number, entry):
                asked.append(entry.path)
                mirror.data(number, content)
                assert mirror.data(number, b"")
        mirror.finish()
    finally:
        mirror.close()
    return mirror, asked


def _file(path: str, content: bytes, *, mtime: int = 7, mode: int = FILE) -> tuple[Entry, bytes]:
    return Entry(path=path, mode=mode, size=len(content), mtime_ns=mtime), content


@pytest.mark.root  # files get the owners that the client names
def test_first_time_all_then_only_what_changed(tmp_path: Path) -> None:
    root = tmp_path / "m"
    tree = [
        _file("Dockerfile", b"FROM x"),
        (Entry(path="d", mode=DIR, mtime_ns=5_000_000_001), b""),
        _file("d/a", b"one", mode=stat.S_IFREG | 0o4755),
        _file("d/empty", b""),
        (Entry(path="d/link", mode=LINK, linkname="../x", mtime_ns=9), b""),
        (Entry(path="hard", mode=FILE, linkname="d/a", size=3, mtime_ns=7), b""),
    ]
    _, asked = _sync(root, tree)
    assert asked == ["Dockerfile", "d/a"]
    assert (root / "d/a").read_bytes() == b"one"
    assert os.stat(root / "d/a").st_mode == stat.S_IFREG | 0o4755
    assert os.stat(root / "d").st_mtime_ns == 5_000_000_001
    assert os.readlink(root / "d/link") == "../x"
    assert os.stat(root / "hard").st_ino == os.stat(root / "d/a").st_ino
    mirror, asked = _sync(root, tree)
    assert asked == []
    assert mirror.changed == 0
    tree[2] = _file("d/a", b"two!", mtime=8)
    _, asked = _sync(root, tree[:3])
    assert asked == ["d/a"]
    assert (root / "d/a").read_bytes() == b"two!"
    assert sorted(entry.path for entry in walk(str(root))) == ["Dockerfile", "d", "d/a"]


@pytest.mark.root  # files get the owners that the client names
def test_types_replace_each_other(tmp_path: Path) -> None:
    root = tmp_path / "m"
    _sync(root, [(Entry(path="x", mode=DIR), b""), _file("x/y", b"1")])
    _sync(root, [_file("x", b"a file now")])
    assert (root / "x").read_bytes() == b"a file now"
    _sync(root, [(Entry(path="x", mode=LINK, linkname="/etc"), b"")])
    assert os.readlink(root / "x") == "/etc"
    _sync(root, [(Entry(path="x", mode=DIR), b""), _file("x/z", b"2")])
    assert (root / "x/z").read_bytes() == b"2"


@pytest.mark.parametrize("path", ["../out", "/abs", "a/../../b", "", "a//b", "."])
def test_a_path_that_leaves_the_tree_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(WharfError, match="invalid path"):
        _sync(tmp_path / "m", [_file(path, b"x")])


@pytest.mark.root  # files get the owners that the client names
def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    tree = [(Entry(path="a", mode=LINK, linkname=str(outside)), b""), _file("a/evil", b"x")]
    with pytest.raises(WharfError, match="is not a directory"):
        _sync(tmp_path / "m", tree)
    hard = [(Entry(path="a", mode=LINK, linkname=str(outside)), b""), (Entry("h", FILE, linkname="a/f"), b"")]
    (outside / "f").write_bytes(b"secret")
    with pytest.raises(WharfError, match="is not a directory"):
        _sync(tmp_path / "m2", hard)
    assert os.listdir(outside) == ["f"]


@pytest.mark.parametrize("mode", [DIR, FILE, LINK, stat.S_IFREG | 0o6711, stat.S_IFDIR | 0o1777, stat.S_IFIFO | 0o600])
def test_modes_round_trip(mode: int) -> None:
    assert to_unix(to_go(mode)) == mode
