"""The blobs of a namespace, and the writes that create them.

Answers don't wait for the disk, but they survive a crash of this process. A blob's bytes are written to the disk in the
background once it is complete. A power failure may lose the last seconds, as with containerd: the next start removes a
blob whose file is shorter than its row says, with its row (``recover``), and the next pull fetches it again.

Namespaces share a blob's file; its labels, and whether it exists, are separate for each namespace. A namespace gets a
blob only by writing its bytes, even if another one has it (containerd's ``isolated`` policy).
"""

import asyncio
import builtins
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from engine.api import filters
from engine.api.extensions import CONTENT_DROPPED
from engine.api.labels import STORED
from engine.api.pb import event_messages_pb2 as events_pb
from engine.api.types import ContentInfo, IngestStatus
from engine.common import timeouts
from engine.common.errors import Kind, WharfError, invalid, not_found
from engine.common.system import heap
from engine.supervisor import leases, namespaces
from engine.supervisor.blobs import BlobFiles, Follower, IngestFile
from engine.supervisor.call import Call
from engine.supervisor.events import EventBus
from engine.supervisor.ingest import Ingest, Record
from engine.supervisor.names import UnknownField, check_digest, check_labels, masked_labels
from engine.supervisor.recipes import sources
from engine.supervisor.recipes.recreate import Recreated
from engine.supervisor.store import labels as json_labels
from engine.supervisor.store.database import Database

log = logging.getLogger(__name__)

timeouts.define("content.ref", 2.0)  # another writer has the ref

_CHUNK = 1 << 20

#: Nanoseconds after which an uncommitted ingest without a lease is collected: containerd's value.
_INGEST_LIFE_NS = 24 * 3600 * 1_000_000_000

_COLUMNS = """digest, size, created, updated, labels,
(SELECT stored FROM recipe WHERE recipe.digest = content.digest AND recipe.snapshot IS NOT NULL)"""


