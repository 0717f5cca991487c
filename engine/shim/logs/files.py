"""Log drivers that write files: ``json-file`` and ``local``, in Docker's own formats.

Each read is encoded at once with ``bytes.replace`` (a Python loop over the lines would make the log the container's
bottleneck); therefore the lines of one read share their time stamp.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping

from engine.shim import varint
from engine.shim.logs.driver import Lines, Mark, NeverLagging
from engine.shim.logs.rotate import LogFile

_SPECIAL = re.compile(rb'[\x00-\x09\x0b-\x1f"\\<>&]')


def _escape_of(byte: int) -> bytes:
    if byte == 0x5C:
        return b"\\\\"
    if byte == 0x22:
        return b'\\"'
    if byte == 0x0D:
        return b"\\r"
    return b"\\u%04x" % byte


# The backslash first: the other escapes contain one.
_ESCAPES = [
    (bytes([byte]), _escape_of(byte)) for byte in (0x5C, *range(0x0A), *range(0x0B, 0x20), 0x22, 0x26, 0x3C, 0x3E)
]
_ESCAPE_OF = dict(_ESCAPES)
#: Up to this size, one search for special characters is faster than one search per character.
_SHORT = 128
# Replaces question marks while "?" marks an invalid UTF-8 byte. By then no control character is left.
_QUESTION = b"\x01"
_INVALID = b"\\ufffd"


def escape(data: bytes) -> bytes:
    """The content of a JSON string as dockerd writes it (encoding/json with HTML escaping; ``\\ufffd`` for each byte
    that is not UTF-8), except newlines, which are kept."""
    if len(data) <= _SHORT:
        data = _SPECIAL.sub(lambda match: _ESCAPE_OF[match[0]], data)
    else:
        for byte, replacement in _ESCAPES:
            data = data.replace(byte, replacement)
    return data if data.isascii() else _escape_unicode(data)


def _escape_unicode(data: bytes) -> bytes:
    """Escapes the non-ASCII characters of text whose ASCII characters are escaped."""
    try:
        data.decode()
    except UnicodeDecodeError:
        # Both error handlers run in C, byte by byte, as Go's decoder does. A Python handler, called for every invalid
        # sequence, took four times as long for binary output.
        data = data.replace(b"?", _QUESTION).decode("utf-8", "surrogateescape").encode("utf-8", "replace")
        data = data.replace(b"?", _INVALID).replace(_QUESTION, b"?")
    if b"\xe2\x80" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return data


class Timestamps:
    """RFC 3339 with nanoseconds in UTC, without trailing zeros, as Go's RFC3339Nano."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def format(self, now_ns: int) -> bytes:
        second, nanos = divmod(now_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
        return f"{self._text}{fraction}Z".encode()


class _FileLog(NeverLagging):
    """The common part of the two file drivers: splitting, rotation."""

    def __init__(self, file: LogFile) -> None:
        self.file = file
        self._lines: dict[str, Lines] = {}

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        lines = self._lines.get(stream)
        if lines is None:
            lines = self._lines[stream] = Lines()
        for block, whole in lines.cut(data):
            self._block(stream, block, now_ns, whole=whole)

    def mark(self) -> Mark:
        rest = {stream: lines.unfinished.hex() for stream, lines in self._lines.items()}
        return {"size": self.file.size, "rest": rest}

    def open_reader(self) -> int:
        return self.file.open_reader()

    def finish(self, stream: str, now_ns: int) -> None:
        lines = self._lines.pop(stream, None)
        if lines is not None and (rest := lines.rest()):
            # An unfinished last line stays without its newline, as in dockerd.
            self._block(stream, rest, now_ns, whole=False)

    def _block(self, stream: str, block: bytes, now_ns: int, *, whole: bool) -> None:
        raise NotImplementedError

    def _records(self, records: Iterator[bytes]) -> None:
        """Writes whole records, many at a time: a file is full with the record that reaches its size."""
        batch: list[bytes] = []
        remaining = self.file.remaining()
        for record in records:
            if remaining <= 0:
                if batch:
                    self.file.append(b"".join(batch))
                    batch.clear()
                self.file.rotate()
                remaining = self.file.remaining()
            batch.append(record)
            remaining -= len(record)
        self.file.append(b"".join(batch))

    def close(self) -> None:
        self.file.close()


class JsonFile(_FileLog):
    """``json-file``: ``{"log":"…\\n","stream":"stdout","attrs":{…},"time":"…"}``, one per line."""

    def __init__(self, file: LogFile, attributes: Mapping[str, str]) -> None:
        super().__init__(file)
        self._times = Timestamps()
        text = json.dumps(dict(sorted(attributes.items())), separators=(",", ":"), ensure_ascii=False)
        attrs = f',"attrs":{text}' if attributes else ""
        self._middle = {name: f'"stream":"{name}"{attrs},"time":"'.encode() for name in ("stdout", "stderr")}

    def _block(self, stream: str, block: bytes, now_ns: int, *, whole: bool) -> None:
        after = b'",' + self._middle[stream] + self._times.format(now_ns) + b'"}\n'
        text = escape(block)
        if not whole:
            self._records(iter((b'{"log":"' + text + after,)))
            return
        after = b"\\n" + after
        lines = text.count(b"\n")
        if len(text) + lines * (len(after) + 7) < self.file.remaining():
            encoded = (b'{"log":"' + text).replace(b"\n", after + b'{"log":"')
            self.file.append(encoded[: -len(b'{"log":"')])
            return
        self._records(b'{"log":"' + line + after for line in text[:-1].split(b"\n"))


class Local(_FileLog):
    """``local``: a protobuf LogEntry between two copies of its length (4 bytes, big-endian)."""

    def __init__(self, file: LogFile) -> None:
        super().__init__(file)
        file.whole = _whole_frames
        self._part: dict[str, tuple[str, int]] = {}

    def _block(self, stream: str, block: bytes, now_ns: int, *, whole: bool) -> None:
        if not whole:
            self._records(iter((self._partial(stream, block, now_ns, final=False),)))
            return
        lines = block[:-1].split(b"\n")
        if stream in self._part:
            self._records(iter((self._partial(stream, lines.pop(0), now_ns, final=True),)))
        head = b"\x0a" + varint.encode(len(stream)) + stream.encode() + b"\x10" + varint.encode(now_ns) + b"\x1a"
        self._records(_framed(head + varint.encode(len(line)) + line) for line in lines)

    def _partial(self, stream: str, line: bytes, now_ns: int, *, final: bool) -> bytes:
        identity, ordinal = self._part.get(stream, (f"{now_ns:064x}", 0))
        ordinal += 1
        if final:
            del self._part[stream]
        else:
            self._part[stream] = (identity, ordinal)
        return _framed(entry(stream, line, now_ns, (identity, ordinal, final)))


def entry(stream: str, line: bytes, now_ns: int, part: tuple[str, int, bool] | None) -> bytes:
    """A LogEntry. ``part``: the long line's id, the piece's number in it, whether it is the last piece."""
    message = b"\x0a" + varint.encode(len(stream)) + stream.encode() + b"\x10" + varint.encode(now_ns)
    message += b"\x1a" + varint.encode(len(line)) + line
    if part is None:
        return message
    identity, ordinal, last = part
    metadata = b"\x08\x01" if last else b""
    metadata += b"\x12" + varint.encode(len(identity)) + identity.encode() + b"\x18" + varint.encode(ordinal)
    return message + b"\x20\x01\x2a" + varint.encode(len(metadata)) + metadata


def _framed(record: bytes) -> bytes:
    size = len(record).to_bytes(4, "big")
    return size + record + size


def _whole_frames(data: bytes) -> int:
    """The number of bytes that are complete frames of ``local``."""
    at = 0
    while at + 4 <= len(data) and (after := at + 8 + int.from_bytes(data[at : at + 4], "big")) <= len(data):
        at = after
    return at
