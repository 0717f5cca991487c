"""The database of completed builds: their records and progress messages.

builds   ref        the client's name of the build
         completed  when it ended, nanoseconds since the epoch
         pinned     kept until a client deletes it
         record     a BuildHistoryRecord
         status     its StatusResponses, length-prefixed and compressed
blobs    ref        the build that names it
         digest     of its content, ``sha256:…``
         data       further documents of the build: provenance, errors
"""

import asyncio
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence

from engine.common.system.sqlite import LazyDatabase
from server.builder.session.pb import control_pb2 as pb

STATUS_BYTES = 4 << 20
"""The most bytes of one build's status before compression; beyond it, output from the middle is dropped."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS builds (
    ref TEXT PRIMARY KEY, completed INTEGER NOT NULL, pinned INTEGER NOT NULL,
    record BLOB NOT NULL, status BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS blobs (
    ref TEXT NOT NULL, digest TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (ref, digest)
);
CREATE INDEX IF NOT EXISTS blobs_by_digest ON blobs (digest);
"""


def encode_log(messages: Sequence[pb.StatusResponse]) -> bytes:
    """Encode messages as one blob, BuildKit's ``application/vnd.buildkit.status.v0``. If there are too many, output
    from the middle is dropped; the first and last output, and all other messages, stay."""
    pieces = [message.SerializeToString() for message in messages]
    spare = sum(map(len, pieces)) - STATUS_BYTES
    middle = len(pieces) // 2
    # Drop from the middle outwards, so that the beginning and the end remain.
    for at in sorted(range(len(pieces)), key=lambda at: abs(at - middle)) if spare > 0 else ():
        if spare <= 0:
            break
        if messages[at].logs:
            spare -= len(pieces[at])
            pieces[at] = b""
    return b"".join(struct.pack("<I", len(piece)) + piece for piece in pieces if piece)


def decode_log(text: bytes) -> Iterable[pb.StatusResponse]:
    """Decode the messages of :func:`encode_log`."""
    at = 0
    while at < len(text):
        (length,) = struct.unpack_from("<I", text, at)
        yield pb.StatusResponse.FromString(text[at + 4 : at + 4 + length])
        at += 4 + length


class Records:
    """The database, opened on first use. Every method works off the loop."""

    def __init__(self, path: str) -> None:
        self._database = LazyDatabase(path, _SCHEMA)

    def close(self) -> None:
        """Close the database. Blocks."""
        self._database.close()

    async def all(self) -> list[pb.BuildHistoryRecord]:
        """Return every record, oldest first."""
        rows = await self._database.do(lambda db: db.execute("SELECT record FROM builds ORDER BY completed").fetchall())
        return [pb.BuildHistoryRecord.FromString(row[0]) for row in rows]

    async def put(self, record: pb.BuildHistoryRecord, log: bytes, blobs: Mapping[str, bytes]) -> None:
        """Add a build with its log (:func:`encode_log`) and the blobs that its record names."""
        ref, completed, pinned = record.Ref, record.CompletedAt.ToNanoseconds(), int(record.pinned)
        text = record.SerializeToString()

        def work(db: sqlite3.Connection) -> None:
            values = (ref, completed, pinned, text, zlib.compress(log, 1))
            db.execute("BEGIN")
            try:
                db.execute("INSERT OR REPLACE INTO builds VALUES (?, ?, ?, ?, ?)", values)
                rows = [(ref, digest, data) for digest, data in blobs.items()]
                db.executemany("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?)", rows)
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise

        await self._database.do(work)

    async def blob(self, digest: str) -> bytes | None:
        """Return a blob that a record names."""
        rows = await self._database.do(
            lambda db: db.execute("SELECT data FROM blobs WHERE digest = ? LIMIT 1", (digest,)).fetchall()
        )
        return bytes(rows[0][0]) if rows else None

    async def log(self, ref: str) -> bytes:
        """Return the log of a build; empty for an unknown build."""
        rows = await self._database.do(
            lambda db: db.execute("SELECT status FROM builds WHERE ref = ?", (ref,)).fetchall()
        )
        return await asyncio.to_thread(zlib.decompress, rows[0][0]) if rows else b""

    async def change(self, record: pb.BuildHistoryRecord) -> None:
        """Replace a record; its status stays."""
        values = (int(record.pinned), record.SerializeToString(), record.Ref)
        await self._database.do(lambda db: db.execute("UPDATE builds SET pinned = ?, record = ? WHERE ref = ?", values))

    async def status(self, ref: str) -> list[pb.StatusResponse]:
        """Return the status messages of a build; empty for an unknown build."""
        text = await self.log(ref)
        return await asyncio.to_thread(lambda: list(decode_log(text)))

    async def delete(self, refs: Sequence[str]) -> None:
        """Delete builds."""
        pairs = [(ref,) for ref in refs]
        await self._database.do(lambda db: db.executemany("DELETE FROM builds WHERE ref = ?", pairs))
        await self._database.do(lambda db: db.executemany("DELETE FROM blobs WHERE ref = ?", pairs))
