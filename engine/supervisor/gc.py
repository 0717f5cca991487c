"""The garbage collector: removes everything that no lease, image, container or label references.

It marks and sweeps inside one write of the metadata, so no other write can happen in between: resources created under a
lease, or referenced when the collector runs, are safe. The sweep removes records; files follow afterwards.

Roots are
- resources of leases that have not expired (``containerd.io/gc.expire``, RFC 3339),
- the targets of images, and the snapshots of containers,
- blobs and snapshots with the label ``containerd.io/gc.root``,
- ingests that are younger than a day.

From there the collector follows
- a snapshot's parent,
- the labels ``containerd.io/gc.ref.content[./…]`` (a digest) and ``containerd.io/gc.ref.snapshot.<name>[/…]`` (a key)
  of images, containers, blobs and snapshots (not from a lease with ``containerd.io/gc.flat``),
- the expected blob of an ingest,
- the snapshot from which a blob is re-created (``engine.supervisor.recipes``).
"""

import asyncio
import logging
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from engine.api.labels import GC_EXPIRE, GC_FLAT, GC_REF, GC_ROOT
from engine.api.pb import event_messages_pb2 as events_pb
from engine.supervisor import leases
from engine.supervisor.blobs import BlobFiles
from engine.supervisor.events import EventBus
from engine.supervisor.recipes import sources
from engine.supervisor.snapshots.service import Snapshots
from engine.supervisor.store import labels as json_labels
from engine.supervisor.store.database import Database

log = logging.getLogger(__name__)

_REFERENCE = re.compile(
    r"containerd\.io/gc\.ref\.(?:(?P<content>content)(?:[./].*)?|snapshot\.(?P<name>[^/]+)(?:/.*)?)"
)

#: Seconds between a deletion and the following collection, unless the client waits for it.
_DELAY = 3.0

#: The kinds of nodes. The labels of a flat node are not followed (``containerd.io/gc.flat`` of its lease).
_CONTENT, _CONTENT_FLAT, _SNAPSHOT, _SNAPSHOT_FLAT, _INGEST = range(5)

#: Seconds until a failed collection is retried, as on a full disk.
_RETRY = 10.0

#: Kind, namespace, and the digest, the ref, or snapshotter and key.
Node = tuple[int, str, str, str]


@dataclass(slots=True)
class Swept:
    """The resources that one collection removed."""

    snapshots: list[tuple[str, str, str, int]] = field(default_factory=list)  # namespace, name, key, number
    blobs: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    leases: int = 0
    next_expiry_ns: int = 0


def expiry_ns(labels: Mapping[str, str]) -> int:
    """The expiry of a lease; 0 if it has none or the label is malformed (containerd then keeps the lease)."""
    value = labels.get(GC_EXPIRE)
    if value is None:
        return 0
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        log.info("gc: ignoring the malformed expiry %r of a lease", value)
        return 0
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e9)


