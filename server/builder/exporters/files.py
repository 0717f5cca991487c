"""Reads files of results, for the gateway's file requests and for the exporter ``local``."""

import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from engine.api.client import Engine
from engine.common.errors import invalid, not_found
from engine.common.files.mount_thread import MountThread
from engine.common.files.paths import open_inside, resolve
from server.builder.dockerfile.ignore import component
from server.builder.operations import selection
from server.builder.session.pb import fsutil_pb2
from server.builder.session.stat import entry_from_stat, to_go

R = TypeVar("R")

LARGEST = 16 << 20
"""The most bytes in one response."""


class Files:
    """Reads files of committed snapshots. Paths can't leave the snapshot."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def mounted(self, chain: str) -> AsyncIterator[tuple[MountThread, str]]:
        """Mount a snapshot's root; the path is valid in the thread of the returned mount namespace."""
        key = f"build-read-{secrets.token_hex(8)}"
        mounts = await self._engine.snapshots.view(key, chain)
        try:
            async with MountThread("build-read") as thread:
                yield thread, await thread.mount(mounts)
        finally:
            await self._engine.snapshots.remove(key)

    async def _in(self, chain: str, function: Callable[[str], R]) -> R:
        if not chain:
            raise not_found("no such file or directory")
        async with self.mounted(chain) as (thread, root):
            try:
                return await thread.run(function, root)
            except FileNotFoundError as error:
                raise not_found(f"lstat {error.filename}: no such file or directory") from None
            except NotADirectoryError as error:
                raise invalid(f"{error.filename}: not a directory") from None

    async def read(self, chain: str, path: str, offset: int, length: int) -> bytes:
        """Read part of a file; ``length`` 0 reads all. NOT_FOUND; INVALID_ARGUMENT beyond :data:`LARGEST`."""

        def work(root: str) -> bytes:
            data = selection.read_file(root, path, limit=LARGEST)
            if data is None:
                raise FileNotFoundError(2, "no such file", path)
            return data[offset : offset + length if length else None]

        return await self._in(chain, work)

    async def list(self, chain: str, path: str, pattern: str) -> list[fsutil_pb2.Stat]:
        """Return the entries of a directory whose names match a pattern."""
        fits = component(pattern) if pattern else None

        def work(root: str) -> list[fsutil_pb2.Stat]:
            below = open_inside(root, path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                names = sorted(os.listdir(below))
                return [_stat(below, name) for name in names if fits is None or fits.fullmatch(name)]
            finally:
                os.close(below)

        return await self._in(chain, work)

    async def stat(self, chain: str, path: str) -> fsutil_pb2.Stat:
        """Return the status of one file; a last link is not followed."""

        def work(root: str) -> fsutil_pb2.Stat:
            fd = selection.open_root(root)
            try:
                found = resolve(fd, path, last=False)
                above, _, name = found.rpartition("/")
                parent = open_inside(fd, above, os.O_PATH | os.O_DIRECTORY)
                try:
                    message = _stat(parent, name or ".")
                finally:
                    os.close(parent)
                message.path = name or "/"
                return message
            finally:
                os.close(fd)

        return await self._in(chain, work)


def _stat(directory: int, name: str) -> fsutil_pb2.Stat:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    link = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else ""
    return message_of(name, status, link)


def message_of(path: str, status: os.stat_result, link: str) -> fsutil_pb2.Stat:
    """Convert a file's status to fsutil's message."""
    entry = entry_from_stat(path, status, linkname=link)
    return fsutil_pb2.Stat(
        path=path,
        mode=to_go(entry.mode),
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size,
        modTime=entry.mtime_ns,
        linkname=entry.linkname,
        devmajor=entry.devmajor,
        devminor=entry.devminor,
    )
