"""Reads logs that the shim's drivers have written: formats, tails, rotation, following."""

import gzip
import io
import json
import random
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.shim.logs.files import JsonFile, Local
from engine.shim.logs.rotate import LogFile
from server.containers.logs.format import JsonLines, Query, attributes_text, format_of, stamp
from server.containers.logs.reader import LogReader

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    stream = io.BytesIO(data)
    while head := stream.read(8):
        kind, size = struct.unpack(">BxxxL", head)
        yield kind, stream.read(size)


def read_all(path: Path, driver: str = "json-file", **query: object) -> bytes:
    reader = LogReader(str(path), format_of(driver), Query(**query))  # type: ignore[arg-type]
    try:
        return b"".join(iter(reader.read, b""))
    finally:
        reader.close()


def open_file(path: Path, driver: str, *, size: int = 0, files: int = 1, gz: bool = False) -> JsonFile | Local:
    file = LogFile(str(path), max_size=size, max_files=files, gzip=gz)
    return JsonFile(file, {"b": "x y", "a": "1"}) if driver == "json-file" else Local(file)


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_streams_order_and_selection(tmp_path: Path, driver: str) -> None:
    path = tmp_path / "log"
    log = open_file(path, driver)
    log.write("stdout", b'one\n"two\\\x01\n', START)
    log.write("stderr", "drü\n".encode(), START + 1)
    log.write("stdout", b"no newline", START + 2)
    log.finish("stdout", START + 3)
    log.close()
    assert list(frames(read_all(path, driver))) == [
        (1, b"one\n"),
        (1, b'"two\\\x01\n'),
        (2, "drü\n".encode()),
        (1, b"no newline"),
    ]
    assert read_all(path, driver, framed=False) == 'one\n"two\\\x01\ndrü\nno newline'.encode()
    assert [kind for kind, _ in frames(read_all(path, driver, stdout=False))] == [2]
    assert read_all(path, driver, framed=False, tail=2) == "drü\nno newline".encode()
    assert read_all(path, driver, framed=False, tail=99) == read_all(path, driver, framed=False)
    assert read_all(path, driver, tail=0) == b""


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_times(tmp_path: Path, driver: str) -> None:
    path = tmp_path / "log"
    log = open_file(path, driver)
    for number in range(5):
        log.write("stdout", f"{number}\n".encode(), START + number * SECOND)
    log.close()

    def between(since: int, until: int) -> bytes:
        return read_all(path, driver, framed=False, since_ns=since, until_ns=until)

    assert between(START + 2 * SECOND, 0) == b"2\n3\n4\n"
    assert between(0, START + 2 * SECOND) == b"0\n1\n2\n"
    assert between(START + SECOND + 1, START + 3 * SECOND - 1) == b"2\n"
    stamped = read_all(path, driver, framed=False, timestamps=True, tail=1)
    assert stamped == b"2023-11-14T22:13:24.000000000Z 4\n"
    assert stamp(START + 1) == "2023-11-14T22:13:20.000000001Z"


def test_details_are_sorted_and_quoted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_file(path, "json-file")
    log.write("stdout", b"hi\n", START)
    log.close()
    assert read_all(path, framed=False, details=True) == b"a=1,b=x+y hi\n"
    assert attributes_text({"b": "x y,z=ü"}) == "b=x+y%2Cz%3D%C3%BC"


def test_json_records_have_attributes_and_parts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    open_file(path, "json-file").write("stdout", b"one\n", START)
    [record] = map(json.loads, read_all(path, json=b"", details=True).splitlines())
    attributes = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "x y"}]
    assert record == {"Line": "one\n", "Source": "stdout", "Timestamp": "2023-11-14T22:13:20Z", "Attrs": attributes}
    assert "Attrs" not in json.loads(read_all(path, json=b""))