class Content:
    """The content store of all namespaces. A namespace has one open write per ref."""

    def __init__(self, database: Database, files: BlobFiles, bus: EventBus, recreated: Recreated | None = None) -> None:
        """``recreated``: opens the blobs that have no file."""
        self._recreated = recreated
        #: Called when a blob was committed, or its labels were changed.
        self.on_changed: Callable[[], None] = lambda: None
        self._db = database
        self._files = files
        self._bus = bus
        self._open: dict[tuple[str, str], asyncio.Event] = {}
        self._ingests: dict[tuple[str, str], Ingest] = {}
        self._sync_pool = ThreadPoolExecutor(1, thread_name_prefix="sync")

    def info(self, namespace: str, digest: str) -> ContentInfo:
        """Raises NOT_FOUND when this namespace doesn't have the blob."""
        return self._db.read(lambda connection: _get(connection, namespace, check_digest(digest)))

    async def list(self, namespace: str, expressions: Sequence[str]) -> list[ContentInfo]:
        match = filters.compile_all(expressions)

        def read(connection: sqlite3.Connection) -> list[ContentInfo]:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM content WHERE namespace = ?", (namespace,))
            return [info for info in map(_info, rows) if match(_fields(info))]

        return await self._db.scan(read)

    async def update(self, namespace: str, digest: str, labels: Mapping[str, str], mask: Sequence[str]) -> ContentInfo:
        check_digest(digest)
        check_labels(labels, "info.Labels")

        def write(connection: sqlite3.Connection) -> ContentInfo:
            old = _get(connection, namespace, digest)
            new = masked_labels(old.labels, labels, mask, UnknownField("content info", digest))
            now = time.time_ns()
            kept = {name: value for name, value in new.items() if name != STORED}
            connection.execute(
                "UPDATE content SET labels = ?, updated = ? WHERE namespace = ? AND digest = ?",
                (json_labels.dump(kept), now, namespace, digest),
            )
            return replace(old, labels=new, updated_at_ns=now)

        found = await self._db.write(write)
        self.on_changed()
        return found

    async def delete(self, namespace: str, digest: str) -> None:
        """Removes it from this namespace; the collector deletes the file when no namespace has it."""
        check_digest(digest)

        def write(connection: sqlite3.Connection) -> None:
            _get(connection, namespace, digest)
            connection.execute("DELETE FROM content WHERE namespace = ? AND digest = ?", (namespace, digest))
            leases.remove_from_leases(connection, namespace, leases.CONTENT, digest)

        message = events_pb.ContentDelete(digest=digest)
        await self._db.write(write, then=lambda _: self._bus.publish(namespace, "/content/delete", message), frees=True)

    async def recover(self) -> None:
        """At the start: removes rows without a file and files without a row (a crash between the two), and files that a
        power failure has truncated."""
        there = await asyncio.to_thread(lambda: dict(self._files.sizes()))
        folders = await asyncio.to_thread(self._files.folders)

        def write(connection: sqlite3.Connection) -> None:
            known = dict(connection.execute("SELECT digest, size FROM blob"))
            whole = {digest for digest, size in known.items() if there.get(digest) == size}
            whole |= sources.recreatable(connection)
            for digest in known.keys() - whole:
                log.error("content: the file of %s is lost", digest)
                connection.execute("DELETE FROM blob WHERE digest = ?", (digest,))
                connection.execute("DELETE FROM content WHERE digest = ?", (digest,))
            for digest in there.keys() - whole:
                self._files.discard(digest)
            begun = {folder for (folder,) in connection.execute("SELECT folder FROM ingest")}
            for folder in set(folders) - begun:
                self._files.discard_ingest(folder)

        await self._db.write(write)
        await asyncio.to_thread(self._files.empty_trash)

    async def read(self, namespace: str, digest: str, offset: int, size: int) -> AsyncIterator[tuple[int, bytes]]:
        """Yields (offset, bytes) in pieces. Raises OUT_OF_RANGE for an offset past the end."""
        info = self.info(namespace, digest)
        offset = max(0, offset)
        if offset > info.size:
            raise WharfError(Kind.OUT_OF_RANGE, f"read past object length {info.size} bytes")
        end = info.size if size <= 0 else min(info.size, offset + size)
        file = await asyncio.to_thread(open, await self.open_blob(digest), "rb", 0)
        moving = heap.Transfer()
        if end - offset > _CHUNK:
            moving.begin()
        try:
            await asyncio.to_thread(file.seek, offset)
            while offset < end:
                data = await asyncio.to_thread(file.read, min(_CHUNK, end - offset))
                if not data:
                    raise WharfError(Kind.INTERNAL, f"content {digest} ends at {offset} of {info.size} bytes")
                yield offset, data
                offset += len(data)
        finally:
            file.close()
            moving.end()

    async def open_blob(self, digest: str) -> int:
        """A descriptor of its bytes; the caller closes it. Raises NOT_FOUND."""
        try:
            return self._files.open(digest)
        except WharfError:
            if self._recreated is None:
                raise
            return await self._recreated.open(digest)

    def status(self, namespace: str, ref: str) -> IngestStatus:
        """Raises NOT_FOUND when there is no such ingest."""
        found = self._statuses(namespace, ref)
        if not found:
            raise not_found(f"could not get status for ref {ref!r}: not found")
        return found[0]

    def statuses(self, namespace: str, expressions: Sequence[str]) -> "builtins.list[IngestStatus]":
        match = filters.compile_all(expressions)
        return [
            status
            for status in self._statuses(namespace)
            if match(lambda path, ref=status.ref: ref if list(path) == ["ref"] else None)  # type: ignore[misc]
        ]

    def _statuses(self, namespace: str, ref: str | None = None) -> "builtins.list[IngestStatus]":
        def read(connection: sqlite3.Connection) -> "builtins.list[tuple[str, str, int, str, int]]":
            return connection.execute(
                "SELECT ref, folder, total, expected, started FROM ingest "
                "WHERE namespace = :namespace AND (:ref IS NULL OR ref = :ref)",
                {"namespace": namespace, "ref": ref},
            ).fetchall()

        found = []
        for name, folder, total, expected, started in self._db.read(read):
            offset, updated = self._files.progress(folder)
            found.append(IngestStatus(name, offset, total, expected, started, updated or started))
        return found

    async def abort(self, namespace: str, ref: str) -> None:
        """Discards an ingest; raises NOT_FOUND when there is none."""

        def write(connection: sqlite3.Connection) -> None:
            if not _drop_ingest(connection, namespace, ref):
                raise not_found(f"ingest ref {ref!r}: not found")
            self._files.discard_ingest(self._files.folder(namespace, ref))

        await self._db.write(write, frees=True)

    async def open(self, call: Call, ref: str, expected: str, total: int) -> "Ingest":
        """Starts or resumes a write.

        UNAVAILABLE while another writer has the ref; ALREADY_EXISTS when this namespace has the expected blob (which is
        then added to the call's lease).
        """
        if not ref:
            raise invalid("first message must have a reference")
        if expected:
            check_digest(expected)
        key = (call.namespace, ref)
        await self._lock(key)
        try:
            record = await self._db.write(lambda connection: self._begin(connection, call, ref, expected, total))
            if record is None:
                raise WharfError(Kind.ALREADY_EXISTS, f"content {expected}: already exists")
            algorithm = (expected or record.expected or "sha256:").partition(":")[0]
            file = await asyncio.to_thread(IngestFile, self._files.ingest_data(record.folder), algorithm)
        except BaseException:
            self._unlock(key)
            raise
        ingest = self._ingests[key] = Ingest(self, call, ref, record, file)
        return ingest

    def arriving(self, namespace: str, ref: str) -> Follower | None:
        """A reader of the bytes being written under this ref; None if there is no open write."""
        ingest = self._ingests.get((namespace, ref))
        return ingest.file.follow() if ingest is not None else None

    async def descriptor(self, namespace: str, *, ref: str = "", digest: str = "") -> int:
        """A descriptor for writing the ingest, or for reading the blob; the caller closes it. Raises NOT_FOUND."""
        if digest:
            self.info(namespace, digest)
            return await self.open_blob(digest)
        ingest = self._ingests.get((namespace, ref))
        if ingest is None:
            raise not_found(f"{ref!r} is not being written: not found")
        return ingest.open_descriptor()

    def _begin(
        self, connection: sqlite3.Connection, call: Call, ref: str, expected: str, total: int
    ) -> "Record | None":
        namespaces.ensure(connection, call.namespace)
        if expected and _has(connection, call.namespace, expected):
            leases.add_to_lease(connection, call, leases.CONTENT, expected)
            return None
        now = time.time_ns()
        folder = self._files.folder(call.namespace, ref)
        connection.execute(
            "INSERT INTO ingest VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "total = iif(excluded.total > 0, excluded.total, total), "
            "expected = iif(excluded.expected <> '', excluded.expected, expected), expires = excluded.expires",
            (call.namespace, ref, folder, total, expected, now, now + _INGEST_LIFE_NS),
        )
        leases.add_to_lease(connection, call, leases.INGESTS, ref)
        row = connection.execute(
            "SELECT total, expected, started FROM ingest WHERE namespace = ? AND ref = ?", (call.namespace, ref)
        ).fetchone()
        return Record(folder, *row)

    async def commit(self, ingest: "Ingest", digest: str, labels: Mapping[str, str]) -> None:
        """Makes the written bytes a blob. ALREADY_EXISTS when this namespace has it meanwhile."""
        call, ref, folder, size = ingest.call, ingest.ref, ingest.record.folder, ingest.file.offset

        def write(connection: sqlite3.Connection) -> bool:
            if not _drop_ingest(connection, call.namespace, ref):
                raise not_found(f"ingest ref {ref!r} was aborted: not found")
            leases.add_to_lease(connection, call, leases.CONTENT, digest)
            if connection.execute("SELECT 1 FROM blob WHERE digest = ?", (digest,)).fetchone():
                self._files.discard_ingest(folder)
            else:
                self._files.store(folder, digest)
                connection.execute("INSERT INTO blob VALUES (?, ?)", (digest, size))
            if _has(connection, call.namespace, digest):
                return False
            now = time.time_ns()
            connection.execute(
                "INSERT INTO content VALUES (?, ?, ?, ?, ?, ?)",
                (call.namespace, digest, size, now, now, json_labels.dump(labels)),
            )
            return True

        if not await self._db.write(write):
            raise WharfError(Kind.ALREADY_EXISTS, f"content {digest}: already exists")
        self.on_changed()

    def dropped(self, digest: str) -> None:
        """A blob's file was replaced by a recipe: reports it to the namespaces that have the blob."""

        def read(connection: sqlite3.Connection) -> "builtins.list[tuple[str]]":
            return connection.execute("SELECT namespace FROM content WHERE digest = ?", (digest,)).fetchall()

        for (namespace,) in self._db.read(read):
            self._bus.publish(namespace, CONTENT_DROPPED, events_pb.ContentDelete(digest=digest))

    def sync(self, fd: int) -> None:
        """Writes a blob's bytes to the disk, in the background."""
        self._sync_pool.submit(IngestFile.sync, fd)

    async def close(self) -> None:
        """Waits until every blob is on the disk."""
        await asyncio.to_thread(self._sync_pool.shutdown)

    def closed(self, ingest: "Ingest") -> None:
        """Called by an ingest that has closed: its ref is free."""
        self._ingests.pop((ingest.call.namespace, ingest.ref), None)
        self._unlock((ingest.call.namespace, ingest.ref))

    async def _lock(self, key: tuple[str, str]) -> None:
        """A call that was just cancelled may still have its ref: wait for it, for a limited time."""
        try:
            async with asyncio.timeout(timeouts.seconds("content.ref")):
                while (held := self._open.get(key)) is not None:
                    await held.wait()
        except TimeoutError:
            raise WharfError(Kind.UNAVAILABLE, f"ref {key[1]} locked: unavailable") from None
        self._open[key] = asyncio.Event()

    def _unlock(self, key: tuple[str, str]) -> None:
        held = self._open.pop(key, None)
        if held is not None:
            held.set()


