"""Log files: Docker's rotation, and the effects of a full disk."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.shim.logs.rotate import LogFile
from engine.shim.tests.harness import room_for


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.name: gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in directory.iterdir()
    }


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"before\n")
    log = LogFile(str(path))
    assert log.size == 7
    log.append(b"after\n")
    log.close()
    assert path.read_bytes() == b"before\nafter\n"


def test_the_number_of_files_is_limited(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "x.log"), max_size=10, max_files=3)
    for number in range(5):
        log.append(b"%d\n" % number)
        log.rotate()
    log.append(b"last\n")
    log.close()
    assert contents(tmp_path) == {"x.log": b"last\n", "x.log.1": b"4\n", "x.log.2": b"3\n"}


def test_a_single_file_is_replaced(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "x.log"), max_size=10, max_files=1)
    log.append(b"old\n")
    log.rotate()
    assert log.size == 0
    log.append(b"new\n")
    log.close()
    assert contents(tmp_path) == {"x.log": b"new\n"}


def test_old_files_are_compressed(tmp_path: Path) -> None:
    waited: list[str] = []

    def run_child(work: Callable[[], None]) -> Callable[[], None]:
        work()
        return lambda: waited.append("waited")

    log = LogFile(str(tmp_path / "x.log"), max_size=10, max_files=3, gzip=True, run_child=run_child)
    for number in range(4):
        log.append(b"%d\n" % number)
        log.rotate()
    log.close()
    assert contents(tmp_path) == {"x.log": b"", "x.log.1.gz": b"3\n", "x.log.2.gz": b"2\n"}
    # A rotation waits for the previous one's child: two must never work on the same names.
    assert waited == ["waited"] * 3


def test_a_full_disk_loses_the_records_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.log"
    log = LogFile(str(path))
    log.append(b"whole\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", room_for(4))
        log.append(b"too long\n")
    assert (log.size, log.lost) == (6, 9)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", room_for(9))
        log.append(b"one\ntwo\nthree\nfour\n")
    assert (log.size, log.lost) == (14, 9 + 11)
    log.append(b"again\n")
    log.close()
    assert path.read_bytes() == b"whole\none\ntwo\nagain\n"


def test_a_removed_directory_loses_only_lines(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    log = LogFile(str(directory / "x.log"), max_size=5, max_files=2)
    log.append(b"one\n")
    (directory / "x.log").unlink()
    directory.rmdir()
    log.rotate()
    log.append(b"lost\n")
    assert log.lost == 5
    directory.mkdir()
    log.append(b"back\n")
    log.close()
    assert contents(directory) == {"x.log": b"back\n"}