def test_malformed_records_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    good = b'{"log":"good\\n","stream":"stdout","time":"2023-11-14T22:13:20.5Z"}\n'
    path.write_bytes(
        good + b'{"log":"cut\n' + b"[1]\n7\n" + b'{"log":5,"stream":"stdout"}\n{}\n' + good + b'{"log":"ha'
    )
    assert read_all(path, framed=False) == b"good\ngood\n"
    assert read_all(path, framed=False, timestamps=True).startswith(b"2023-11-14T22:13:20.500000000Z good\n")
    path.write_bytes(good + b'{"x":1}\n' + good)
    assert read_all(path, framed=False) == b"good\ngood\n"


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("gz", [False, True])
def test_rotated_files_are_one_log(tmp_path: Path, driver: str, gz: bool) -> None:
    path = tmp_path / "log"
    log = open_file(path, driver, size=2000, files=50, gz=gz)
    for number in range(200):
        log.write("stdout", f"line {number}\n".encode(), START + number)
    log.close()
    assert len(list(tmp_path.iterdir())) > 3
    expected = [f"line {number}\n".encode() for number in range(200)]
    assert [data for _, data in frames(read_all(path, driver))] == expected
    for tail in (1, 5, 60, 150, 199, 200, 1000):
        assert [data for _, data in frames(read_all(path, driver, tail=tail))] == expected[-tail:]


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("gz", [False, True])
def test_a_follower_loses_and_repeats_nothing(tmp_path: Path, driver: str, gz: bool) -> None:
    """The reader is sometimes several rotations behind, but never more than there are files."""
    chance = random.Random(7)
    path = tmp_path / "log"
    log = open_file(path, driver, size=1500, files=40, gz=gz)
    reader = LogReader(str(path), format_of(driver), Query(framed=False, follow=True))
    got = b""
    number = 0
    for _ in range(60):
        for _ in range(chance.randrange(60)):
            log.write("stdout", f"{number}\n".encode(), START + number)
            number += 1
        if chance.random() < 0.5:
            got += b"".join(iter(reader.read, b""))
        elif chance.random() < 0.5:
            got += reader.read()
    got += b"".join(iter(reader.read, b""))
    log.close()
    reader.close()
    assert got.split() == [str(each).encode() for each in range(number)]


def test_a_reader_beside_a_writer_that_renames_many_files(tmp_path: Path) -> None:
    """Each rotation renames a hundred files one after the other: a file may have no name while the reader searches
    it."""
    path, count = tmp_path / "log", 3000
    log = open_file(path, "json-file", size=2500, files=400)

    def write() -> None:
        for number in range(count):
            log.write("stdout", f"{number}\n".encode(), START + number)

    reader = LogReader(str(path), JsonLines(), Query(framed=False))
    writer = threading.Thread(target=write)
    writer.start()
    got = b""
    while writer.is_alive():
        got += reader.read()
    writer.join()
    got += b"".join(iter(reader.read, b""))
    log.close()
    reader.close()
    assert got.split() == [str(each).encode() for each in range(count)]


def test_a_follower_too_far_behind_continues_with_the_oldest_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_file(path, "json-file", size=500, files=3)
    reader = LogReader(str(path), JsonLines(), Query(framed=False))
    log.write("stdout", b"first\n", START)
    assert reader.read() == b"first\n"
    for number in range(100):
        log.write("stdout", f"{number}\n".encode(), START + number)
    got = [int(word) for word in b"".join(iter(reader.read, b"")).split()]
    log.close()
    reader.close()
    assert got == sorted(set(got))
    assert got[-1] == 99


def test_a_truncated_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_file(path, "json-file", size=700, files=1)
    reader = LogReader(str(path), JsonLines(), Query(framed=False))
    got: list[int] = []
    for number in range(40):
        log.write("stdout", f"{number}\n".encode(), START + number)
        got += [int(word) for word in b"".join(iter(reader.read, b"")).split()]
    log.close()
    reader.close()
    assert got == list(range(40))


def test_a_log_without_a_file_yet(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = LogReader(str(path), JsonLines(), Query(framed=False, tail=3))
    assert reader.read() == b""
    log = open_file(path, "json-file")
    log.write("stdout", b"x\n", START)
    log.close()
    assert reader.read() == b"x\n"
    reader.close()


def test_a_damaged_gzip_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    record = {"log": "x\n", "stream": "stdout", "time": "2023-11-14T22:13:20Z"}
    line = json.dumps(record).encode() + b"\n"
    (tmp_path / "log.1.gz").write_bytes(gzip.compress(line)[:10] + b"\xff\xff\xff")
    path.write_bytes(line)
    assert read_all(path, framed=False) == b"x\n"
    assert read_all(path, framed=False, tail=5) == b"x\n"
