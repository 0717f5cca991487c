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
        if not self.chunked:
            return self._exactly(received)
        parts = []
        while not self.done and received:
            if self._in_chunk:
                parts.append(self._exactly(received))
                if self._left:
                    break
                self._in_chunk = False
                self._left = -1
            elif self._left == -1:
                # The line break behind a chunk.
                if not self._line_end(received):
                    break
                self._left = 0
            elif not self._size_or_trailer(received):
                break
        return b"".join(parts)

    def _exactly(self, received: bytearray) -> bytes:
        count = min(self._left, len(received))
        data = bytes(memoryview(received)[:count])
        del received[:count]
        self._left -= count
        if not self.chunked and self._left == 0:
            self.done = True
        return data

    def _line(self, received: bytearray) -> bytes | None:
        end = received.find(b"\n")
        if end < 0:
            if len(received) > _MAX_LINE:
                raise BadFraming("line too long")
            return None
        line = bytes(memoryview(received)[:end])
        del received[: end + 1]
        return line.rstrip(b"\r")

    def _line_end(self, received: bytearray) -> bool:
        line = self._line(received)
        if line:
            raise BadFraming("malformed chunked encoding")
        return line is not None

    def _size_or_trailer(self, received: bytearray) -> bool:
        line = self._line(received)
        if line is None:
            return False
        if self._in_trailer:
            self.done = not line
            return True
        size = line.partition(b";")[0].strip()
        if not size or len(size) > 15 or not all(char in b"0123456789abcdefABCDEF" for char in size):
            raise BadFraming("malformed chunked encoding")
        self._left = int(size, 16)
        self._in_chunk = self._left > 0
        self._in_trailer = self._left == 0
        return True
