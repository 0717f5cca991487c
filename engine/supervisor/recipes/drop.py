"""Replaces blobs of unpacked layers by recipes, in the background, one at a time: see the package's docstring."""

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from engine.api.labels import UNCOMPRESSED
from engine.api.types import SnapshotKind
from engine.common.errors import WharfError
from engine.common.files.writing import sync_directory
from engine.common.layers import recipe
from engine.common.layers.chain import chain_id
from engine.supervisor.blobs import BlobFiles
from engine.supervisor.recipes import sources
from engine.supervisor.recipes.recreate import Stopped, TreeOf, rebuild
from engine.supervisor.store import labels as json_labels
from engine.supervisor.store.database import Database

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds from a change of the blobs to a pass: a pull changes many.
_DELAY = 2.0
#: Smaller blobs are kept: a recipe takes at least 2 KiB, and a file.
_SMALLEST = 64 << 10

#: Blobs without a decision, of which the plain digest is known.
_UNDECIDED = """
SELECT content.namespace, content.digest, content.labels FROM content
JOIN blob ON blob.digest = content.digest
LEFT JOIN recipe ON recipe.digest = content.digest
WHERE recipe.digest IS NULL AND blob.size >= :smallest AND content.labels LIKE :label
"""

#: Layers that are on the disk and from which no blob is re-created.
_LAYERS = """
SELECT snapshot.namespace, snapshot.snapshotter, snapshot.number, snapshot.key, snapshot.parent FROM snapshot
WHERE snapshot.kind = :committed
AND NOT EXISTS (SELECT 1 FROM unsettled WHERE unsettled.number = snapshot.number)
AND NOT EXISTS (SELECT 1 FROM recipe WHERE recipe.snapshot = snapshot.number)
"""


@dataclass(frozen=True, slots=True)
class _Layer:
    digest: str
    snapshotter: str
    number: int


class Dropper:
    """``schedule`` starts a pass over all layers a little later."""

    def __init__(
        self,
        database: Database,
        files: BlobFiles,
        snapshotters: Collection[str],
        tree_of: TreeOf,
        on_dropped: Callable[[str], None],
    ) -> None:
        """``snapshotters``: those whose trees are known. ``on_dropped`` gets the digest of each dropped blob."""
        self._db = database
        self._snapshotters = snapshotters
        self._files = files
        self._tree_of = tree_of
        self._on_dropped = on_dropped
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="drop-blobs")
        self._stop = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def schedule(self) -> None:
        if self._task is not None:
            self._again = True
        elif self._timer is None and not self._stop.is_set():
            self._timer = asyncio.get_running_loop().call_later(_DELAY, self._start)

    async def close(self) -> None:
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._worker.shutdown(wait=False)

    def _start(self) -> None:
        self._timer = None
        self._task = asyncio.create_task(self._run(), name="drop blobs")

    async def _run(self) -> None:
        try:
            await self.run()
        except Stopped:
            pass
        except Exception:
            log.exception("content: blobs can't be dropped now")
        finally:
            self._task = None
        if self._again:
            self._again = False
            self.schedule()

    async def run(self) -> None:
        """One pass."""
        for layer in await self._db.scan(lambda connection: _find(connection, self._snapshotters)):
            await self._drop(layer)

    async def _drop(self, layer: _Layer) -> None:
        tree = self._tree_of(layer.snapshotter, layer.number)
        try:
            stored = await self._in_thread(lambda: self._record(layer, tree))
        except recipe.NotReproducible as reason:
            log.info("content: %s is kept: %s", layer.digest, reason)
            await self._db.write(lambda connection: sources.insert(connection, layer.digest, None, 0))
            return
        except (WharfError, OSError) as error:
            # Removed meanwhile, or no space: the next pass tries it again.
            log.warning("content: %s is kept for now: %s", layer.digest, error)
            return

        def insert(connection: sqlite3.Connection) -> bool:
            # The collector may have removed the blob with its recipe, and another write have stored it anew.
            there = os.path.exists(self._files.recipe(layer.digest))
            if there and sources.insert(connection, layer.digest, layer.number, stored):
                return True
            self._files.discard_recipe(layer.digest)
            return False

        def discard(connection: sqlite3.Connection) -> None:
            # Another write may have removed the blob, and have stored it anew.
            if sources.source(connection, layer.digest) is not None:
                self._files.discard(layer.digest)

        if not await self._db.write(insert):
            return
        await self._db.sync()
        await self._db.write(discard, then=lambda _: self._on_dropped(layer.digest), frees=True)
        await asyncio.to_thread(self._files.empty_trash)
        log.info("content: %s is re-created from now on; its recipe has %d bytes", layer.digest, stored)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _record(self, layer: _Layer, tree: str) -> int:
        """Steps 1 to 3 of the package's docstring; returns the size of the recipe."""
        path = self._files.recipe(layer.digest)
        made = f"{path}.new"
        blob = self._files.open(layer.digest)
        try:
            out = os.open(made, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                recipe.record(blob, tree, out, check=self._check)
                os.fsync(out)
                stored = os.fstat(out).st_size
            finally:
                os.close(out)
            os.rename(made, path)
            sync_directory(os.path.dirname(path))
            try:
                rebuild(self._files, layer.digest, tree, lambda _: self._check())
            except WharfError as error:
                raise recipe.NotReproducible(error.message) from None
            return stored
        except BaseException:
            for name in (made, path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
            raise
        finally:
            os.close(blob)


def _find(connection: sqlite3.Connection, snapshotters: Collection[str]) -> list[_Layer]:
    """The layers whose blobs are undecided. A layer's snapshot has its chain id as key (OCI image specification,
    ``config.md``, "Layer ChainID"); a snapshot with another key is no layer of an image."""
    blobs: dict[str, dict[str, str]] = {}  # namespace → diff id → digest
    bindings = {"smallest": _SMALLEST, "label": f"%{UNCOMPRESSED}%"}
    for namespace, digest, labels in connection.execute(_UNDECIDED, bindings):
        diff_id = json_labels.load(labels).get(UNCOMPRESSED, "")
        blobs.setdefault(namespace, {})[diff_id] = digest
    if not blobs:
        return []
    found: dict[str, _Layer] = {}
    rows = connection.execute(_LAYERS, {"committed": SnapshotKind.COMMITTED.value})
    for namespace, snapshotter, number, key, parent in rows:
        if snapshotter not in snapshotters:
            continue
        for diff_id, digest in blobs.get(namespace, {}).items():
            if digest not in found and key == chain_id(parent, diff_id):
                found[digest] = _Layer(digest, snapshotter, number)
    return list(found.values())
