"""Finds the encoder that wrote a compressed blob, by encoding its plain bytes again and comparing.

A blob qualifies if one of a few encoders writes exactly its bytes: those of this engine, zlib at its nine levels (used
by Python, Java and many build tools), isal and zstd. Go's ``compress/gzip``, GNU gzip and pigz write other bytes, and
no library of their encoders exists here.

An encoder gets the plain bytes in pieces of equal size (``EqualPieces``), as its output may depend on them. An
encoder's name is stored; the same name must always mean the same encoder.
"""

import os
import struct
import zlib
from collections.abc import Callable
from typing import Protocol

from engine.common.errors import internal
from engine.common.layers.blob import EqualPieces
from engine.common.layers.compression import Compression, detect, gzip_member

_HEAD = 512  # a gzip header with a name; longer ones are not supported
_FEXTRA, _FNAME, _FCOMMENT, _FHCRC = 4, 8, 16, 2


class Encoder(Protocol):
    def compress(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


class _Members:
    """This engine's layers: one gzip member for each piece."""

    def compress(self, data: bytes) -> bytes:
        return gzip_member(data)

    def flush(self) -> bytes:
        return b""


class _Gzip:
    """One gzip member with a given header (RFC 1952) around a raw deflate stream."""

    def __init__(self, header: bytes, deflate: Encoder) -> None:
        self._header = header
        self._deflate = deflate
        self._crc = 0
        self._size = 0

    def compress(self, data: bytes) -> bytes:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        header, self._header = self._header, b""
        return header + self._deflate.compress(data)

    def flush(self) -> bytes:
        end = self._deflate.flush()
        return self._header + end + struct.pack("<LL", self._crc, self._size & 0xFFFFFFFF)


def _zlib(level: int) -> Encoder:
    encoder: Encoder = zlib.compressobj(level, zlib.DEFLATED, -15)
    return encoder


def _isal(level: int) -> Encoder:
    from isal import isal_zlib

    encoder: Encoder = isal_zlib.compressobj(level, wbits=-15)
    return encoder


def _zstd(level: int, *, checksum: bool) -> Encoder:
    import zstandard

    encoder: Encoder = zstandard.ZstdCompressor(level=level, write_checksum=checksum).compressobj()
    return encoder


def _gzip_header(head: bytes) -> bytes:
    """The header of the first member; b"" if ``head`` doesn't contain all of it."""
    if len(head) < 10:
        return b""
    flags, end = head[3], 10
    if flags & _FEXTRA:
        end += 2 + int.from_bytes(head[end : end + 2], "little")
    for flag in (_FNAME, _FCOMMENT):
        if flags & flag:
            end = head.find(b"\0", end) + 1
            if not end:
                return b""
    end += 2 if flags & _FHCRC else 0
    return head[:end] if end <= len(head) else b""


#: The slow levels last: most blobs need only the first.
_NAMES = {
    Compression.GZIP: (
        "members",
        *(f"isal-{level}" for level in range(4)),
        *(f"zlib-{level}" for level in range(1, 10)),
    ),
    Compression.ZSTD: tuple(f"{name}-{level}" for level in (3, 1, 6) for name in ("zstdcheck", "zstd")),
}


def encoder(name: str, header: bytes) -> Encoder:
    """The encoder of a stored name. ``header``: the blob's gzip header.

    :raises WharfError: INTERNAL: an unknown name.
    """
    if not any(name in names for names in _NAMES.values()):
        raise internal(f"unknown encoder {name!r}")
    kind, _, level = name.partition("-")
    if kind == "members":
        return _Members()
    if kind == "zlib":
        return _Gzip(header, _zlib(int(level)))
    if kind == "isal":
        return _Gzip(header, _isal(int(level)))
    return _zstd(int(level), checksum=kind == "zstdcheck")


class _Candidate:
    def __init__(self, name: str, header: bytes) -> None:
        self.name = name
        self._encoder = encoder(name, header)
        self._at = 0

    def matches(self, fd: int, data: bytes) -> bool:
        return self._compare(fd, self._encoder.compress(data))

    def ends(self, fd: int, size: int) -> bool:
        return self._compare(fd, self._encoder.flush()) and self._at == size

    def _compare(self, fd: int, data: bytes) -> bool:
        at, self._at = self._at, self._at + len(data)
        return not data or os.pread(fd, len(data), at) == data


class Unknown(Exception):
    """No encoder writes these bytes."""


class Finder:
    """Finds the encoder of the blob in ``fd``, whose plain bytes ``add`` gets. Most wrong encoders differ in their
    first bytes, so an unknown one costs little."""

    def __init__(self, fd: int, size: int, kind: Compression) -> None:
        self._fd = fd
        self._size = size
        self._pieces = EqualPieces()
        head = os.pread(fd, _HEAD, 0)
        self.header = _gzip_header(head) if kind is Compression.GZIP else b""
        self._left = [_Candidate(name, self.header) for name in _NAMES.get(kind, ())]

    def add(self, data: bytes) -> None:
        """:raises Unknown: no encoder writes the blob's bytes."""
        for piece in self._pieces.add(data):
            self._keep(lambda one, piece=piece: one.matches(self._fd, piece))  # type: ignore[misc]

    def finish(self) -> str:
        """The name of the encoder.

        :raises Unknown: no encoder writes the blob's bytes.
        """
        if rest := self._pieces.rest():
            self._keep(lambda one: one.matches(self._fd, rest))
        self._keep(lambda one: one.ends(self._fd, self._size))
        return self._left[0].name

    def _keep(self, fits: Callable[[_Candidate], bool]) -> None:
        self._left = [one for one in self._left if fits(one)]
        if not self._left:
            raise Unknown


def compression_of(fd: int) -> Compression:
    return detect(os.pread(fd, 8, 0))
