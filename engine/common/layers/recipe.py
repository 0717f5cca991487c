"""A recipe: what re-creates a layer's blob, byte for byte, from the tree into which the layer was unpacked.

A layer's blob is a tar archive, possibly compressed. Its headers and padding, and the data that the tree lacks, are
stored as they are; the other data is stored as ranges of the tree's files. ``record`` compares every range with the
blob, so that a recipe describes its blob whatever the tree is; ``rebuild`` checks no digest: its caller must.

The file is one line of JSON, then a zstd stream of records::

    {"version": 1, "size": bytes of the blob, "encoder": name, "header": hex}
    L <u32 length> <bytes>                                               these bytes
    F <u16 length> <path> <u64 offset> <u64 length>                      a range of a file
    E                                                                    the end

``encoder`` and ``header`` are those of ``engine.common.layers.encoders``; no encoder means a plain tar.
"""

import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from engine.common.errors import WharfError, internal
from engine.common.files.paths import open_file
from engine.common.files.writing import write_all
from engine.common.layers import encoders, streams
from engine.common.layers import header as tar
from engine.common.layers.blob import EqualPieces
from engine.common.layers.compression import CHUNK, Compression, decompressed
from engine.common.layers.header import Header
from engine.common.layers.tarread import TarReader

#: Files up to this size are stored: a range would take as many bytes.
_SMALL = 128
#: A stored piece's maximum, and the range that is read at once.
_PIECE = 1 << 20
_PATH_MAX = 4096
_LINE_MAX = 2 << 10
_LITERAL, _FILE, _END = b"L", b"F", b"E"
_RANGE = struct.Struct("<QQ")

Check = Callable[[], None]


class NotReproducible(Exception):
    """The blob can't be re-created, or a recipe would save little. The text is the reason."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first line of a recipe."""

    size: int
    encoder: str
    header: bytes

    def line(self) -> bytes:
        words = {"version": 1, "size": self.size, "encoder": self.encoder, "header": self.header.hex()}
        return json.dumps(words).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Head":
        """:raises WharfError: INTERNAL: damaged."""
        try:
            words = json.loads(line)
            if words["version"] != 1:
                raise internal(f"the recipe has version {words['version']}, this version knows 1")
            header = bytes.fromhex(words["header"])
            return cls(int(words["size"]), str(words["encoder"]), header)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _damaged() from None


def differs() -> WharfError:
    """The error for bytes that aren't the blob's."""
    return internal("other bytes came out: its snapshot was changed, or an encoder's library was")


def _damaged() -> WharfError:
    return internal("the recipe is damaged")


# recording


