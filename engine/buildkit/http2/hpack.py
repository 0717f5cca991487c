"""HPACK (RFC 7541): the header blocks of HTTP/2. What is written here needs no state: plain literals only."""

from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import pairwise

Header = tuple[str, str]

TABLE = 4096
"""The dynamic table's size, in bytes: the protocol's default, which is never changed here."""
_OVERHEAD = 32

_NAMES = """accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control
content-disposition content-encoding content-language content-length content-location content-range content-type cookie
date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified
link location max-forwards proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie
strict-transport-security transfer-encoding user-agent vary via www-authenticate""".split()  # noqa: SIM905
_STATIC: tuple[Header, ...] = (
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    *((":status", code) for code in ("200", "204", "206", "304", "400", "404", "500")),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    *((name, "") for name in _NAMES),
)
_WHOLE = {header: bytes([0x80 | number]) for number, header in enumerate(_STATIC, 1) if header[1]}

# Appendix B: how long each symbol's code is, the end of a string last. The code is canonical, so that is all of it.
_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b080606060505050606060606"
    "060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606060507070606060506"
    "070605050607070707070f0b0e0d1c141614141616161716171717171718171818161718171717171516171617171816151416161717151716"
    "161815171717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b141814"
    "15161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
_END = 256


class Malformed(Exception):
    """A header block that can't be read: nothing that follows on the connection can, either."""


@cache
def _symbols() -> tuple[dict[str, int], tuple[int, ...]]:
    """Huffman's code, symbols by their bits, and the lengths that occur."""
    order = sorted(range(len(_LENGTHS)), key=lambda symbol: (_LENGTHS[symbol], symbol))
    codes, code = {}, 0
    for symbol, after in pairwise([*order, order[-1]]):
        codes[f"{code:0{_LENGTHS[symbol]}b}"] = symbol
        code = (code + 1) << (_LENGTHS[after] - _LENGTHS[symbol])
    return codes, tuple(sorted(set(_LENGTHS)))


@lru_cache(512)
def _unpacked(data: bytes) -> str:
    """A string in Huffman's code. Raises :class:`Malformed`."""
    if not data:
        return ""
    codes, lengths = _symbols()
    bits = f"{int.from_bytes(data):0{8 * len(data)}b}"
    found, at = bytearray(), 0
    while at < len(bits):
        for length in lengths:
            symbol = codes.get(bits[at : at + length])
            if symbol is not None:
                break
        else:
            # The last byte is filled with ones.
            if len(bits) - at < 8 and "0" not in bits[at:]:
                break
            raise Malformed("Huffman code")
        if symbol == _END:
            raise Malformed("end of string inside a string")
        found.append(symbol)
        at += length
    return found.decode("latin-1")


class Decoder:
    """Reads the header blocks of one connection, in their order."""

    def __init__(self) -> None:
        self._dynamic: list[Header] = []  # the newest first
        self._size, self._limit = 0, TABLE

    def decode(self, block: bytes) -> list[Header]:
        """The headers of a block. Raises :class:`Malformed`."""
        try:
            return self._decode(block)
        except IndexError:
            raise Malformed("header block ends early") from None

    def _decode(self, block: bytes) -> list[Header]:
        found: list[Header] = []
        at = 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                number, at = _integer(block, at, 7)
                found.append(self._entry(number))
            elif first & 0xE0 == 0x20:
                limit, at = _integer(block, at, 5)
                if limit > TABLE:
                    raise Malformed("table larger than allowed")
                self._limit = limit
                self._evict()
            else:
                kept = first & 0xC0 == 0x40
                number, at = _integer(block, at, 6 if kept else 4)
                if number:
                    name = self._entry(number)[0]
                else:
                    name, at = _string(block, at)
                value, at = _string(block, at)
                found.append((name, value))
                if kept:
                    self._dynamic.insert(0, (name, value))
                    self._size += _OVERHEAD + len(name) + len(value)
                    self._evict()
        return found

    def _entry(self, number: int) -> Header:
        if not number:
            raise Malformed("index 0")
        if number <= len(_STATIC):
            return _STATIC[number - 1]
        return self._dynamic[number - len(_STATIC) - 1]

    def _evict(self) -> None:
        while self._size > self._limit:
            name, value = self._dynamic.pop()
            self._size -= _OVERHEAD + len(name) + len(value)


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """An integer whose first byte has ``prefix`` bits of it, and where it ends."""
    full = (1 << prefix) - 1
    value = block[at] & full
    at += 1
    if value < full:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
        if shift > 28:
            raise Malformed("integer too large")


def _string(block: bytes, at: int) -> tuple[str, int]:
    packed = block[at] & 0x80
    length, at = _integer(block, at, 7)
    data = block[at : at + length]
    if len(data) != length:
        raise Malformed("string ends early")
    return (_unpacked(data) if packed else data.decode("latin-1")), at + length


def _length(value: int) -> bytes:
    if value < 127:
        return bytes([value])
    found, value = bytearray(b"\x7f"), value - 127
    while value >= 128:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def encode(headers: Iterable[Header]) -> bytes:
    """A block that any decoder reads without remembering anything."""
    pieces: list[bytes] = []
    for header in headers:
        whole = _WHOLE.get(header)
        if whole is not None:
            pieces.append(whole)
            continue
        name, value = (text.encode() for text in header)
        pieces += (b"\0", _length(len(name)), name, _length(len(value)), value)
    return b"".join(pieces)
