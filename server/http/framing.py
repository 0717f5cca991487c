"""Where one HTTP/1.1 message ends and the next bytes begin.

The parser under uvicorn can't tell: it takes everything behind ``Connection: Upgrade`` for the new protocol, the
body of ``POST /exec/{id}/start`` included, and reads on into whatever a client sends after a request that will be
hijacked. So the bytes are framed here, and the parser sees one head at a time.
"""

import re
from collections.abc import Iterable

import httptools

# As Go's server: DefaultMaxHeaderBytes and the 4 KiB that it reads beyond. ``docker build`` sends build arguments in
# the query, and credentials in X-Registry-Config.
MAX_HEAD = (1 << 20) + 4096
# Bytes of one line between chunks, of all lines of a trailer, and of what may stand between chunks beyond 16 bytes
# each and twice the data (as Go counts it: each chunk costs more to read than its data is worth).
_MAX_LINE = 4096
_MAX_TRAILER = 64 * 1024
_MAX_EXCESS = 16 * 1024

# RFC 9112, section 3: one space each, and a version that is served. The parser also takes HTTP/0.9 and 2.0.
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~\x80-\xff]+ HTTP/1\.[01]\r\n")
# The bytes that Go's server takes in a Host header.
_HOST = re.compile(rb"[0-9A-Za-z!$%&()*+,\-.:;=\[\]'_~]*")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*")


class BadFraming(Exception):
    """The message can't be delimited: the connection is of no further use."""


def head_end(received: bytearray, start: int = 0) -> int:
    """The offset behind the blank line of a head, or -1 if it isn't complete."""
    full = received.find(b"\r\n\r\n", start)
    bare = received.find(b"\n\n", start)
    if full < 0:
        return bare + 2 if bare >= 0 else -1
    return full + 4 if bare < 0 or full < bare else bare + 2


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """The path and the query of a request's target, whose characters the parser has checked.

    ``httptools.parse_url`` takes no more than 65,535 bytes, so that it sees neither queries nor plain paths.

    :raises HttpParserInvalidURLError: it is neither a path nor a URL.
    """
    target = target.partition(b"#")[0]
    path, _, query = target.partition(b"?")
    if not path.startswith(b"/"):
        path = httptools.parse_url(path).path or b"/"
    return path, query


def check_head(head: bytes) -> None:
    """:raises BadFraming: the first line is no request of HTTP/1."""
    if _REQUEST_LINE.match(head) is None:
        raise BadFraming("malformed request line")


def check_host(version: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """:raises BadFraming: no Host header, two, or one that is no host: what stands before us may have read another."""
    hosts = [value for name, value in headers if name == b"host"]
    if version == "1.1" and not hosts:
        raise BadFraming("missing required Host header")
    if len(hosts) > 1:
        raise BadFraming("too many Host headers")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise BadFraming("malformed Host header")


class Body:
    """The body of one message: takes its own bytes from the front of a buffer, leaves the rest."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], version: str = "1.1") -> None:
        """:raises BadFraming: contradicting or unknown framing (which is how requests are smuggled)."""
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
        """The body's bytes that are there; sets ``done`` when it is complete.

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
        """The body's bytes in ``view``, where they lie, and how much of it was understood: a line that is not whole
        is to be shown again with what follows.

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
        """What stands between the chunks: the end of one, the size of the next, the trailer."""
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
    """A line without its end, and where the next begins: -1 if it isn't whole yet.

    :raises BadFraming: it is too long, or ends with a bare LF or has a bare CR, where another reader may see two lines.
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
