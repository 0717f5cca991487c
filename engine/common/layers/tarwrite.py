"""The only writer of tar archives: layers, saved images, exported and copied files.

Headers are ustar; an entry gets a pax header only where ustar can't represent it (long or non-ASCII names, large
numbers, fractions of a second, extended attributes), so that the same tree always gives the same bytes.

Measured with 20,000 small files: 4.9 µs for each; ``tarfile`` takes 24 µs.
"""

import os
from collections.abc import Callable
from dataclasses import replace

from engine.common.layers import header as tar
from engine.common.layers.header import Header

_BLOCK = 512
_PADDING = bytes(_BLOCK)
_OCTAL_SIZE = 1 << 33  # eleven octal digits
_OCTAL_ID = 1 << 21  # seven
_LARGE = 256 << 10

Out = Callable[[bytes], object]


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def _record(key: str, value: bytes) -> bytes:
    body = b" " + os.fsencode(key) + b"=" + value + b"\n"
    length = len(body)
    while length != len(str(length)) + len(body):
        length = len(str(length)) + len(body)
    return b"%d" % length + body


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """(prefix, name) of ustar; None if it does not fit."""
    if len(name) <= 100:
        return b"", name
    if len(name) > 256:
        return None
    cut = name.rfind(b"/", 0, min(156, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > 100:
        return None
    return name[:cut], name[cut + 1 :]


def _block(entry: Header, prefix: bytes, name: bytes, link: bytes) -> bytes:
    device = entry.type in (tar.CHAR, tar.BLOCK)
    parts = b"".join(
        (
            name.ljust(100, b"\0"),
            _octal(entry.mode & 0o7777, 8),
            _octal(entry.uid, 8),
            _octal(entry.gid, 8),
            _octal(entry.size, 12),
            _octal(max(0, entry.mtime_ns // 1_000_000_000), 12),
            b"        ",
            entry.type,
            link.ljust(100, b"\0"),
            b"ustar\x0000",
            os.fsencode(entry.uname).ljust(32, b"\0"),
            os.fsencode(entry.gname).ljust(32, b"\0"),
            _octal(entry.devmajor if device else 0, 8),
            _octal(entry.devminor if device else 0, 8),
            prefix.ljust(167, b"\0"),
        )
    )
    return parts[:148] + b"%06o\0 " % sum(parts) + parts[156:]


# The block after the link's name, for an entry without user name, group name, device numbers and prefix.
_REST = b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
_REST_SUM = sum(_REST) + sum(b"        ")


def _simple(entry: Header) -> bytes | None:
    """The block of most entries, which need only ustar's numbers and a short name; None if the entry needs more."""
    name = os.fsencode(entry.name)
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    if (
        fraction
        or len(name) > 99
        or not 0 <= seconds < _OCTAL_SIZE
        or not 0 <= entry.size < _OCTAL_SIZE
        or not (0 <= entry.uid < _OCTAL_ID and 0 <= entry.gid < _OCTAL_ID)
        or entry.xattrs
        or entry.linkname
        or entry.uname
        or entry.gname
        or entry.type not in (tar.REGULAR, tar.DIRECTORY)
        or not name.isascii()
    ):
        return None
    if entry.type == tar.DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (entry.mode & 0o7777, entry.uid, entry.gid, entry.size, seconds)
    checksum = sum(name) + sum(numbers) + entry.type[0] + _REST_SUM
    return name.ljust(100, b"\0") + numbers + b"%06o\0 " % checksum + entry.type + bytes(100) + _REST


def encode(entry: Header) -> bytes:
    """The entry's header blocks. ``size`` bytes of data and the padding to a block must follow."""
    return _simple(entry) or _full(entry)


def _full(entry: Header) -> bytes:
    records: list[bytes] = []
    fields: dict[str, int | str] = {}
    name = os.fsencode(entry.name)
    if entry.type == tar.DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    split = _split(name) if name.isascii() else None
    if split is None:
        records.append(_record("path", name))
        split = b"", name[:100]
    link = os.fsencode(entry.linkname)
    if len(link) > 100 or not link.isascii():
        records.append(_record("linkpath", link))
        link = link[:100]
    if not 0 <= entry.size < _OCTAL_SIZE:
        records.append(_record("size", b"%d" % entry.size))
        fields["size"] = 0
    for key in ("uid", "gid"):
        value = getattr(entry, key)
        if value >= _OCTAL_ID:
            records.append(_record(key, b"%d" % value))
            fields[key] = 0
    for key in ("uname", "gname"):
        text = os.fsencode(getattr(entry, key))
        if len(text) > 31 or not text.isascii():
            records.append(_record(key, text))
            fields[key] = ""
    for key in ("devmajor", "devminor"):
        if getattr(entry, key) >= _OCTAL_ID:
            records.append(_record(f"SCHILY.{key}", b"%d" % getattr(entry, key)))
            fields[key] = 0
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    if fraction or not 0 <= seconds < _OCTAL_SIZE:
        records.append(_record("mtime", _seconds(entry.mtime_ns)))
        if seconds >= _OCTAL_SIZE:
            fields["mtime_ns"] = 0
    records += [_record(tar.XATTR + key, entry.xattrs[key]) for key in sorted(entry.xattrs)]
    if not records:
        return _block(entry, *split, link)
    body = b"".join(records)
    base = name.rstrip(b"/").rpartition(b"/")[2][:80]
    extra = Header(name="", type=b"x", mode=0o644, size=len(body))
    return b"".join(
        (
            _block(extra, b"", b"PaxHeaders.0/" + base, b""),
            body,
            bytes(-len(body) % _BLOCK),
            _block(replace(entry, **fields) if fields else entry, *split, link),  # type: ignore[arg-type]
        )
    )


def _seconds(ns: int) -> bytes:
    sign = "-" if ns < 0 else ""
    whole, fraction = divmod(abs(ns), 1_000_000_000)
    text = f"{sign}{whole}"
    return (f"{text}.{fraction:09d}".rstrip("0") if fraction else text).encode()


class TarWriter:
    """Writes entries through ``out``. Gathers small pieces, so that ``out`` gets few large ones."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._pending: list[bytes] = []
        self._held = 0
        self.size = 0  # bytes written so far

    def _write(self, data: bytes) -> None:
        if len(data) >= _LARGE:  # large enough: don't copy it
            self.size += len(data)
            self.flush()
            self._out(data)
            return
        self._pending.append(data)
        self._held += len(data)
        self.size += len(data)
        if self._held >= 1 << 20:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self._out(self._pending[0] if len(self._pending) == 1 else b"".join(self._pending))
            self._pending.clear()
            self._held = 0

    def add(self, entry: Header, data: bytes | memoryview = b"") -> None:
        """Adds an entry with its whole data; sets ``entry.size`` from it for a regular file."""
        body = bytes(data)
        if entry.type == tar.REGULAR:
            entry.size = len(body)
        self._write(encode(entry))
        if body:
            self._write(body)
            self._write(_PADDING[: -len(body) % _BLOCK])

    def add_file(self, entry: Header, fd: int) -> None:
        """Adds a regular file of exactly ``entry.size`` bytes from ``fd``. If the file shrinks meanwhile, zeros fill
        the rest; if it grows, the rest is cut: the header is written already, and the archive must stay valid."""
        self._write(encode(entry))
        left = entry.size
        while left:
            data = os.read(fd, min(left, 1 << 20))
            if not data:
                data = bytes(min(left, 1 << 20))
            self._write(data)
            left -= len(data)
        if entry.size % _BLOCK:
            self._write(_PADDING[: -entry.size % _BLOCK])

    def begin(self, entry: Header) -> None:
        """Writes the header of an entry whose data the caller passes to ``data`` in pieces, completed by ``end``."""
        self._write(encode(entry))

    def data(self, piece: bytes) -> None:
        self._write(piece)

    def end(self, size: int) -> None:
        """Pads the data of ``size`` bytes."""
        self._write(_PADDING[: -size % _BLOCK])

    def close(self) -> None:
        """Writes the end-of-archive mark. Without it (an error), readers detect a truncated archive."""
        self._write(_PADDING)
        self._write(_PADDING)
        self.flush()
