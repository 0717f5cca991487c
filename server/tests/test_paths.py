"""Paths inside a root that a program changes while they are used: no function reads anything outside."""

import contextlib
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from compat_tests.support.host.exchanging import exchanging
from engine.common.errors import Kind, WharfError
from engine.common.files import paths
from engine.common.files.copyup import copy_up
from engine.common.files.gomode import to_unix
from server.builder.dockerfile.ignore import Ignore
from server.builder.operations import selection
from server.containers.archive import tree
from server.containers.spec.users import DirectoryRoot

TRIES = 2000


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A root with ``w/d``, a directory, and ``w/l``, a link to a directory outside with the same content."""
    inside, outside = tmp_path / "root", tmp_path / "outside"
    for directory in (inside / "w/d/below", outside / "below"):
        directory.mkdir(parents=True)
    (inside / "w/d/file").write_text("inside")
    (outside / "file").write_text("outside: longer than that")
    (outside / "link").symlink_to("/a secret of the host")
    (inside / "w/d/link").symlink_to("file")
    (outside / "below/host").write_text("")
    (inside / "w/l").symlink_to(outside)
    fd = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def race(root: int, tmp_path: Path) -> Iterator[None]:
    with exchanging(tmp_path / "root/w/d", tmp_path / "root/w/l"):
        yield


def repeat(work: Callable[[], object]) -> set[object]:
    """Returns the results of the attempts that found anything. On a busy host the exchanging program may not run during
    all attempts; more follow until one finds something."""
    found: set[object] = set()
    tries, deadline = 0, time.monotonic() + 30
    while tries < TRIES or (not found and time.monotonic() < deadline):
        tries += 1
        try:
            found.add(work())
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


@pytest.mark.usefixtures("race")
def test_look_stays_inside(root: int) -> None:
    assert repeat(lambda: tree.stat_path(root, "/w/d/file").size) == {len("inside")}
    # A link of this name exists outside, too: its target must not be disclosed to a container.
    shown = repeat(lambda: tree.stat_path(root, "/w/d/link").link_target)
    shown |= repeat(lambda: paths.resolve(root, "/w/d/link"))
    assert not [path for path in shown if "secret" in str(path)]
    assert "/w/d/file" in shown


@pytest.mark.usefixtures("race")
def test_pack_stays_inside(root: int) -> None:
    def work(path: str) -> tuple[bytes, ...]:
        out = BytesIO()
        tree.pack(root, path, out.write, on_stat=lambda _: None)
        out.seek(0)
        with tarfile.open(fileobj=out) as archive:
            return tuple(b"" if (file := archive.extractfile(m)) is None else file.read() for m in archive.getmembers())

    assert repeat(lambda: work("/w/d/file")) == {(b"inside",)}

    def names() -> tuple[str, ...]:
        out = BytesIO()
        tree.pack(root, "/w/d/below", out.write, on_stat=lambda _: None)
        out.seek(0)
        with tarfile.open(fileobj=out) as archive:
            return tuple(archive.getnames())

    assert repeat(names) == {("below",)}


@pytest.mark.usefixtures("race")
def test_build_sources_stay_inside(root: int) -> None:
    def work() -> tuple[str, ...]:
        (picked,) = selection.pick(root, ["w/d/below"])
        return tuple(name for name, _ in selection.files(root, picked, Ignore([])))

    assert repeat(work) == {("",)}
    assert repeat(lambda: selection.pick(root, ["w/d/f*"])[0].stat.st_size) == {len("inside")}


@pytest.mark.usefixtures("race")
def test_copy_up_and_users_read_nothing_outside(root: int, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    for _ in range(TRIES // 4):
        copy_up(str(tmp_path / "root"), "/w/d/below", str(volume))
    assert not list(volume.iterdir())
    files = DirectoryRoot(root)
    assert repeat(lambda: files.read("/w/d/file")) <= {b"inside", None}


@pytest.mark.usefixtures("race")
def test_mount_points_are_created_inside(root: int, tmp_path: Path) -> None:
    for number in range(TRIES // 4):
        with contextlib.suppress(OSError):
            os.close(paths.make_mountpoint(str(tmp_path / "root"), f"/w/d/new/{number}", directory=bool(number % 2)))
    assert not (tmp_path / "outside/new").exists()
    # The exchange goes on, or stands still on a busy host: the directory has either name.
    assert True in repeat(lambda: any((tmp_path / "root/w" / name / "new").exists() for name in ("d", "l")))


def test_links_are_resolved_within_the_root(root: int, tmp_path: Path) -> None:
    inside = tmp_path / "root"
    (inside / "etc").mkdir()
    (inside / "etc/passwd").write_text("inside")
    (inside / "abs").symlink_to("/etc/passwd")
    (inside / "up").symlink_to("../../../etc/./passwd")
    (inside / "to").symlink_to("etc")
    (inside / "loop").symlink_to("loop")
    for path in ("abs", "/up", "to/passwd", "to/../etc/passwd", "w/../abs"):
        assert paths.resolve(root, path) == "etc/passwd", path
        assert paths.stat_inside(root, paths.resolve(root, path)).st_size == len("inside")
    assert paths.resolve(root, "to/new/../other", last=False) == "etc/other"
    assert paths.resolve(root, "none/../to/x") == "etc/x"
    assert paths.resolve(root, "to", last=False) == "to"
    assert paths.resolve(root, "/") == ""
    with pytest.raises(WharfError, match="too many links"):
        paths.resolve(root, "loop/x")
    assert to_unix(tree.stat_path(root, "/abs").mode) & 0o170000 == 0o120000
    assert tree.stat_path(root, "/abs").link_target == "/etc/passwd"
