"""Executes a ``COPY``, ``ADD`` or ``WORKDIR``: finds and checksums its source files, then writes the layer."""

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from engine.api.types import Descriptor
from engine.common.errors import WharfError
from engine.common.files.mount_thread import MountThread
from engine.common.files.paths import open_inside
from engine.common.layers.blob import Written
from engine.common.layers.compression import decompressed
from engine.common.layers.header import Header
from engine.common.layers.tarread import TarReader
from server.builder.dockerfile.ignore import Ignore
from server.builder.operations import selection
from server.builder.operations.copy_layer import Content, CopyLayer, FileContent, Placement, Source, targets
from server.builder.operations.interfaces import Builder, Contexts, Fetched
from server.builder.operations.selection import Checksums, Picked
from server.builder.operations.temporary import temporary_directory
from server.builder.operations.upload import Spool
from server.builder.plan.steps import Copy, Result
from server.containers.spec.users import DirectoryRoot, lookup

P = ParamSpec("P")
R = TypeVar("R")

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_PIECE = 1 << 20


@dataclass(slots=True)
class _Files:
    """The sources as found: an open root and the selected files."""

    root: int
    picked: list[Picked]
    keep_owner: bool


class Copier:
    """Call :meth:`open`, optionally :meth:`write`, and always :meth:`close`, which may run in the background."""

    def __init__(self, builder: Builder, contexts: Contexts, operation: Copy, epoch_ns: int | None) -> None:
        self._engine, self._scratch = builder.engine, builder.scratch
        self._contexts, self._operation, self._epoch_ns = contexts, operation, epoch_ns
        self._stack = AsyncExitStack()
        self._place: MountThread | None = None
        self._files: _Files | None = None
        self._exclude = Ignore(operation.exclude)
        self.checksum = ""
        """The checksum of files of a stage or a context."""
        self.fetched: list[Fetched] = []

    async def _run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run in the thread that sees the mounts, if there are any."""
        if self._place is not None:
            return await self._place.run(function, *args, **kwargs)
        return await asyncio.to_thread(function, *args, **kwargs)

    async def _mount(self, chain: str) -> str:
        """Mount a view of a result; the path is valid in :meth:`_run`."""
        if self._place is None:
            self._place = await self._stack.enter_async_context(MountThread("build"))
        key = f"build-view-{secrets.token_hex(8)}"
        mounts = await self._engine.snapshots.view(key, chain)
        self._stack.push_async_callback(self._engine.snapshots.remove, key)
        path = await self._place.mount(mounts)
        self._stack.push_async_callback(self._place.unmount, path)
        return path

    async def open(self, found: dict[int, Result]) -> None:
        """Find the sources. Raises NOT_FOUND for a missing source, and what fetching raises."""
        operation = self._operation
        origin = operation.origin
        if origin is not None and operation.sources:
            if origin.step is not None:
                result = found[id(origin.step)]
                path = await self._mount(result.chain_id) if result.chain_id else await self._empty()
                checksums, keep = Checksums(), True
            else:
                context = await self._contexts.open(origin.context)
                path, checksums, keep = context.path, context.checksums, False
            scan = asyncio.ensure_future(self._run(self._scan, path, checksums, keep))
            self._stack.push_async_callback(_close_scan, scan)
            self._files, self.checksum = await asyncio.shield(scan)
        for url in operation.urls:
            self.fetched.append(
                await self._contexts.fetch(url, checksum=operation.checksum, keep_git_dir=operation.keep_git_dir)
            )

    def _scan(self, path: str, checksums: Checksums, keep_owner: bool) -> tuple[_Files, str]:  # noqa: FBT001
        """Find the sources and compute their checksum."""
        operation = self._operation
        root = selection.open_root(path)
        try:
            picked = selection.pick(root, operation.sources, may_match_nothing=operation.may_match_nothing)
            checksum = checksums.compute(root, picked, self._exclude, owners=keep_owner)
        except BaseException:
            os.close(root)
            raise
        return _Files(root, picked, keep_owner), checksum

    async def _empty(self) -> str:
        return await self._stack.enter_async_context(temporary_directory(self._scratch, "empty"))

    @property
    def files(self) -> str:
        """The sources as shown in the image history."""
        kind = ""
        if self._files is not None:
            picked = self._files.picked
            kind = "multi" if len(picked) > 1 else "dir" if any(item.is_dir for item in picked) else "file"
        text = f"{self.checksum}{[item.digest for item in self.fetched]}{self._operation.files}"
        return f"{kind or 'file'}:{hashlib.sha256(text.encode()).hexdigest()}"

    async def has_directory(self, path: str, parent: Result) -> bool:
        """Whether the parent has this directory, links followed."""
        if not parent.chain_id:
            return path == "/"
        root = await self._mount(parent.chain_id)

        def scan() -> bool:
            try:
                os.close(open_inside(root, path, os.O_PATH | os.O_DIRECTORY))
            except OSError:
                return False
            return True

        return await self._run(scan)

    async def write(self, id: str, parent: Result) -> tuple[Descriptor, str]:
        """Write the layer on its parent to the content store; return its descriptor and diff id."""
        root = None
        if parent.chain_id and not self._operation.link:
            root = await self._mount(parent.chain_id)
        spool = Spool(self._scratch)
        try:
            written = await self._run(self._write, root, spool)
            await spool.upload(self._engine, id, written)
        finally:
            await spool.close()
        return Descriptor(GZIP_LAYER, written.digest, written.size), written.diff_id

    def _write(self, mounted: str | None, spool: Spool) -> Written:
        """Blocks; runs in the thread that sees the mounts."""
        root = selection.open_root(mounted) if mounted is not None else None
        try:
            return self._pack(root, mounted, spool.write)
        finally:
            if root is not None:
                os.close(root)

    def _pack(self, root: int | None, mounted: str | None, out: Callable[[bytes], object]) -> Written:
        operation = self._operation
        placement = Placement(root)
        now = time.time_ns() if self._epoch_ns is None else self._epoch_ns
        layer = CopyLayer(
            out,
            placement,
            owner=_owner(operation.chown, mounted),
            chmod=operation.chmod,
            now_ns=now - now % 10**9,
            clamp_ns=self._epoch_ns,
        )
        picked: Sequence[Picked] = self._files.picked if self._files is not None else ()
        given = [FileContent(name, content.encode()) for name, content in operation.files]
        names = [(item.shown, item.is_dir) for item in picked]
        names += [(item.name, item.is_tree) for item in self.fetched]
        names += [(file.name, False) for file in given]
        if not names:
            if operation.sources:
                return layer.finish()
            layer.directories(placement.real(operation.target))
            return layer.finish()
        where = iter(targets(operation, placement, names))
        if self._files is not None:
            source = Source(self._files.root, picked, self._files.keep_owner, operation.parents)
            for item, target in zip(picked, where, strict=False):
                unpacked = operation.unpack and not item.is_dir and self._unpack(layer, item, placement)
                if target is not None and not unpacked:
                    layer.source(source, item, target, self._exclude)
        for fetched, target in zip(self.fetched, where, strict=False):
            if target is not None:
                self._add_fetched(layer, fetched, target)
        for file, target in zip(given, where, strict=False):
            if target is not None:
                layer.file_content(file, target)
        return layer.finish()

    def _add_fetched(self, layer: CopyLayer, fetched: Fetched, target: str) -> None:
        if not fetched.is_tree:
            layer.file_content(
                FileContent(fetched.name, path=fetched.path, mode=0o600, mtime_ns=fetched.mtime_ns), target
            )
            return
        root = selection.open_root(fetched.path)
        try:
            top = Picked("", "", os.fstat(root))
            layer.source(Source(root, [top], keep_owner=False), top, target, self._exclude)
        finally:
            os.close(root)

    def _unpack(self, layer: CopyLayer, item: Picked, placement: Placement) -> bool:
        """Extract the file into the target if it is an archive; return whether it was."""
        assert self._files is not None
        fd = open_inside(self._files.root, item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            entries = _archive(fd)
            if entries is None:
                return False
            layer.entries(entries, placement.real(self._operation.target))
            return True
        finally:
            os.close(fd)

    async def close(self) -> None:
        """Unmount and close everything."""
        await asyncio.shield(self._stack.aclose())


async def _close_scan(scan: "asyncio.Future[tuple[_Files, str]]") -> None:
    """Close the descriptors that a thread opened, even if the caller was cancelled."""
    await asyncio.wait([scan])
    if not scan.cancelled() and scan.exception() is None:
        os.close(scan.result()[0].root)


def _owner(chown: str, mounted: str | None) -> tuple[int, int] | None:
    """Resolve ``--chown``: the default group is the user's number, or the user's group in the image's
    ``/etc/passwd``."""
    if not chown:
        return None
    user, _, group = chown.partition(":")
    if user.isdigit() and (not group or group.isdigit()):
        return int(user), int(group or user)
    files = DirectoryRoot(mounted) if mounted is not None else _NoFiles()
    found = lookup(chown, (), files)
    return found.uid, found.gid if group or not user.isdigit() else found.uid


class _NoFiles:
    """The root of ``FROM scratch``: it has no files."""

    def read(self, path: str) -> bytes | None:
        return None


def _archive(fd: int) -> Iterator[tuple[Header, Content]] | None:
    """Return the entries of a tar archive in any compression, or ``None`` if the file is no archive."""

    def reader() -> tuple[TarReader, Iterator[Header]]:
        os.lseek(fd, 0, os.SEEK_SET)
        archive = TarReader(decompressed(lambda size: os.read(fd, size)))
        return archive, iter(archive)

    try:
        _, entries = reader()
        if next(entries, None) is None:
            return None
    except WharfError:
        return None
    return archive_entries(*reader())


def archive_entries(archive: TarReader, entries: Iterator[Header]) -> Iterator[tuple[Header, Content]]:
    """Yield entries with their content, to be read before the next entry; holes are filled."""
    for entry in entries:
        if entry.sparse is None:
            yield entry, archive.copy
            continue
        fragments, size = entry.sparse, entry.size
        entry.sparse = None
        yield entry, lambda out, fragments=fragments, size=size: _write_sparse(archive, fragments, size, out)  # type: ignore[misc]


def _write_sparse(
    archive: TarReader,
    fragments: Sequence[tuple[int, int]],
    size: int,
    out: Callable[[bytes | memoryview], object],
) -> None:
    """Write a sparse file's content, with its holes filled."""
    data = bytearray()
    archive.copy(data.extend)
    at = taken = 0
    for offset, length in fragments:
        _zeros(offset - at, out)
        out(bytes(data[taken : taken + length]))
        taken += length
        at = offset + length
    _zeros(size - at, out)


def _zeros(count: int, out: Callable[[bytes | memoryview], object]) -> None:
    while count > 0:
        out(bytes(min(count, _PIECE)))
        count -= _PIECE
