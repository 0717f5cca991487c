"""Readers of logs during a rotation: at each system call of the reader, and between any two of the writer."""

import gzip
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.shim.logs.files import JsonFile, Local
from engine.shim.logs.rotate import LogFile
from engine.shim.tests.harness import room_for
from server.containers.logs.files import LogFiles
from server.containers.logs.format import Query, format_of
from server.containers.logs.reader import End, LogReader

START = 1_700_000_000 * 10**9
DRIVERS = pytest.mark.parametrize("driver", ["json-file", "local"])
PACKED = pytest.mark.parametrize("gz", [False, True])


class Writer:
    """Writes a log of numbers, about five in a file. Lines of one write have the same time. With ``same`` all lines
    have the same text."""

    def __init__(self, path: Path, driver: str, *, files: int = 30, gz: bool = False, same: bool = False) -> None:
        file = LogFile(str(path), max_size=400, max_files=files, gzip=gz)
        self.log = JsonFile(file, {}) if driver == "json-file" else Local(file)
        self.count = 0
        self._same = same

    def write(self, lines: int) -> None:
        numbers = range(self.count, self.count + lines)
        text = "".join("again\n" if self._same else f"{number:030d}\n" for number in numbers)
        self.log.write("stdout", text.encode(), START)
        self.count += lines


