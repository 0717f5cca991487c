"""Writes a layer's blob: archive, compressed pieces and digests, each in its own thread."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from engine.common.layers.compression import Compression, compressor, gzip_member
from engine.common.layers.tarwrite import TarWriter

#: Plain bytes per step. A fixed size: the same archive gives the same blob however its bytes arrive.
PIECE = 1 << 20
_COMPRESSING = 2  # threads
_AHEAD = 6  # queued steps


@dataclass(frozen=True, slots=True)
class Written:
    """A written layer blob: its digest and size, and the digest of the plain tar."""

    digest: str
    size: int
    diff_id: str


class _Steps:
    """The threads of one blob: one hashes the plain bytes, some compress, one writes and hashes the blob."""

    def __init__(self) -> None:
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="layer-hash")
        self._compressing = ThreadPoolExecutor(_COMPRESSING, thread_name_prefix="layer-pack")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="layer-out")
        self._pending: deque[tuple[Future[None], Future[None]]] = deque()

    def add(
        self,
        piece: bytes,
        *,
        hash: Callable[[bytes], None],
        pack: Callable[[bytes], bytes],
        write: Callable[[bytes], None],
    ) -> None:
        """Starts the steps of one piece; waits if ``_AHEAD`` pieces are under way.

        :raises Exception: the first error of an earlier piece.
        """
        hashed = self._hashing.submit(hash, piece)
        packed = self._compressing.submit(pack, piece)
        written = self._writing.submit(lambda: write(packed.result()))
        self._pending.append((hashed, written))
        if len(self._pending) > _AHEAD:
            self._wait()

    def _wait(self) -> None:
        for future in self._pending.popleft():
            future.result()

    def finish(self) -> None:
        """Waits for all steps; raises the first error of a step."""
        while self._pending:
            self._wait()
        for pool in (self._hashing, self._compressing, self._writing):
            pool.shutdown(wait=False)


class EqualPieces:
    """Collects bytes into pieces of exactly ``PIECE``; ``rest`` returns the last one, which may be shorter."""

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self._held = 0

    def add(self, data: bytes) -> Iterator[bytes]:
        if self._held == 0 and len(data) == PIECE:
            yield data
            return
        view = memoryview(data)
        while view:
            part = view[: PIECE - self._held]
            view = view[len(part) :]
            self._parts.append(part)
            self._held += len(part)
            if self._held == PIECE:
                yield self.rest()

    def rest(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        return data


class LayerWriter:
    """Compresses the archive, hashes plain and compressed bytes, and passes the blob on. ``finish`` returns the
    digests.

    For a large layer, ``out`` is called in another thread. ``hashed``: ``out`` hashes the blob itself, and this
    function returns the blob's digest at the end.
    """

    def __init__(
        self, out: Callable[[bytes], object], compression: Compression, *, hashed: Callable[[], str] | None = None
    ) -> None:
        self._out = out
        self._hashed = hashed
        self._plain_is_blob = compression is Compression.NONE
        # gzip: members of one piece each, which several threads compress in parallel. Other kinds use one encoder.
        self._encoder = None if compression is Compression.GZIP else compressor(compression)
        self._plain = hashlib.sha256()
        self._blob = hashlib.sha256()
        self._size = 0
        self._pieces = EqualPieces()
        self._steps: _Steps | None = None
        self.tar = TarWriter(self._take)

    def _take(self, data: bytes) -> None:
        for piece in self._pieces.add(data):
            self._add(piece)

    def _add(self, piece: bytes) -> None:
        if self._steps is None:
            self._steps = _Steps()
        self._steps.add(piece, hash=self._plain.update, pack=self._pack, write=self._write)

    def _pack(self, piece: bytes) -> bytes:
        return gzip_member(piece) if self._encoder is None else piece

    def _write(self, data: bytes) -> None:
        if self._encoder is not None:
            data = self._encoder.compress(data)
        self._put(data)

    def _put(self, data: bytes) -> None:
        if data:
            if self._hashed is None and not self._plain_is_blob:
                self._blob.update(data)
            self._size += len(data)
            self._out(data)

    def finish(self) -> Written:
        self.tar.close()
        if last := self._pieces.rest():
            if self._steps is None:  # a small layer: threads would cost more time than they save
                self._plain.update(last)
                self._write(self._pack(last))
            else:
                self._add(last)
        if self._steps is not None:
            self._steps.finish()
        if self._encoder is not None:
            self._put(self._encoder.flush())
        plain = f"sha256:{self._plain.hexdigest()}"
        if self._hashed is not None:
            blob = self._hashed()
        else:
            blob = plain if self._plain_is_blob else f"sha256:{self._blob.hexdigest()}"
        return Written(blob, self._size, plain)
