"""journald's native protocol: a datagram of fields for each line."""

import socket
import struct
from collections.abc import Iterator

from engine.shim.loop import Loop
from engine.shim.remote.delivery import Delivery
from engine.shim.remote.driver import Part, Settings
from engine.shim.remote.sockets import Address, Datagrams

SOCKET = "/run/systemd/journal/socket"
_ERROR, _INFO = "3", "6"


def field(name: str, value: bytes) -> bytes:
    """``NAME=value``; a value with a newline in it is preceded by its length."""
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"


class Journald:
    """``fields`` are the same for each line of the container."""

    def __init__(self, fields: dict[str, str]) -> None:
        self._fixed = b"".join(field(name, value.encode()) for name, value in fields.items())

    def encode(self, stream: str, line: bytes, now_ns: int, part: Part | None) -> Iterator[bytes]:
        priority = _ERROR if stream == "stderr" else _INFO
        moment = f"{now_ns // 1_000_000_000}.{now_ns // 1000 % 1_000_000:06d}"
        data = self._fixed + field("MESSAGE", line) + field("PRIORITY", priority.encode())
        data += field("SYSLOG_TIMESTAMP", moment.encode())
        if part is not None:
            if not part.last:
                data += field("CONTAINER_PARTIAL_MESSAGE", b"true")
            data += field("CONTAINER_PARTIAL_ID", part.identity.encode())
            data += field("CONTAINER_PARTIAL_ORDINAL", str(part.ordinal).encode())
            data += field("CONTAINER_PARTIAL_LAST", b"true" if part.last else b"false")
        yield data


def make(settings: Settings, loop: Loop) -> tuple[Journald, Delivery]:
    """``fields``, and ``path`` where the socket is another."""
    path = settings.text("path") or SOCKET
    address: Address = (int(socket.AF_UNIX), int(socket.SOCK_DGRAM), path)
    return Journald(settings.strings("fields")), Datagrams(loop, [address], limit=settings.limit, waits=settings.waits)