class _Records:
    """Writes records to a file, compressed, with adjacent ones merged."""

    def __init__(self, fd: int, limit: int) -> None:
        import zstandard

        self._fd = fd
        self._encoder = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
        self._limit = limit
        self._literal = bytearray()
        self._range: tuple[bytes, int, int] | None = None
        self.size = 0

    def literal(self, data: bytes | memoryview) -> None:
        self._end_range()
        self._literal += data
        while len(self._literal) >= _PIECE:
            self._put_literal(bytes(self._literal[:_PIECE]))
            del self._literal[:_PIECE]

    def range(self, path: bytes, offset: int, length: int) -> None:
        if self._range is not None:
            before, start, done = self._range
            if before == path and start + done == offset:
                self._range = (path, start, done + length)
                return
            self._end_range()
        self._end_literal()
        self._range = (path, offset, length)

    def finish(self) -> None:
        self._end_range()
        self._end_literal()
        self._put(self._encoder.compress(_END) + self._encoder.flush())

    def _end_range(self) -> None:
        if self._range is not None:
            path, offset, length = self._range
            self._range = None
            record = b"".join((_FILE, struct.pack("<H", len(path)), path, _RANGE.pack(offset, length)))
            self._put(self._encoder.compress(record))

    def _end_literal(self) -> None:
        if self._literal:
            self._put_literal(bytes(self._literal))
            self._literal.clear()

    def _put_literal(self, data: bytes) -> None:
        self._put(self._encoder.compress(_LITERAL + struct.pack("<L", len(data)) + data))

    def _put(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._limit:
            raise NotReproducible("its files are not in the snapshot, or hardly compress less than the recipe")
        write_all(self._fd, data)


class _Split(streams.Pieces):
    """The archive as ``TarReader`` reads it: what it reads or skips is recorded; what it passes on is not."""

    def __init__(self, pieces: Iterator[bytes], records: _Records) -> None:
        super().__init__(pieces)
        self._records = records

    def read(self, size: int) -> bytes:
        data = super().read(size)
        self._records.literal(data)
        return data

    def copy(self, size: int, write: streams.Write | None) -> None:
        super().copy(size, self._records.literal if write is None else write)

    def drain(self) -> None:
        while self.read(CHUNK):
            pass


def record(blob: int, tree: str, out: int, *, check: Check) -> None:
    """Writes the recipe of the layer in the descriptor ``blob`` to the descriptor ``out``. ``tree``: the directory of
    the layer's files. ``check`` is called once per MiB, and may raise to stop. Blocks.

    :raises NotReproducible: nothing of the file is then valid.
    :raises WharfError: INVALID_ARGUMENT: no valid archive.
    """
    size = os.fstat(blob).st_size
    kind = encoders.compression_of(blob)
    finder = encoders.Finder(blob, size, kind) if kind is not Compression.NONE else None
    # The line is written when the encoder is known, so leave its place.
    os.lseek(out, _LINE_MAX, os.SEEK_SET)
    records = _Records(out, size // 2)
    os.lseek(blob, 0, os.SEEK_SET)

    def plain() -> Iterator[bytes]:
        for piece in decompressed(lambda count: os.read(blob, count), kind=kind):
            check()
            if finder is not None:
                finder.add(piece)
            yield piece

    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reader = TarReader(_Split(plain(), records))
        for entry in reader:
            if entry.type == tar.REGULAR and entry.stored > _SMALL:
                _compare(entry, reader, root, records)
        reader.stream.drain()
        records.finish()
        name = finder.finish() if finder is not None else ""
    except encoders.Unknown:
        raise NotReproducible("no known encoder writes its bytes") from None
    finally:
        os.close(root)
    line = Head(size, name, finder.header if finder is not None else b"").line()
    if len(line) > _LINE_MAX:
        raise NotReproducible("its gzip header is too long")
    os.pwrite(out, line.rstrip(b"\n").ljust(_LINE_MAX - 1) + b"\n", 0)


def _compare(entry: Header, reader: TarReader, root: int, records: _Records) -> None:
    """Records the entry's data: as ranges of its file where they are equal."""
    path = os.fsencode(entry.name)
    try:
        if len(path) > _PATH_MAX:
            return
        fd = open_file(root, entry.name)
    except (OSError, ValueError):
        return  # replaced by a later entry, or by a whiteout: its data is stored
    try:
        fragments = iter(entry.sparse if entry.sparse is not None else ((0, entry.size),))
        at = left = 0

        def take(view: memoryview) -> None:
            nonlocal at, left
            while view:
                while not left:
                    at, left = next(fragments)
                part = bytes(view[: min(left, _PIECE)])
                if os.pread(fd, len(part), at) == part:
                    records.range(path, at, len(part))
                else:
                    records.literal(part)
                at += len(part)
                left -= len(part)
                view = view[len(part) :]

        reader.copy(take)
    finally:
        os.close(fd)


# re-creating


def read_head(recipe: int) -> Head:
    """:raises WharfError: INTERNAL: damaged, or of a later version."""
    return Head.from_line(os.pread(recipe, _LINE_MAX, 0))


def rebuild(recipe: int, tree: str, write: Callable[[bytes], object]) -> None:
    """Passes the bytes of the blob to ``write``, which may raise to stop. The caller must verify their digest before it
    uses them. Blocks.

    :raises WharfError: INTERNAL: the recipe is damaged, or the tree lacks a file.
    """
    head = read_head(recipe)
    made = 0

    def put(data: bytes) -> None:
        nonlocal made
        made += len(data)
        if made > head.size:
            raise differs()
        if data:
            write(data)

    with closing(_Files(tree)) as files:
        plain = _archive(recipe, files)
        if not head.encoder:
            for piece in plain:
                put(piece)
            return
        encoder = encoders.encoder(head.encoder, head.header)
        pieces = EqualPieces()
        for data in plain:
            for piece in pieces.add(data):
                put(encoder.compress(piece))
        if rest := pieces.rest():
            put(encoder.compress(rest))
        put(encoder.flush())


def _archive(recipe: int, files: "_Files") -> Iterator[bytes]:
    """The bytes of the plain archive."""
    at = _LINE_MAX

    def read(size: int) -> bytes:
        nonlocal at
        data = os.pread(recipe, size, at)
        at += len(data)
        return data

    try:
        stream = streams.Pieces(decompressed(read, kind=Compression.ZSTD))
        while (kind := _exactly(stream, 1)) != _END:
            if kind == _LITERAL:
                length = int.from_bytes(_exactly(stream, 4), "little")
                if length > _PIECE:
                    raise _damaged()
                yield _exactly(stream, length)
            elif kind == _FILE:
                length = int.from_bytes(_exactly(stream, 2), "little")
                path = _exactly(stream, length)
                yield from files.read(path, *_RANGE.unpack(_exactly(stream, _RANGE.size)))
            else:
                raise _damaged()
    except WharfError as error:
        raise internal(error.message) from None


def _exactly(stream: streams.Pieces, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise _damaged()
    return data


class _Files:
    """Reads ranges of the tree's files. The tree is an unpacked archive, so its links are hostile."""

    def __init__(self, tree: str) -> None:
        try:
            self._root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise internal(f"{tree}: {(error.strerror or '').lower()}") from None

    def close(self) -> None:
        os.close(self._root)

    def read(self, path: bytes, offset: int, length: int) -> Iterator[bytes]:
        name = os.fsdecode(path)
        try:
            fd = open_file(self._root, name)
        except (OSError, ValueError) as error:
            raise _unreadable(name, error) from None
        try:
            while length:
                try:
                    data = os.pread(fd, min(length, _PIECE), offset)
                except (OSError, OverflowError) as error:
                    raise _unreadable(name, error) from None
                if not data:
                    raise internal(f"{name!r} of its snapshot was truncated")
                yield data
                offset += len(data)
                length -= len(data)
        finally:
            os.close(fd)


def _unreadable(name: str, error: Exception) -> WharfError:
    reason = error.strerror if isinstance(error, OSError) else None
    return internal(f"{name!r} of its snapshot: {(reason or str(error)).lower()}")
