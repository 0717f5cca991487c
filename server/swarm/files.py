"""Files of a manager below its swarm's directory. Only root reads them."""

import os
from pathlib import Path
from typing import TypeVar

import orjson

from api_models.record import Record
from api_models.stored import restore
from engine.common.files.writing import sync_directory, write_all

R = TypeVar("R", bound=Record)


def read_record(path: Path, kind: type[R]) -> R:
    """:raises FileNotFoundError: :raises ValueError: the file is damaged."""
    return restore(kind, orjson.loads(path.read_bytes()))


def write_record(path: Path, record: Record) -> None:
    """As ``write``."""
    write(path, orjson.dumps(record.wire()))


def write(path: Path, data: bytes) -> None:
    """Replaces a file in one step; it is durable on return."""
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(new, path)
    sync_directory(path.parent)
