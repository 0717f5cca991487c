"""The build cache's database: results of steps by key. Records survive restarts, each holds its data by one lease.

    records   id           the lease that holds the layer's blob and snapshot
              key          the digest of the step's inputs (``steps.digest_of``); empty for a cache mount
              chain, layer the result: chain id, and the layer as JSON
              path         of a cache mount: its directory
              kind         ``regular``, ``source.local``, ``exec.cachemount``
              created, used, uses, size, description, parents
    links     definition   a step's definition-based key (``keys.py``), if it differs from the content-based one
              key          the content-based key that it led to, as in records
              made         when that was found

A record is only a hint: a hit is checked against the engine, and the record is removed if its data is gone. All
records are also kept in memory, because a build of many cached steps looks up each of them.
"""

import asyncio
import contextlib
import heapq
import json
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError
from engine.common.system.sqlite import LazyDatabase
from server.builder.plan.steps import Layer

log = logging.getLogger("wharf.build")

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, chain TEXT NOT NULL, layer TEXT NOT NULL, path TEXT NOT NULL,
    kind TEXT NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL, uses INTEGER NOT NULL,
    size INTEGER NOT NULL, description TEXT NOT NULL, parents TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS records_key ON records (key);
CREATE TABLE IF NOT EXISTS links (
    definition TEXT NOT NULL, key TEXT NOT NULL, made INTEGER NOT NULL, PRIMARY KEY (definition, key)
);
CREATE INDEX IF NOT EXISTS links_key ON links (key);
"""

_PAUSE = 1.0
"""Seconds that deferred writes wait for further ones, perhaps of the next build."""

REGULAR = "regular"
LOCAL = "source.local"
MOUNT = "exec.cachemount"


@dataclass(frozen=True, slots=True)
class Record:
    """A record. Times are nanoseconds since the epoch; ``size`` is in bytes on disk."""

    id: str
    key: str
    chain_id: str
    layer: Layer | None
    path: str
    kind: str
    created_ns: int
    used_ns: int
    uses: int
    size: int
    description: str
    parents: tuple[str, ...] = ()


def _layer_json(layer: Layer | None) -> str:
    if layer is None:
        return ""
    descriptor = layer.descriptor
    return json.dumps(
        {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
            "diffID": layer.diff_id,
            "created": layer.created_ns,
        }
    )


def _record(row: Sequence[object]) -> Record:
    id, key, chain, layer, path, kind, created, used, uses, size, description, parents = row
    parsed: Layer | None = None
    if layer:
        data = json.loads(str(layer))
        descriptor = Descriptor(data["mediaType"], data["digest"], data["size"])
        parsed = Layer(descriptor, data["diffID"], data["created"])
    return Record(
        str(id),
        str(key),
        str(chain),
        parsed,
        str(path),
        str(kind),
        _int(created),
        _int(used),
        _int(uses),
        _int(size),
        str(description),
        tuple(json.loads(str(parents))),
    )


def _read(db: sqlite3.Connection) -> tuple[list[Sequence[object]], list[Sequence[object]]]:
    records = db.execute("SELECT * FROM records ORDER BY created").fetchall()
    with contextlib.suppress(sqlite3.Error):
        # A link may have been written although its record could not be.
        db.execute("DELETE FROM links WHERE key NOT IN (SELECT key FROM records)")
    return records, db.execute("SELECT * FROM links ORDER BY made").fetchall()


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


class Cache:
    """The records in a database of their own. Every method is fast; the database is used off the loop."""

    def __init__(self, path: str) -> None:
        self._database = LazyDatabase(path, _SCHEMA)
        self._in_use: dict[str, int] = {}
        self._records: dict[str, Record] | None = None
        self._by_key: dict[str, dict[str, Record]] = {}
        self._links: dict[str, dict[str, int]] = {}
        self._linked: dict[str, set[str]] = {}
        self._notes: list[Callable[[sqlite3.Connection], object]] = []
        self._writing: asyncio.Task[None] | None = None
        self.verified: set[str] = set()
        """Ids of records that this process has made, or has checked against the engine."""
        self.grown: Callable[[], None] = lambda: None
        """Called after a record was added."""

    def _defer_write(self, function: Callable[[sqlite3.Connection], object]) -> None:
        """Schedule a write of data that only improves choices: callers don't wait for it, and a full disk fails no
        build."""
        self._notes.append(function)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="notes of the build cache")

    async def _write(self) -> None:
        await asyncio.sleep(_PAUSE)
        await self._flush()

    async def _flush(self) -> None:
        while self._notes:
            notes, self._notes = self._notes, []

            def work(db: sqlite3.Connection, notes: Sequence[Callable[[sqlite3.Connection], object]] = notes) -> None:
                db.execute("BEGIN IMMEDIATE")
                try:
                    for note in notes:
                        note(db)
                finally:
                    db.execute("COMMIT")

            try:
                await self._database.do(work)
            except sqlite3.Error as error:
                log.warning("build cache: %s", error)

    async def close(self) -> None:
        """Write what is pending and close the database."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self._flush()
        await asyncio.to_thread(self._database.close)

    async def _load(self) -> dict[str, Record]:
        if self._records is None:
            rows, links = await self._database.do(_read)
            if self._records is None:
                self._records = {}
                for row in rows:
                    self._set(_record(row))
                for definition, key, made in links:
                    self._link(str(definition), str(key), _int(made))
        return self._records

    def _link(self, definition: str, key: str, made_ns: int) -> None:
        """Store a link in memory; a definition's newest key is its last."""
        links = self._links.setdefault(definition, {})
        links.pop(key, None)
        links[key] = made_ns
        self._linked.setdefault(key, set()).add(definition)

    def _set(self, record: Record) -> None:
        assert self._records is not None
        self._drop(record.id)
        self._records[record.id] = record
        self._by_key.setdefault(record.key, {})[record.id] = record

    def _drop(self, id: str) -> None:
        assert self._records is not None
        old = self._records.pop(id, None)
        self.verified.discard(id)
        if old is not None:
            found = self._by_key[old.key]
            found.pop(id, None)
            if not found:
                del self._by_key[old.key]

    def _unlink(self, key: str) -> bool:
        """Remove the links to a key that has no record any more; return whether there were any."""
        if key in self._by_key or key not in self._linked:
            return False
        for definition in self._linked.pop(key):
            links = self._links[definition]
            links.pop(key, None)
            if not links:
                del self._links[definition]
        return True

    async def find(self, key: str) -> list[Record]:
        """Return the records of a key, newest first."""
        await self._load()
        return list(self._by_key.get(key, {}).values())[::-1]

    async def find_by_definition(self, definition: str, *, since_ns: int = 0) -> list[Record]:
        """Return the records of a definition, last found first. ``since_ns``: when the newest of its inputs was made;
        older links are ignored."""
        found = await self.find(definition)
        for key, made_ns in reversed(self._links.get(definition, {}).items()):
            if made_ns >= since_ns:
                found += await self.find(key)
        return found

    async def newest_ns(self, definition: str) -> int:
        """Return when the newest result of a definition was made or found; 0 if there is none."""
        made = [record.created_ns for record in (await self.find(definition))[:1]]
        return max(*self._links.get(definition, {}).values(), *made, 0, 0)

    async def link(self, definition: str, key: str, *, since_ns: int) -> None:
        """Store the key that a definition led to, unless it is stored already and not older than its inputs."""
        await self._load()
        links = self._links.get(definition, {})
        if definition == key or (links and next(reversed(links)) == key and links[key] >= since_ns):
            return
        made_ns = time.time_ns()
        self._link(definition, key, made_ns)
        values = (definition, key, made_ns)
        self._defer_write(lambda db: db.execute("INSERT OR REPLACE INTO links VALUES (?, ?, ?)", values))

    async def add(self, record: Record) -> None:
        """Add or replace a record, durably. Raises RESOURCE_EXHAUSTED when it can't be written."""
        await self._load()
        values = (
            record.id,
            record.key,
            record.chain_id,
            _layer_json(record.layer),
            record.path,
            record.kind,
            record.created_ns,
            record.used_ns,
            record.uses,
            record.size,
            record.description,
            json.dumps(record.parents),
        )
        marks = ",".join("?" * len(values))
        try:
            await self._database.do(lambda db: db.execute(f"INSERT OR REPLACE INTO records VALUES ({marks})", values))
        except sqlite3.Error as error:
            raise WharfError(Kind.RESOURCE_EXHAUSTED, f"build cache: {error}") from error
        self._set(record)
        self.grown()

    async def count_use(self, ids: Iterable[str], *, now_ns: int) -> None:
        """Count a use of these records."""
        records = await self._load()
        known = [records[id] for id in ids if id in records]
        for record in known:
            self._replace(record, used_ns=now_ns, uses=record.uses + 1)
        pairs = [(now_ns, record.id) for record in known]
        if pairs:
            self._defer_write(
                lambda db: db.executemany("UPDATE records SET used = ?, uses = uses + 1 WHERE id = ?", pairs)
            )

    def _replace(self, record: Record, **changes: int) -> None:
        """Replace a record in memory by a changed copy; the order stays."""
        assert self._records is not None
        changed = replace(record, **changes)  # type: ignore[arg-type]
        self._records[record.id] = self._by_key[record.key][record.id] = changed

    async def resize(self, sizes: Mapping[str, int]) -> None:
        """Store the current sizes of cache mounts."""
        records = await self._load()
        for id, size in sizes.items():
            if id in records:
                self._replace(records[id], size=size)
        pairs = [(size, id) for id, size in sizes.items()]
        self._defer_write(lambda db: db.executemany("UPDATE records SET size = ? WHERE id = ?", pairs))

    async def remove(self, ids: Iterable[str]) -> None:
        """Remove records. The caller releases what their leases hold."""
        records = await self._load()
        gone = [records[id] for id in ids if id in records]
        pairs = [(record.id,) for record in gone]
        for record in gone:
            self._drop(record.id)
        keys = [(record.key,) for record in gone if self._unlink(record.key)]

        def delete(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM records WHERE id = ?", pairs)
            db.executemany("DELETE FROM links WHERE key = ?", keys)

        await self._database.do(delete)

    async def contains(self, id: str) -> bool:
        """Whether there is a record of that id."""
        return id in await self._load()

    async def all(self) -> list[Record]:
        """Return every record, oldest first."""
        return list((await self._load()).values())

    def hold(self, id: str) -> None:
        """Keep a record from being pruned: a running build needs it."""
        self._in_use[id] = self._in_use.get(id, 0) + 1

    def release(self, id: str) -> None:
        """Undo one :meth:`hold`."""
        left = self._in_use.get(id, 0) - 1
        if left > 0:
            self._in_use[id] = left
        else:
            self._in_use.pop(id, None)

    def in_use(self, id: str) -> bool:
        """Whether a running build holds it."""
        return id in self._in_use


def choose(
    records: Sequence[Record], *, free: Callable[[Record], bool], total: int, keep_bytes: int = 0
) -> list[Record]:
    """Choose the records to prune: those that are ``free``, least recently used first, until at most ``keep_bytes`` of
    ``total`` are left (0: no bound). A record stays as long as a record that is built on it.
    """
    children = Counter(parent for record in records for parent in record.parents)
    known = {record.id: record for record in records}
    heap = [(record.used_ns, record.id) for record in records if not children[record.id] and free(record)]
    heapq.heapify(heap)
    chosen: list[Record] = []
    while heap and not (keep_bytes and total <= keep_bytes):
        record = known[heapq.heappop(heap)[1]]
        chosen.append(record)
        total -= record.size
        for parent in record.parents:
            children[parent] -= 1
            if not children[parent] and parent in known and free(known[parent]):
                heapq.heappush(heap, (known[parent].used_ns, parent))
    return chosen