def _has(connection: sqlite3.Connection, namespace: str, digest: str) -> bool:
    row = connection.execute("SELECT 1 FROM content WHERE namespace = ? AND digest = ?", (namespace, digest))
    return row.fetchone() is not None


def _get(connection: sqlite3.Connection, namespace: str, digest: str) -> ContentInfo:
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM content WHERE namespace = ? AND digest = ?", (namespace, digest)
    ).fetchone()
    if row is None:
        raise not_found(f"content digest {digest}: not found")
    return _info(row)


def _info(row: tuple[str, int, int, int, str, int | None]) -> ContentInfo:
    digest, size, created, updated, text, stored = row
    labels = json_labels.load(text)
    if stored is not None:
        labels = {**labels, STORED: str(stored)}
    return ContentInfo(digest, size, created, updated, labels)


def _drop_ingest(connection: sqlite3.Connection, namespace: str, ref: str) -> bool:
    leases.remove_from_leases(connection, namespace, leases.INGESTS, ref)
    found = connection.execute("DELETE FROM ingest WHERE namespace = ? AND ref = ?", (namespace, ref))
    return found.rowcount > 0


def _fields(info: ContentInfo) -> filters.Fields:
    def field(path: Sequence[str]) -> str | None:
        if path[0] == "digest":
            return info.digest
        if path[0] == "size":
            return str(info.size)
        if path[0] == "labels":
            return filters.in_labels(path[1:], info.labels)
        return None

    return field