class Collector:
    """Runs after a deletion, at once for a client that waits, else after a delay; and when a lease expires."""

    def __init__(self, database: Database, files: BlobFiles, snapshots: Snapshots, bus: EventBus) -> None:
        self._db = database
        self._files = files
        self._snapshots = snapshots
        self._bus = bus
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._running: set[asyncio.Task[None]] = set()

    async def deleted(self, *, sync: bool) -> None:
        """A deletion may have created garbage. ``sync``: collects it before returning."""
        if sync:
            await self.collect()
        else:
            self._schedule(_DELAY)

    def schedule_expiry(self, labels: Mapping[str, str]) -> None:
        """A lease with these labels was created: schedules a collection at its expiry."""
        if when := expiry_ns(labels):
            self._schedule(max(0.0, (when - time.time_ns()) / 1e9) + 1)

    async def collect(self) -> None:
        """Runs one collection."""
        swept = await self._db.write(self._sweep, then=self._announce, frees=True)
        if swept.blobs or swept.folders:
            await self._db.write(lambda connection: self._discard(connection, swept), frees=True)
            await asyncio.to_thread(self._files.empty_trash)
        await asyncio.to_thread(self._db.reserve.renew)
        if swept.next_expiry_ns:
            self._schedule(max(0.0, (swept.next_expiry_ns - time.time_ns()) / 1e9) + 1)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _schedule(self, delay: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = loop.call_later(delay, self._start)

    def _start(self) -> None:
        self._timer = None
        task = asyncio.create_task(self._run(), name="gc")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self) -> None:
        try:
            await self.collect()
        except Exception:
            log.exception("gc: a collection failed")
            self._schedule(_RETRY)

    def _announce(self, swept: Swept) -> None:
        for namespace, name, key, number in swept.snapshots:
            self._bus.publish(namespace, "/snapshot/remove", events_pb.SnapshotRemove(key=key, snapshotter=name))
            self._snapshots.discard(name, number)

    def _discard(self, connection: sqlite3.Connection, swept: Swept) -> None:
        """Removes files, in the writer's thread: later writes can't race with it."""
        for digest in swept.blobs:
            if not connection.execute("SELECT 1 FROM blob WHERE digest = ?", (digest,)).fetchone():
                self._files.discard(digest)
                self._files.discard_recipe(digest)
        for folder in swept.folders:
            if not connection.execute("SELECT 1 FROM ingest WHERE folder = ?", (folder,)).fetchone():
                self._files.discard_ingest(folder)

    def _sweep(self, connection: sqlite3.Connection) -> Swept:
        began = time.monotonic()
        now = time.time_ns()
        graph = _Graph(connection)
        swept = Swept(next_expiry_ns=graph.read(now))
        marked = graph.mark()
        for namespace, name, key, number in graph.snapshots():
            if (_SNAPSHOT, namespace, name, key) not in marked and (_SNAPSHOT_FLAT, namespace, name, key) not in marked:
                connection.execute("DELETE FROM snapshot WHERE number = ?", (number,))
                leases.remove_from_leases(connection, namespace, f"{leases.SNAPSHOTS}{name}", key)
                swept.snapshots.append((namespace, name, key, number))
        for namespace, digest in graph.contents():
            if (_CONTENT, namespace, digest, "") not in marked and (_CONTENT_FLAT, namespace, digest, "") not in marked:
                connection.execute("DELETE FROM content WHERE namespace = ? AND digest = ?", (namespace, digest))
                leases.remove_from_leases(connection, namespace, leases.CONTENT, digest)
        for namespace, ref, folder in graph.ingests():
            if (_INGEST, namespace, ref, "") not in marked:
                connection.execute("DELETE FROM ingest WHERE namespace = ? AND ref = ?", (namespace, ref))
                leases.remove_from_leases(connection, namespace, leases.INGESTS, ref)
                swept.folders.append(folder)
        for namespace, id in graph.expired:
            connection.execute("DELETE FROM lease WHERE namespace = ? AND id = ?", (namespace, id))
            swept.leases += 1
        unused = connection.execute("SELECT digest FROM blob WHERE digest NOT IN (SELECT digest FROM content)")
        swept.blobs = [digest for (digest,) in unused.fetchall()]
        connection.executemany("DELETE FROM blob WHERE digest = ?", [(digest,) for digest in swept.blobs])
        if swept.snapshots or swept.blobs or swept.folders or swept.leases:
            log.info(
                "gc: %d snapshots, %d blobs, %d ingests, %d leases collected in %.1f ms",
                len(swept.snapshots),
                len(swept.blobs),
                len(swept.folders),
                swept.leases,
                (time.monotonic() - began) * 1000,
            )
        return swept


