"""What lists show of images' documents, in the database: a daemon that was restarted need not read them again.

The documents of a target never change, so neither do these records. They exist while a name refers to the target.
"""

import logging
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from engine.api.types import Descriptor, Platform
from engine.common.errors import WharfError
from server.store.database import Database

log = logging.getLogger(__name__)

#: The form of the documents; those of another one are ignored and replaced.
_FORM = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What lists need of an image's documents. ``created_ns``: None if the config has no valid time. ``chains``: the
    chain ids of all layers, the lowest first."""

    platform: Platform
    created_ns: int | None
    labels: Mapping[str, str]
    chains: tuple[str, ...]

    def unpacked(self, layers: Mapping[str, int]) -> int:
        """The size of all layers; 0 if not all of them are unpacked. ``layers``: the sizes of unpacked layers."""
        if not self.chains or self.chains[-1] not in layers:  # the last one exists only if the others do
            return 0
        return sum(layers.get(chain, 0) for chain in self.chains)


@dataclass(slots=True)
class Known:
    """What the documents of a target contain, by the digest of each index or manifest: what it refers to, and the facts
    of an image."""

    children: dict[str, tuple[Descriptor, ...]] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.children) + len(self.facts)

    def to_doc(self) -> bytes:
        children = {
            digest: [
                (each.media_type, each.digest, each.size, each.annotations, _platform_words(each.platform))
                for each in found
            ]
            for digest, found in self.children.items()
        }
        facts = {
            digest: (_platform_words(each.platform), each.created_ns, each.labels, each.chains)
            for digest, each in self.facts.items()
        }
        return orjson.dumps((_FORM, children, facts))

    @classmethod
    def from_doc(cls, document: bytes) -> "Known":
        """Nothing is known from a document of another form."""
        form, *rest = orjson.loads(document)
        if form != _FORM:
            return cls()
        children, facts = rest
        return cls(
            {
                digest: tuple(
                    Descriptor(media_type, name, size, annotations, Platform(*words) if words else None)
                    for media_type, name, size, annotations, words in found
                )
                for digest, found in children.items()
            },
            {
                digest: Facts(Platform(*words), created_ns, labels, tuple(chains))
                for digest, (words, created_ns, labels, chains) in facts.items()
            },
        )


def _platform_words(platform: Platform | None) -> Sequence[str] | None:
    return (platform.os, platform.architecture, platform.variant) if platform is not None else None


class KnownStore:
    """The records by the digests of the targets. A database that can't be written makes lists slower, not wrong: that
    is logged."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> dict[str, Known]:
        def read(connection: sqlite3.Connection) -> dict[str, Known]:
            rows = connection.execute("SELECT id, doc FROM image_documents")
            return {digest: Known.from_doc(document) for digest, document in rows}

        return await self._database.read(read)

    async def put(self, records: Mapping[str, Known]) -> None:
        rows = [(digest, known.to_doc()) for digest, known in records.items()]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO image_documents (id, doc) VALUES (?, ?)", rows)

        await self._write(write)

    async def delete(self, digests: Collection[str]) -> None:
        rows = [(digest,) for digest in digests]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM image_documents WHERE id = ?", rows)

        await self._write(write, frees=True)

    async def _write(self, work: Callable[[sqlite3.Connection], None], *, frees: bool = False) -> None:
        try:
            await self._database.write(work, frees=frees)
        except (WharfError, sqlite3.Error) as error:
            log.warning("can't record images' documents: %s", error)
