"""The blob of a layer as it is written: archive, compressed pieces, digests, each in a thread of its own."""

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from engine.common.layers.compression import Compression, compressor, gzip_member
from engine.common.layers.tarwrite import TarWriter

#: Plain bytes of one step. Fixed, so that the same archive gives the same blob however it came in pieces.
_PIECE = 1 << 20
_COMPRESSING = 2  # threads
_AHEAD = 6  # steps under way


@dataclass(frozen=True, slots=True)
class Written:
    """A layer's blob as it was written: its own digest and size, and the digest of the plain tar."""

    digest: str
    size: int
    diff_id: str
    plain_size: int


class _Steps:
    """The threads of one blob: one hashes the plain bytes, some compress, one hashes the blob and passes it on."""

    def __init__(self) -> None:
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="layer-hash")
        self._compressing = ThreadPoolExecutor(_COMPRESSING, thread_name_prefix="layer-pack")
        self._giving = ThreadPoolExecutor(1, thread_name_prefix="layer-out")
        self._pending: deque[tuple[Future[None], Future[None]]] = deque()

    def add(
        self, piece: bytes, hash: Callable[[bytes], None], pack: Callable[[bytes], bytes], give: Callable[[bytes], None]
    ) -> None:
        hashed = self._hashing.submit(hash, piece)
        packed = self._compressing.submit(pack, piece)
        given = self._giving.submit(lambda: give(packed.result()))
        self._pending.append((hashed, given))
        if len(self._pending) > _AHEAD:
            self._wait()

    def _wait(self) -> None:
        for future in self._pending.popleft():
            future.result()

    def finish(self) -> None:
        """Everything has been given; raises what a step raised."""
        while self._pending:
            self._wait()
        for pool in (self._hashing, self._compressing, self._giving):
            pool.shutdown(wait=False)


class LayerWriter:
    """Compresses, hashes both sides, and passes the blob on. ``finish`` tells what it was.

    ``out`` is called in another thread when the layer is large. ``hashed``: ``out`` hashes the blob itself and this
    gives its digest at the end.
    """

    def __init__(
        self, out: Callable[[bytes], object], compression: Compression, *, hashed: Callable[[], str] | None = None
    ) -> None:
        self._out = out
        self._hashed = hashed
        self._plain_is_blob = compression is Compression.NONE
        # gzip: members of one piece each, which several threads make at once. Other kinds go through one encoder.
        self._encoder = None if compression is Compression.GZIP else compressor(compression)
        self._plain = hashlib.sha256()
        self._blob = hashlib.sha256()
        self._size = 0
        self._plain_size = 0
        self._parts: list[bytes | memoryview] = []
        self._held = 0
        self._steps: _Steps | None = None
        self.tar = TarWriter(self._take)

    def _take(self, data: bytes) -> None:
        self._plain_size += len(data)
        if self._held == 0 and len(data) == _PIECE:
            self._add(data)
            return
        view = memoryview(data)
        while view:
            part = view[: _PIECE - self._held]
            view = view[len(part) :]
            self._parts.append(part)
            self._held += len(part)
            if self._held == _PIECE:
                self._add(self._gathered())

    def _gathered(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        return data

    def _add(self, piece: bytes) -> None:
        if self._steps is None:
            self._steps = _Steps()
        self._steps.add(piece, self._plain.update, self._pack, self._give)

    def _pack(self, piece: bytes) -> bytes:
        return gzip_member(piece) if self._encoder is None else piece

    def _give(self, data: bytes) -> None:
        if self._encoder is not None:
            data = self._encoder.compress(data)
        self._pass(data)

    def _pass(self, data: bytes) -> None:
        if data:
            if self._hashed is None and not self._plain_is_blob:
                self._blob.update(data)
            self._size += len(data)
            self._out(data)

    def finish(self) -> Written:
        self.tar.close()
        if self._held:
            last = self._gathered()
            if self._steps is None:  # a small layer: threads would cost more than they give
                self._plain.update(last)
                self._give(self._pack(last))
            else:
                self._add(last)
        if self._steps is not None:
            self._steps.finish()
        if self._encoder is not None:
            self._pass(self._encoder.flush())
        plain = f"sha256:{self._plain.hexdigest()}"
        if self._hashed is not None:
            blob = self._hashed()
        else:
            blob = plain if self._plain_is_blob else f"sha256:{self._blob.hexdigest()}"
        return Written(blob, self._size, plain, self._plain_size)