class _Graph:
    """All collectable resources with their references."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection.execute
        self._roots: list[Node] = []
        self._content: dict[tuple[str, str], str] = {}  # → labels
        self._snapshot: dict[tuple[str, str, str], tuple[int, str, str]] = {}  # → number, parent, labels
        self._ingest: dict[tuple[str, str], tuple[str, str]] = {}  # → folder, expected digest
        self._recipe: dict[str, Node] = {}  # digest → the snapshot from which it is re-created
        self.expired: list[tuple[str, str]] = []

    def read(self, now: int) -> int:
        """Reads all rows and finds the roots; returns the next expiry of a lease (0: none)."""
        next_expiry = self._leases(now)
        for namespace, digest, labels in self._sql("SELECT namespace, digest, labels FROM image"):
            self._roots.append((_CONTENT, namespace, digest, ""))
            self._roots.extend(_references(namespace, labels))
        for namespace, name, key, labels in self._sql(
            "SELECT namespace, snapshotter, snapshot_key, labels FROM container"
        ):
            if name:
                self._roots.append((_SNAPSHOT, namespace, name, key))
            self._roots.extend(_references(namespace, labels))
        for namespace, digest, labels in self._sql("SELECT namespace, digest, labels FROM content"):
            self._content[namespace, digest] = labels
            if GC_ROOT in labels and GC_ROOT in json_labels.load(labels):
                self._roots.append((_CONTENT, namespace, digest, ""))
        for namespace, name, key, number, parent, labels in self._sql(
            "SELECT namespace, snapshotter, key, number, parent, labels FROM snapshot"
        ):
            self._snapshot[namespace, name, key] = (number, parent, labels)
            if GC_ROOT in labels and GC_ROOT in json_labels.load(labels):
                self._roots.append((_SNAPSHOT, namespace, name, key))
        for namespace, ref, folder, expected, expires in self._sql(
            "SELECT namespace, ref, folder, expected, expires FROM ingest"
        ):
            self._ingest[namespace, ref] = (folder, expected)
            if expires > now:
                self._roots.append((_INGEST, namespace, ref, ""))
        for digest, namespace, name, key in self._sql(sources.SOURCES):
            self._recipe[digest] = (_SNAPSHOT_FLAT, namespace, name, key)
        return next_expiry

    def _leases(self, now: int) -> int:
        flat: dict[tuple[str, str], bool] = {}
        next_expiry = 0
        for namespace, id, text in self._sql("SELECT namespace, id, labels FROM lease"):
            labels = json_labels.load(text)
            expires = expiry_ns(labels)
            if expires and expires <= now:
                self.expired.append((namespace, id))
                continue
            if expires:
                next_expiry = min(next_expiry or expires, expires)
            flat[namespace, id] = GC_FLAT in labels
        for namespace, lease, type, id in self._sql("SELECT namespace, lease, type, id FROM lease_resource"):
            is_flat = flat.get((namespace, lease))
            if is_flat is None:
                continue
            if type == leases.CONTENT:
                self._roots.append((_CONTENT_FLAT if is_flat else _CONTENT, namespace, id, ""))
            elif type == leases.INGESTS:
                self._roots.append((_INGEST, namespace, id, ""))
            else:
                kind = _SNAPSHOT_FLAT if is_flat else _SNAPSHOT
                self._roots.append((kind, namespace, type.removeprefix(leases.SNAPSHOTS), id))
        return next_expiry

    def mark(self) -> set[Node]:
        """All nodes reachable from a root."""
        marked: set[Node] = set()
        pending = self._roots
        while pending:
            node = pending.pop()
            if node in marked:
                continue
            marked.add(node)
            kind, namespace, first, second = node
            if kind in (_CONTENT, _CONTENT_FLAT) and (source := self._recipe.get(first)) is not None:
                pending.append(source)
            if kind == _CONTENT:
                pending.extend(_references(namespace, self._content.get((namespace, first), "")))
            elif kind == _INGEST:
                expected = self._ingest.get((namespace, first), ("", ""))[1]
                if expected:
                    pending.append((_CONTENT, namespace, expected, ""))
            elif kind in (_SNAPSHOT, _SNAPSHOT_FLAT):
                _, parent, labels = self._snapshot.get((namespace, first, second), (0, "", ""))
                if parent:
                    pending.append((kind, namespace, first, parent))
                if kind == _SNAPSHOT:
                    pending.extend(_references(namespace, labels))
        return marked

    def snapshots(self) -> Iterator[tuple[str, str, str, int]]:
        for (namespace, name, key), (number, _, _) in self._snapshot.items():
            yield namespace, name, key, number

    def contents(self) -> Iterator[tuple[str, str]]:
        yield from self._content

    def ingests(self) -> Iterator[tuple[str, str, str]]:
        for (namespace, ref), (folder, _) in self._ingest.items():
            yield namespace, ref, folder


def _references(namespace: str, labels: str) -> list[Node]:
    """The resources that labels reference."""
    if GC_REF not in labels:
        return []
    found: list[Node] = []
    for name, value in json_labels.load(labels).items():
        match = _REFERENCE.fullmatch(name)
        if match is None:
            continue
        if match["content"]:
            found.append((_CONTENT, namespace, value, ""))
        else:
            found.append((_SNAPSHOT, namespace, match["name"], value))
    return found
