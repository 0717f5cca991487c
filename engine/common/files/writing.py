"""Writes whole buffers, and makes names durable."""

import os


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Writes all of ``data``: one write(2) may write a part of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Makes changes of the names in a directory durable (fsync(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
