"""Compressed streams: detects the compression, decodes with bounded memory, and encodes.

gzip uses isal (several times zlib's speed), zstd uses zstandard, xz and bzip2 use the standard library. A decoder
returns at most ``CHUNK`` bytes per call, so a decompression bomb costs time but no memory.
"""

import struct
from collections.abc import Callable, Iterator
from enum import Enum
from typing import IO, Protocol, cast

from engine.common.errors import invalid

#: Plain bytes per piece. Large enough that Python's cost per piece is negligible, small enough to queue several.
CHUNK = 1 << 20
_READ = 256 << 10
#: The largest zstd window accepted (zstd's own limit without ``--long`` is 8 MiB, with it 128 MiB).
_ZSTD_WINDOW = 128 << 20
#: xz: the decoder's memory limit (``xz -9`` needs 65 MiB).
_XZ_MEMORY = 256 << 20

Read = Callable[[int], bytes]


class Compression(Enum):
    NONE = ""
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


_MAGIC = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
    (b"\xfd7zXZ\x00", Compression.XZ),
    (b"BZh", Compression.BZIP2),
)


def detect(head: bytes) -> Compression:
    """The compression by the first six bytes. A zstd stream may start with a skippable frame."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return Compression.ZSTD
    return Compression.NONE


class _Decoder(Protocol):
    """The interface of bz2's decoder, which isal and lzma share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _gzip() -> _Decoder:
    from isal import igzip_lib

    decoder: _Decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP, hist_bits=15)
    return decoder


def _xz() -> _Decoder:
    import lzma

    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


def _bzip2() -> _Decoder:
    import bz2

    return bz2.BZ2Decompressor()


def _members(read: Read, head: bytes, make: Callable[[], _Decoder], what: str) -> Iterator[bytes]:
    """Decodes the concatenated members of a gzip, xz or bzip2 stream. Allows zero padding between and after them."""
    data = head or read(_READ)
    if not data:
        raise invalid("unexpected EOF")
    while data:
        decoder = make()
        while not decoder.eof:
            try:
                plain = decoder.decompress(data, CHUNK)
            except Exception as error:  # each library has an error class of its own
                raise invalid(f"{what}: invalid data: {error}") from None
            data = b""
            if plain:
                yield plain
            if decoder.needs_input and not decoder.eof:
                data = read(_READ)
                if not data:
                    raise invalid("unexpected EOF")
        data = decoder.unused_data.lstrip(b"\0")
        while not data:
            more = read(_READ)
            if not more:
                return
            data = more.lstrip(b"\0")


class _Tailed:
    """A source with bytes put before and after it."""

    def __init__(self, head: bytes, read: Read, tail: bytes) -> None:
        self._head, self._read, self._tail = head, read, tail

    def read(self, size: int = -1) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        if data := self._read(size):
            return data
        piece, self._tail = self._tail[:size], self._tail[size:]
        return piece


def _zstd(read: Read, head: bytes) -> Iterator[bytes]:
    import zstandard

    # The zstd reader reports no error for a truncated frame. So append a known frame to the data: its content is
    # decoded last only if everything before it was complete. (A run of one byte is encoded as such, so the frame's
    # bytes never equal its content.)
    mark = b"\xa5" * 64
    source = _Tailed(head, read, zstandard.ZstdCompressor(level=1).compress(mark))
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    kept = b""
    with decoder.stream_reader(
        cast(IO[bytes], source), read_size=_READ, read_across_frames=True, closefd=False
    ) as reader:
        while True:
            try:
                plain = reader.read(CHUNK)
            except zstandard.ZstdError as error:
                if source.read(1) == b"":
                    raise invalid("unexpected EOF") from None
                raise invalid(f"zstd: invalid data: {error}") from None
            if not plain:
                break
            plain = kept + plain
            kept = plain[-len(mark) :]
            if len(plain) > len(mark):
                yield plain[: -len(mark)]
    if kept != mark:
        raise invalid("unexpected EOF")


def _plain(read: Read, head: bytes) -> Iterator[bytes]:
    if head:
        yield head
    while data := read(CHUNK):
        yield data


def decompressed(read: Read, *, kind: Compression | None = None) -> Iterator[bytes]:
    """Yields the plain bytes of a stream in pieces of at most ``CHUNK``.

    ``read(n)`` returns up to n bytes, b"" at the end. Without ``kind``, the stream's first bytes decide.

    :raises WharfError: INVALID_ARGUMENT for invalid data; "unexpected EOF" for truncated data.
    """
    head = b""
    while len(head) < 6 and (more := read(_READ)):
        head += more
    if kind is None:
        kind = detect(head)
    if kind is Compression.GZIP:
        return _members(read, head, _gzip, "gzip")
    if kind is Compression.ZSTD:
        return _zstd(read, head)
    if kind is Compression.XZ:
        return _members(read, head, _xz, "xz")
    if kind is Compression.BZIP2:
        return _members(read, head, _bzip2, "bzip2")
    return _plain(read, head)


class _Compressor(Protocol):
    def compress(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


class _Pass:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def compressor(kind: Compression) -> _Compressor:
    """A streaming encoder. The same input gives the same output: the header has no time and no name.

    :raises WharfError: INVALID_ARGUMENT for a kind that can only be read.
    """
    if kind is Compression.NONE:
        return _Pass()
    if kind is Compression.GZIP:
        from isal import isal_zlib

        # Level 2 of isal: about the size of zlib's level 3 at several times its speed.
        encoder: _Compressor = isal_zlib.compressobj(2, wbits=31)
        return encoder
    if kind is Compression.ZSTD:
        import zstandard

        made: _Compressor = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
        return made
    raise invalid(f"compression {kind.value!r} can't be written")


_STORED = 0xFFFF  # the largest stored block of deflate
_SAMPLE = 8 << 10
#: If samples shrink by less than this part, the data is stored uncompressed.
_GAIN = 0.04


def gzip_member(data: bytes) -> bytes:
    """The data as one member of a gzip stream (members may be concatenated, RFC 1952). Data that hardly compresses,
    judged by three samples, is stored, which takes a tenth of the time. The same data gives the same bytes."""
    from isal import isal_zlib

    if len(data) > 4 * _SAMPLE:
        places = (0, len(data) // 2, len(data) - _SAMPLE)
        sample = b"".join([data[at : at + _SAMPLE] for at in places])
        if len(isal_zlib.compress(sample, 1, wbits=-15)) > len(sample) * (1 - _GAIN):
            return _stored_member(data, isal_zlib.crc32(data))
    # Level 2 of isal: about the size of zlib's level 3 at several times its speed.
    packed: bytes = isal_zlib.compress(data, 2, wbits=31)
    return packed


def _stored_member(data: bytes, crc: int) -> bytes:
    parts: list[bytes | memoryview] = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff"]
    view = memoryview(data)
    for at in range(0, len(data), _STORED):
        block = view[at : at + _STORED]
        last = at + _STORED >= len(data)
        parts += (struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block)
    parts.append(struct.pack("<LL", crc, len(data) & 0xFFFFFFFF))
    return b"".join(parts)


def of_media_type(media_type: str) -> Compression | None:
    """The compression in a layer's media type; None: the media type doesn't tell, inspect the data."""
    kind = media_type.split(";", 1)[0].strip()
    if kind.endswith(("+zstd", ".zstd")):
        return Compression.ZSTD
    if kind.endswith(("+gzip", ".gzip")):
        return Compression.GZIP
    return None
