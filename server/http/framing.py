"""Finds the end of an HTTP/1.1 message.

uvicorn's parser can't: it takes everything after ``Connection: Upgrade`` for the new protocol, including the body of
``POST /exec/{id}/start``, and parses whatever a client sends after a request that will be hijacked. So the bytes are
framed here, and the parser gets one head at a time.
"""

import re
from collections.abc import Iterable, Sequence

import httptools

# Go's server: DefaultMaxHeaderBytes and the 4 KiB that it reads beyond. ``docker build`` sends build arguments in the
# query, and credentials in X-Registry-Config.
MAX_HEAD = (1 << 20) + 4096
# Bytes of one line between chunks, of all lines of a trailer, and of all bytes between chunks beyond 16 each and twice
# the data (Go's rule: a chunk must not cost more to read than its data).
_MAX_LINE = 4096
_MAX_TRAILER = 64 * 1024
_MAX_EXCESS = 16 * 1024

# RFC 9112, section 3: single spaces and a supported version. The parser also accepts HTTP/0.9 and 2.0.
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~\x80-\xff]+ HTTP/1\.[01]\r\n")
# The bytes that Go's server accepts in a Host header.
_HOST = re.compile(rb"[0-9A-Za-z!$%&()*+,\-.:;=\[\]'_~]*")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*")


class BadFraming(Exception):
    """The message has no valid end: the connection can't be used further."""


def head_end(received: bytearray, start: int = 0) -> int:
    """The offset after the blank line of a head, or -1 if it is incomplete."""
    full = received.find(b"\r\n\r\n", start)
    bare = received.find(b"\n\n", start)
    if full < 0:
        return bare + 2 if bare >= 0 else -1
    return full + 4 if bare < 0 or full < bare else bare + 2


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """The path and the query of a request's target, whose characters the parser has checked.

    ``httptools.parse_url`` is limited to 65,535 bytes, so it gets neither queries nor plain paths.

    :raises HttpParserInvalidURLError: the target is neither a path nor a URL.
    """
    target = target.partition(b"#")[0]
    path, _, query = target.partition(b"?")
    if not path.startswith(b"/"):
        path = httptools.parse_url(path).path or b"/"
    return path, query


def check_head(head: bytes) -> None:
    """Checks the request line.

    :raises BadFraming: it is not a request of HTTP/1.
    """
    if _REQUEST_LINE.match(head) is None:
        raise BadFraming("malformed request line")


def check_host(version: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Checks the Host header.

    :raises BadFraming: it is missing, repeated or malformed: a proxy may have read another host.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if version == "1.1" and not hosts:
        raise BadFraming("missing required Host header")
    if len(hosts) > 1:
        raise BadFraming("too many Host headers")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise BadFraming("malformed Host header")


class Body:
    """The body of one message: removes its own bytes from the front of a buffer, and leaves the rest."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], version: str = "1.1") -> None:
        """Reads the framing headers.

        :raises BadFraming: contradicting or unknown framing (request smuggling).
        """
        lengths = {value.strip() for name, value in headers if name == b"content-length"}
        codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
        self.chunked = bool(codings)
        self._left = 0
        self._in_chunk = False
        self._in_trailer = False
        self._excess = 0
        self._trailer = 0
        if codings and (codings != [b"chunked"] or lengths or version == "1.0"):
            raise BadFraming("unsupported transfer encoding")
        if len(lengths) > 1 or any(not value.isdigit() or len(value) > 18 for value in lengths):
            raise BadFraming("bad Content-Length")
        if lengths:
            self._left = int(lengths.pop())
        self.done = not self.chunked and self._left == 0

    def take(self, received: bytearray) -> bytes:
        """Returns the body's available bytes; sets ``done`` when it is complete.

        :raises BadFraming: a malformed chunk.
        """
        with memoryview(received) as view:
            parts, used = self.split(view)
            data = b"".join(parts)
            for part in parts:
                part.release()
        del received[:used]
        return data

    def split(self, view: memoryview) -> tuple[list[memoryview], int]:
        """The body's bytes in ``view``, without a copy, and the number of bytes consumed: an incomplete line must be
        passed again with the following bytes.

        :raises BadFraming: a malformed chunk.
        """
        parts: list[memoryview] = []
        at = 0
        while not self.done and at < len(view):
            if self._left > 0:
                count = min(self._left, len(view) - at)
                parts.append(view[at : at + count])
                at += count
                self._left -= count
                if not self.chunked:
                    self.done = self._left == 0
                continue
            line, after = _line(view, at)
            if after < 0:
                break
            at = after
            self._chunk_line(line)
        return parts, at

    def _chunk_line(self, line: bytes) -> None:
        """Parses a line between chunks: the end of one, the size of the next, the trailer."""
        if self._in_trailer:
            self._trailer += len(line) + 2
            if line and (_TRAILER.fullmatch(line) is None or self._trailer > _MAX_TRAILER):
                raise BadFraming("malformed trailer")
            self.done = not line
            return
        if self._in_chunk:
            if line:
                raise BadFraming("malformed chunked encoding")
            self._in_chunk = False
            return
        size = line.partition(b";")[0].rstrip(b" \t")
        if not size or len(size) > 15 or size.strip(b"0123456789abcdefABCDEF"):
            raise BadFraming("malformed chunked encoding")
        self._left = int(size, 16)
        self._in_chunk = self._left > 0
        self._in_trailer = self._left == 0
        self._excess = max(0, self._excess + len(line) + 2 - 16 - 2 * self._left)
        if self._excess > _MAX_EXCESS:
            raise BadFraming("chunked encoding contains too much non-data")


def _line(view: memoryview, start: int) -> tuple[bytes, int]:
    """A line without its end, and the offset of the next one: -1 if it is incomplete.

    :raises BadFraming: it is too long, or has a bare LF or CR, which another reader may take for a line end.
    """
    window = bytes(view[start : start + 32])
    end = window.find(b"\n")
    if end < 0:
        window = bytes(view[start : start + _MAX_LINE + 2])
        end = window.find(b"\n")
    if end < 0:
        if len(window) > _MAX_LINE:
            raise BadFraming("line too long")
        return b"", -1
    line = window[:end]
    if not line.endswith(b"\r") or b"\r" in line[:-1]:
        raise BadFraming("bare CR or LF in chunked encoding")
    return line[:-1], start + end + 1


def plausible(received: bytes | bytearray) -> bool:
    """Whether these first bytes can become a request: a first line in ASCII that starts with a method."""
    line, newline, _ = bytes(received[:4096]).partition(b"\n")
    if not line[:1].isalpha() or any(byte < 0x20 and byte not in b"\r\t" for byte in line):
        return False
    return b" HTTP/" in line if newline else b" " in line[:32] or len(line) < 32


def requested_upgrade(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The protocol that the client requests, in lower case, or ""."""
    connection = b",".join(value for name, value in headers if name == b"connection").lower()
    if b"upgrade" not in (token.strip() for token in connection.split(b",")):
        return ""
    requested = [value for name, value in headers if name == b"upgrade"]
    return requested[0].decode("latin-1").strip().lower() if requested else ""
