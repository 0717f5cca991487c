"""journald's native protocol: a datagram of fields for each line."""

import os
import socket
import struct
import time
from collections.abc import Iterator

from engine.shim.logs.remote.delivery import Delivery
from engine.shim.logs.remote.encoder import Part, Settings
from engine.shim.logs.remote.sockets import Address, Datagrams
from engine.shim.loop import Loop

SOCKET = "/run/systemd/journal/socket"
_ERROR, _INFO = "3", "6"


def field(name: str, value: bytes) -> bytes:
    """``NAME=value``; for a value with a newline, the name, the length and the value."""
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"


def stamp(now_ns: int) -> bytes:
    """RFC 3339 as Go writes it: nanoseconds without trailing zeros."""
    second, rest = divmod(now_ns, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)) + fraction + "Z").encode()


class Journald:
    """``fields`` are the same for every line of the container; each start of the container counts lines from 1."""

    def __init__(self, fields: dict[str, str]) -> None:
        fields = {**fields, "CONTAINER_LOG_EPOCH": os.urandom(32).hex()}
        self._fixed = b"".join(field(name, value.encode()) for name, value in fields.items())
        self._count = 0

    def encode(self, stream: str, line: bytes, now_ns: int, part: Part | None) -> Iterator[bytes]:
        priority = _ERROR if stream == "stderr" else _INFO
        self._count += 1
        data = self._fixed + field("MESSAGE", line) + field("PRIORITY", priority.encode())
        data += field("SYSLOG_TIMESTAMP", stamp(now_ns)) + field("CONTAINER_LOG_ORDINAL", str(self._count).encode())
        if part is not None:
            if not part.last:
                data += field("CONTAINER_PARTIAL_MESSAGE", b"true")
            data += field("CONTAINER_PARTIAL_ID", part.identity.encode())
            data += field("CONTAINER_PARTIAL_ORDINAL", str(part.ordinal).encode())
            data += field("CONTAINER_PARTIAL_LAST", b"true" if part.last else b"false")
        yield data


def make(settings: Settings, loop: Loop) -> tuple[Journald, Delivery]:
    """``fields``, and ``path`` if the socket is not the default.

    :raises ValueError: no journal listens there.
    """
    path = settings.text("path") or SOCKET
    if not os.path.exists(path):
        raise ValueError("journald is not enabled on this host")
    address: Address = (int(socket.AF_UNIX), int(socket.SOCK_DGRAM), path)
    return Journald(settings.strings("fields")), Datagrams(loop, [address], limit=settings.limit, waits=settings.waits)
