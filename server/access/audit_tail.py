"""Reads the audit log from its end."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from engine.common import jsontext

_BLOCK = 64 * 1024


def tail(path: Path, inode: int, end: int, count: int, user: str = "") -> list[bytes]:
    """The last lines, the oldest first, without their ends. ``inode``, ``end``: the file and the position in it before
    which lines are read; the file may have been replaced since. ``user``: only lines of this user; "": all. Blocks.

    :raises OSError: a file can't be read.
    """
    found: list[bytes] = []
    for line in _backwards(path, inode, end):
        if len(found) == count:
            break
        if not user or _is_of(line, user):
            found.append(line)
    return found[::-1]


def _is_of(line: bytes, user: str) -> bool:
    try:
        document = jsontext.loads(line)
    except ValueError:
        return False  # what is left of a line after a full disk
    return isinstance(document, dict) and document.get("user") == user


def _backwards(path: Path, inode: int, end: int) -> Iterator[bytes]:
    """The lines before the position, the newest first, through all older files."""
    # While files are renamed, one may appear under two names.
    seen: set[int] = set()
    started = False
    number = 0
    while True:
        name = path if not number else path.with_name(f"{path.name}.{number}")
        number += 1
        try:
            file = name.open("rb")
        except FileNotFoundError:
            if number > 1:
                return
            continue
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino in seen:
                continue
            seen.add(status.st_ino)
            if status.st_ino == inode:
                started = True
                yield from _lines(file, end)
            elif started:
                yield from _lines(file, status.st_size)


def _lines(file: BinaryIO, end: int) -> Iterator[bytes]:
    """The complete lines before ``end``, the last first."""
    rest = b""
    while end > 0:
        begin = max(end - _BLOCK, 0)
        file.seek(begin)
        lines = (file.read(end - begin) + rest).split(b"\n")
        end, rest = begin, lines[0]
        yield from filter(None, reversed(lines[1:]))
    if rest:
        yield rest
