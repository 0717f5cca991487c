"""The audit log: what is read from its end, over files that were replaced, and what follows."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.access.audit import _BACKLOG, AuditLog, Entry
from server.access.audit_tail import tail
from server.access.caller import Caller


def entry(number: int, user: str = "alice") -> Entry:
    return Entry(number, 0.0, Caller(user, user=user), "/run/users.sock", "POST", f"/{number}", {}, 200)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    made = AuditLog(tmp_path / "audit.log", size=2000, files=3, reads=False)
    yield made
    made.close()


async def read(log: AuditLog, count: int, user: str = "") -> list[int]:
    return [int(json.loads(line)["path"][1:]) async for line in log.read(count, user)]


def test_the_last_lines_are_read_over_all_files(log: AuditLog, tmp_path: Path) -> None:
    async def check() -> None:
        for number in range(40):
            log.write(entry(number, "bob" if number % 2 else "alice"))
        kept = await read(log, 1000)
        assert kept == list(range(kept[0], 40))
        assert len(kept) > 12  # more than one file has
        assert await read(log, 3) == [37, 38, 39]
        assert await read(log, 2, "bob") == [37, 39]
        assert await read(log, 0) == []
        assert await read(log, 5, "carol") == []

    asyncio.run(check())
    assert len(list(tmp_path.iterdir())) == 3


def test_lines_after_the_position_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(b'{"user": "a"}\nbroken\n{"user": "b"}\n')
    inode = path.stat().st_ino
    assert tail(path, inode, 21, 9) == [b'{"user": "a"}', b"broken"]
    assert tail(path, inode, 36, 9, "b") == [b'{"user": "b"}']
    path.rename(tmp_path / "audit.log.1")
    path.write_bytes(b"newer\n")
    assert tail(path, inode, 14, 9) == [b'{"user": "a"}']


def test_lines_longer_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    lines = [b"x" * size for size in (1, 70_000, 3, 200_000, 65_536, 2)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    status = path.stat()
    assert tail(path, status.st_ino, status.st_size, 99) == lines


def test_new_lines_follow_until_the_log_is_closed(tmp_path: Path) -> None:
    async def check() -> None:
        log = AuditLog(tmp_path / "audit.log", size=2000, files=3, reads=False)
        log.write(entry(1))
        lines = log.read(10, "alice", follow=True)
        assert json.loads(await anext(lines))["path"] == "/1"
        for number, user in ((2, "bob"), (3, "alice")):
            log.write(entry(number, user))
        assert json.loads(await anext(lines))["path"] == "/3"
        log.close()
        assert [line async for line in lines] == []

    asyncio.run(check())


def test_a_reader_that_is_too_slow_loses_its_answer(log: AuditLog) -> None:
    async def check() -> None:
        lines = log.read(10, follow=True)
        log.write(entry(0))
        await anext(lines)
        for number in range(_BACKLOG + 5):
            log.write(entry(number))
        assert len([line async for line in lines]) == _BACKLOG

    asyncio.run(check())
