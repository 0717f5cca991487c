"""Where one HTTP/1.1 message ends and the next bytes begin.

The parser under uvicorn can't tell: it takes everything behind ``Connection: Upgrade`` for the new protocol, the
body of ``POST /exec/{id}/start`` included, and reads on into whatever a client sends after a request that will be
hijacked. So the bytes are framed here, and the parser sees one head at a time.
"""

from collections.abc import Iterable

# As Go's server: generous for X-Registry-Config, an end to nonsense.
MAX_HEAD = 1024 * 1024
_MAX_LINE = 4096


class BadFraming(Exception):
    """The message can't be delimited: the connection is of no further use."""


def head_end(received: bytearray, start: int = 0) -> int:
    """The offset behind the blank line of a head, or -1 if it isn't complete."""
    full = received.find(b"\r\n\r\n", start)
    bare = received.find(b"\n\n", start)
    if full < 0:
        return bare + 2 if bare >= 0 else -1
    return full + 4 if bare < 0 or full < bare else bare + 2


class Body:
    """The body of one message: takes its own bytes from the front of a buffer, leaves the rest."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """:raises BadFraming: contradicting or unknown framing (which is how requests are smuggled)."""
        lengths = {value.strip() for name, value in headers if name == b"content-length"}
        codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
        self.chunked = bool(codings)
        self._left = 0
        self._in_chunk = False
        self._in_trailer = False
        if codings and (codings != [b"chunked"] or lengths):
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
            self.done = not line
            return
        if self._in_chunk:
            if line:
                raise BadFraming("malformed chunked encoding")
            self._in_chunk = False
            return
        size = line.partition(b";")[0].strip()
        if not size or len(size) > 15 or size.strip(b"0123456789abcdefABCDEF"):
            raise BadFraming("malformed chunked encoding")
        self._left = int(size, 16)
        self._in_chunk = self._left > 0
        self._in_trailer = self._left == 0


def _line(view: memoryview, start: int) -> tuple[bytes, int]:
    """A line without its end, and where the next begins: -1 if it isn't whole yet."""
    window = bytes(view[start : start + 32])
    end = window.find(b"\n")
    if end < 0:
        window = bytes(view[start : start + _MAX_LINE + 2])
        end = window.find(b"\n")
    if end < 0:
        if len(window) > _MAX_LINE:
            raise BadFraming("line too long")
        return b"", -1
    return window[:end].rstrip(b"\r"), start + end + 1
