"""Remote log drivers without a container: the tests run the loop step by step."""

import json
import socket
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from engine.shim.logs.driver import LogDriver, Pending
from engine.shim.logs.opening import open_log
from engine.shim.logs.remote.driver import RemoteLog
from engine.shim.loop import Loop


def _fail(error: BaseException) -> None:
    raise error


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def driver(loop: Loop, kind: str, options: Mapping[str, str] = MappingProxyType({}), **remote: object) -> LogDriver:
    return open_log({"driver": kind, "remote": json.dumps(remote), **options}, loop)


def server(path: Path, kind: int) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(str(path))
    made.settimeout(30)
    return made


def fields(datagram: bytes) -> dict[str, bytes]:
    """Decodes journald's native format."""
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            (size,) = struct.unpack_from("<Q", rest)
            name, value, rest = line, rest[8 : 8 + size], rest[9 + size :]
        found[name.decode()] = value
        datagram = rest
    return found


def test_journald(folder: Path) -> None:
    loop = Loop(_fail)
    with server(folder / "socket", socket.SOCK_DGRAM) as journal:
        log = driver(
            loop, "journald", path=str(folder / "socket"), fields={"CONTAINER_ID": "abc", "CONTAINER_TAG": "a\nb"}
        )
        log.write("stdout", b"one\n\n" + b"y" * 20_000 + b"\n", 1_700_000_000_123_456_789)
        log.write("stderr", b"unfinished", 1_700_000_001_000_000_000)
        log.finish("stderr", 1_700_000_001_000_000_000)
        found = [fields(journal.recv(1 << 16)) for _ in range(5)]
        same = {"CONTAINER_ID": b"abc", "CONTAINER_TAG": b"a\nb"}
        assert all(same.items() <= record.items() for record in found)
        assert [record["MESSAGE"] for record in found[:2]] == [b"one", b""]
        assert b"".join(record["MESSAGE"] for record in found[2:4]) == b"y" * 20_000
        assert [record.get("CONTAINER_PARTIAL_LAST") for record in found] == [None, None, b"false", b"true", None]
        assert [record["PRIORITY"] for record in found] == [b"6"] * 4 + [b"3"]
        assert found[0]["SYSLOG_TIMESTAMP"] == b"2023-11-14T22:13:20.123456789Z"
        assert found[4]["SYSLOG_TIMESTAMP"] == b"2023-11-14T22:13:21Z"
        assert [record["CONTAINER_LOG_ORDINAL"] for record in found] == [b"1", b"2", b"3", b"4", b"5"]
        assert len({record["CONTAINER_LOG_EPOCH"] for record in found}) == 1
        assert found[4]["MESSAGE"] == b"unfinished"
        log.close()
    assert Pending.count == 0


def test_blocking_and_non_blocking_modes(folder: Path) -> None:
    """The server doesn't read: in blocking mode the container waits, in non-blocking mode new messages are lost."""
    loop = Loop(_fail)
    data = b"z" * 1000 + b"\n"
    with server(folder / "socket", socket.SOCK_STREAM) as listener:
        listener.listen()
        place: dict[str, Any] = {"scheme": "unix", "path": str(folder / "socket"), "tag": "t"}
        patient = driver(loop, "fluentd", **place)
        hasty = driver(loop, "fluentd", {"mode": "non-blocking", "buffer": "65536"}, **place)
        room: list[str] = []
        patient.set_on_writable(lambda: room.append("room"))
        for number in range(3000):
            patient.write("stdout", data, number)
            hasty.write("stdout", data, number)
        assert patient.lagging
        assert not hasty.lagging
        taken = [0, 0]
        readers = [listener.accept()[0] for _ in range(2)]
        for which, reader in enumerate(readers):
            reader.settimeout(0)

            def read(_events: int, reader: socket.socket = reader, which: int = which) -> None:
                data = reader.recv(1 << 20)
                taken[which] += len(data)
                if not data:
                    loop.remove(reader.fileno())

            loop.add(reader.fileno(), 1, read)
        loop.after_round = lambda: loop.stop() if room else None
        loop.run()
        assert not patient.lagging
        # All messages arrive, also those queued at the end.
        patient.close()
        hasty.close()
        loop.after_round = lambda: loop.stop() if not Pending.count and taken[0] >= 3000 * 1000 else None
        loop.run()
        for reader in readers:
            loop.remove(reader.fileno())
            reader.close()
        assert 65536 < taken[1] < taken[0]
    assert Pending.count == 0


def test_a_local_copy_is_written(folder: Path) -> None:
    loop = Loop(_fail)
    with server(folder / "socket", socket.SOCK_DGRAM) as journal:
        copy = folder / "copy.log"
        log = driver(loop, "journald", {"path": str(copy)}, path=str(folder / "socket"))
        log.write("stdout", b"kept\n", 1)
        assert b"MESSAGE=kept\n" in journal.recv(1 << 16)
        log.close()
        assert b"kept" in copy.read_bytes()


@pytest.mark.parametrize(
    ("kind", "remote", "words"),
    [
        ("nosuch", {}, "none of the shim's"),
        ("driver", {}, "none of the shim's"),  # a module beside the drivers
        (
            "syslog",
            {"scheme": "unix", "path": "/nonexistent/socket"},
            "dial unix /nonexistent/socket: connect: no such",
        ),
        ("syslog", {"format": "nope"}, "Invalid syslog format"),
        ("journald", {"path": "/nonexistent/socket"}, "journald is not enabled on this host"),
        (
            "gelf",
            {"scheme": "tcp", "host": "127.0.0.1", "port": 1},
            "gelf: cannot connect to GELF endpoint: 127.0.0.1:1",
        ),
    ],
)
def test_servers_that_cannot_be_reached(kind: str, remote: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        driver(Loop(_fail), kind, **remote)
    assert Pending.count == 0


def test_gelf_discards_messages_one_by_one() -> None:
    """The server is unreachable: each message has its attempts, and messages queued behind the lost ones still
    arrive."""
    loop = Loop(_fail)
    # Bound, but not listening: no other program gets this port while the server is away.
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    listener = socket.create_server(("127.0.0.1", port))
    log = driver(loop, "gelf", scheme="tcp", host="127.0.0.1", port=port, attempts=0, delay=0)
    assert isinstance(log, RemoteLog)
    listener.accept()[0].close()
    listener.close()
    # Bytes written to a connection whose peer has closed are lost without an error, as with any TCP.
    loop.after_round = lambda: loop.stop() if not log.delivery.connected else None
    log.write("stdout", b"into the void\n", 1)
    loop.run()
    for number in range(50):
        log.write("stdout", b"message %d\n" % number, number)
    loop.after_round = lambda: loop.stop() if log.delivery.lost >= 2 else None
    loop.run()
    assert 0 < len(log.delivery.queue) < 50
    with socket.create_server(("127.0.0.1", port)) as again:
        again.settimeout(0)
        received = bytearray()

        def accept(_events: int) -> None:
            reader = again.accept()[0]
            loop.remove(again.fileno())
            loop.add(reader.fileno(), 1, lambda _events: read(reader))

        def read(reader: socket.socket) -> None:
            received.extend(reader.recv(1 << 20))
            if b'"message 49"' in received:
                loop.remove(reader.fileno())
                reader.close()
                loop.stop()

        loop.add(again.fileno(), 1, accept)
        loop.after_round = lambda: None
        loop.run()
        assert b'"message 48"' in received
        assert b'"message 0"' not in received
    reserved.close()
    log.close()  # nothing is queued any more
    assert Pending.count == 0