@contextmanager
def hooked(names: tuple[str, ...], at: int, act: Callable[[], object]) -> Iterator[list[int]]:
    """Calls ``act`` before the ``at``-th call of a function of ``os``; counts the calls."""
    calls = [0]
    originals = {name: getattr(os, name) for name in names}

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            number = calls[0]
            calls[0] += 1
            if number == at:
                with pytest.MonkeyPatch.context() as plain:
                    for name, each in originals.items():
                        plain.setattr(os, name, each)
                    act()
            return original(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, original in originals.items():
            patch.setattr(os, name, wrap(original))
        yield calls


STEPS = ("open", "listdir", "stat", "pread")


def each_step(run: Callable[[int], bool]) -> None:
    """Calls ``run(step)`` with increasing steps until it returns False: there was no such step."""
    for step in itertools.count():
        if not run(step):
            return


def rest(reader: LogReader) -> list[int]:
    return [int(word) for word in b"".join(iter(reader.read, b"")).split()]


@DRIVERS
@PACKED
@pytest.mark.parametrize("lines", [6, 14])
@pytest.mark.parametrize("tail", [-1, 0, 12])
def test_a_rotation_at_every_step_of_a_reader(tmp_path: Path, driver: str, gz: bool, lines: int, tail: int) -> None:
    def run(step: int) -> bool:
        directory = tmp_path / str(step)
        directory.mkdir()
        writer = Writer(directory / "log", driver, gz=gz)
        writer.write(18)
        reader = LogReader(str(directory / "log"), format_of(driver), Query(framed=False, tail=tail))
        with hooked(STEPS, step, lambda: writer.write(lines)) as calls:
            got = rest(reader)
        got += rest(reader)
        reader.close()
        writer.log.close()
        # Lines that were written during the search may be part of the tail.
        first = [max(0, count - tail) if tail >= 0 else 0 for count in (18, writer.count)]
        begin = got[0] if got else writer.count
        assert first[0] <= begin <= first[1], step
        assert got == list(range(begin, writer.count)), step
        return calls[0] > step

    each_step(run)


@DRIVERS
@PACKED
def test_a_reader_between_any_two_steps_of_a_rotation(tmp_path: Path, driver: str, gz: bool) -> None:
    """The reader begins, and follows, while the writer renames and compresses files."""

    def run(step: int) -> bool:
        directory = tmp_path / str(step)
        directory.mkdir()
        path = str(directory / "log")
        # Each name that a rotation may use is a step: allow only as many as these lines need.
        writer = Writer(Path(path), driver, files=12, gz=gz)
        follower = LogReader(path, format_of(driver), Query(framed=False))
        late = LogReader(path, format_of(driver), Query(framed=False))
        last = LogReader(path, format_of(driver), Query(framed=False, tail=9))
        writer.write(8)
        got, came, tailed = [int(word) for word in follower.read().split()], [], []

        def look() -> None:
            got.extend(rest(follower))
            came.extend(rest(late))
            tailed.extend(rest(last))

        with hooked(("open", "rename", "unlink"), step, look) as calls:
            writer.write(13)
        look()
        writer.log.close()
        for reader in (follower, late, last):
            reader.close()
        assert got == came == list(range(21)), step
        assert tailed == list(range(tailed[0], 21)), step
        assert 0 <= tailed[0] <= 12, step
        return calls[0] > step

    each_step(run)


@DRIVERS
@PACKED
@pytest.mark.parametrize("files", [1, 3, 30])
@pytest.mark.parametrize("lines", [6, 30])
def test_up_to_an_end_while_it_is_rotated(tmp_path: Path, driver: str, gz: bool, files: int, lines: int) -> None:
    """A client that attaches gets the log until then, and nothing that is written later."""

    def run(step: int) -> bool:
        directory = tmp_path / str(step)
        directory.mkdir()
        writer = Writer(directory / "log", driver, files=files, gz=gz and files > 1)
        writer.write(18)
        held, there = (
            writer.log.open_reader(),
            LogReader(str(directory / "log"), format_of(driver), Query(framed=False)),
        )
        expected = rest(there)
        there.close()
        end = End(held, int(str(writer.log.mark()["size"])))
        if step == 0:
            writer.write(lines)  # before the reader begins
        reader = LogReader(str(directory / "log"), format_of(driver), Query(framed=False), end)
        with hooked(STEPS, step, lambda: writer.write(lines)) as calls:
            got = rest(reader)
        assert reader.done
        reader.close()
        os.close(held)
        writer.log.close()
        # Older files may be removed before the reader opens them; the file of the end is open already.
        assert got == list(range(got[0], 18)), step
        if files == 30:
            assert got == expected, step
        return calls[0] > step

    each_step(run)


@DRIVERS
def test_compressed_files_of_the_same_content_are_distinguished(tmp_path: Path, driver: str) -> None:
    """`yes` writes so many lines at once that whole files have the same lines and times."""
    path = tmp_path / "log"
    writer = Writer(path, driver, files=100, gz=True, same=True)
    writer.write(1)
    reader = LogReader(str(path), format_of(driver), Query(framed=False))
    assert reader.read() == b"again\n"
    writer.write(200)
    got = b"".join(iter(reader.read, b"")).count(b"again")
    reader.close()
    writer.log.close()
    assert got == 200
    assert all(gzip.decompress(packed.read_bytes()) for packed in tmp_path.glob("log.*.gz"))


def test_compressed_files_without_an_inode_are_identified_by_their_content(tmp_path: Path) -> None:
    """Files of an older release, or of dockerd, lack the inode of the original in their header."""
    path = tmp_path / "log"
    writer = Writer(path, "json-file")
    writer.write(3)
    reader = LogReader(str(path), format_of("json-file"), Query(framed=False))
    assert [int(word) for word in reader.read().split()] == [0, 1, 2]
    writer.write(27)
    writer.log.close()
    for plain in tmp_path.glob("log.*"):
        plain.with_name(plain.name + ".gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    assert rest(reader) == list(range(3, 30))
    reader.close()


def test_removed_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = Writer(path, "json-file")
    writer.write(60)
    for number in (1, 2, 3, 5):
        (tmp_path / f"log.{number}").unlink()
    for tail in (-1, 1000):
        reader = LogReader(str(path), format_of("json-file"), Query(framed=False, tail=tail))
        got = rest(reader)
        reader.close()
        assert got == sorted(set(got))
        assert {0, 59} <= set(got)
    writer.log.close()
    names = {name.name for name in tmp_path.iterdir()}
    assert len(got) < 60
    assert LogFiles(str(tmp_path / "none")).newest() is LogFiles(str(tmp_path / "none")).oldest() is None
    assert {name.name for name in tmp_path.iterdir()} == names


@DRIVERS
def test_a_block_of_lines_that_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    path = tmp_path / "x.log"
    file = LogFile(str(path))
    log = JsonFile(file, {}) if driver == "json-file" else Local(file)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", room_for(1000))
        log.write("stdout", b"".join(b"%d\n" % number for number in range(500)), 1)
    log.write("stdout", b"last\n", 2)
    log.close()
    reader = LogReader(str(path), format_of(driver), Query(framed=False))
    lines = b"".join(iter(reader.read, b"")).split()
    reader.close()
    assert 10 < len(lines) < 100
    assert lines == [*(b"%d" % number for number in range(len(lines) - 1)), b"last"]
