"""GELF 1.1: a JSON object per line, compressed and chunked over UDP, terminated by a zero byte over TCP."""

import json
import os
import socket
import zlib
from collections.abc import Callable, Iterator

from engine.shim.logs.remote.delivery import Delivery
from engine.shim.logs.remote.encoder import Part, Settings
from engine.shim.logs.remote.sockets import Datagrams, Stream, resolve
from engine.shim.loop import Loop

_ERROR, _INFO = 3, 6
# The payload of one chunk: 12 bytes of header precede it, and all fits into an Ethernet frame.
_CHUNK = 1420
_HEAD = 12
_MAX_CHUNKS = 128


class Gelf:
    """``pack`` compresses a message's JSON; ``chunked`` for datagrams."""

    def __init__(self, hostname: str, fields: dict[str, str], pack: Callable[[bytes], bytes], *, chunked: bool) -> None:
        self._begin = {"version": "1.1", "host": hostname}
        self._rest = json.dumps(fields, ensure_ascii=False)[1:].encode() if fields else b"}"
        self._pack = pack
        self._chunked = chunked

    def encode(self, stream: str, line: bytes, now_ns: int, part: Part | None) -> Iterator[bytes]:
        if not line:
            return
        message = {
            **self._begin,
            "short_message": line.decode(errors="replace"),
            "timestamp": now_ns // 1_000_000 / 1000,
            "level": _ERROR if stream == "stderr" else _INFO,
        }
        text = json.dumps(message, ensure_ascii=False)[:-1].encode()
        data = self._pack(text + (b", " if len(self._rest) > 1 else b"") + self._rest)
        if not self._chunked or len(data) <= _CHUNK:
            yield data
            return
        size = _CHUNK - _HEAD
        count = -(-len(data) // size)
        if count > _MAX_CHUNKS:
            return
        identity = os.urandom(8)
        for number in range(count):
            head = b"\x1e\x0f" + identity + bytes((number, count))
            yield head + data[number * size : (number + 1) * size]


def _packer(kind: str, level: int) -> Callable[[bytes], bytes]:
    if kind == "none":
        return lambda data: data
    window = 15 if kind == "zlib" else 31

    def pack(data: bytes) -> bytes:
        packer = zlib.compressobj(level, zlib.DEFLATED, window)
        return packer.compress(data) + packer.flush()

    return pack


def make(settings: Settings, loop: Loop) -> tuple[Gelf, Delivery]:
    """``scheme`` (``udp``, ``tcp``), ``host``, ``port``, ``hostname``, ``fields`` (with their underscores),
    ``compression``, ``level``, ``attempts``, ``delay`` (seconds).

    :raises OSError: the name has no address.
    """
    udp = settings.text("scheme") == "udp"
    pack = (
        _packer(settings.text("compression", "gzip"), settings.number("level", 1)) if udp else lambda data: data + b"\0"
    )
    encoder = Gelf(settings.text("hostname"), settings.strings("fields"), pack, chunked=udp)
    host, port = settings.text("host"), settings.number("port", 12201)
    if udp:
        found = resolve(host, port, socket.SOCK_DGRAM)
        return encoder, Datagrams(loop, found, limit=settings.limit, waits=settings.waits)
    return encoder, Stream(
        loop,
        resolve(host, port, socket.SOCK_STREAM),
        limit=settings.limit,
        waits=settings.waits,
        retry=max(0.1, settings.number("delay", 1)),
        patient=True,
        # The first attempt is not a reconnect.
        attempts=settings.number("attempts", 3) + 1,
    )


def unreachable(_settings: Settings, place: str, text: str) -> str:
    return f"gelf: cannot connect to GELF endpoint: {place} {text}"
