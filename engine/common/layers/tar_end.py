"""Finds the end of a tar archive in a stream: bytes that a sender appends after it need not be stored."""

from engine.common.errors import WharfError
from engine.common.layers import header as tar
from engine.common.layers.tarread import number, pax_records, verify_checksum

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_PAX_LIMIT = 1 << 20


class TarEnd:
    """Receives the pieces of an uncompressed archive and returns how much of each belongs to it.

    It parses only what locates the next header. If a header is ambiguous, everything after it counts as archive.
    """

    def __init__(self) -> None:
        self._skip = 0  # bytes until the next header
        self._block = b""  # the start of a header that was split between two pieces
        self._pax: bytearray | None = None  # the pax records being read
        self._pax_size = 0
        self._size: int | None = None  # the size that pax records give for the next entry
        self._more = 0  # of an old sparse file: the data bytes after its extension headers
        self._zeros = False  # one block of the end-of-archive mark was read
        self._lost = False
        self.ended = False

    def archive_bytes(self, piece: bytes | memoryview) -> int:
        """The number of bytes of the next piece, from its start, that belong to the archive."""
        if self.ended:
            return 0
        view, at = memoryview(piece), 0
        while at < len(view) and not self._lost:
            if self._skip:
                step = min(self._skip, len(view) - at)
                if self._pax is not None:
                    self._pax += view[at : at + step]
                self._skip -= step
                at += step
                continue
            if self._pax is not None and not self._records():
                break
            missing = _BLOCK - len(self._block)
            self._block += view[at : at + missing]
            at += missing
            if at > len(view):
                break
            block, self._block = self._block, b""
            if block == _ZEROS and not self._more:
                if self._zeros:
                    self.ended = True
                    return at
                self._zeros = True
            elif self._zeros or not self._entry(block):
                self._lost = True
        return len(view)

    def _entry(self, block: bytes) -> bool:
        """Locates the next header. False if the block is not a header."""
        if self._more:
            if not block[504]:
                self._skip, self._more = self._more - 1, 0
            return True
        try:
            verify_checksum(block)
            size = number(block[124:136])
        except WharfError:
            return False
        kind = block[156:157]
        if kind == b"x":
            self._pax, self._pax_size = bytearray(), size
            if not 0 <= size <= _PAX_LIMIT:
                return False
        elif kind not in b"gLK":
            size, self._size = size if self._size is None else self._size, None
            if kind in (tar.HARDLINK, tar.SYMLINK, tar.CHAR, tar.BLOCK, tar.DIRECTORY, b"6"):
                size = 0  # whatever the size field contains
        if size < 0:
            return False
        size += -size % _BLOCK
        if kind == b"S" and block[482]:
            self._more = size + 1
        else:
            self._skip = size
        return True

    def _records(self) -> bool:
        """Parses complete pax records. False if they are malformed."""
        data, self._pax = bytes(self._pax or b"")[: self._pax_size], None
        try:
            found = pax_records(data)
            if "size" in found:
                self._size = int(found["size"])
        except (WharfError, ValueError):
            self._lost = True
        return not self._lost
