"""Fluentd's forward protocol, message mode: ``[tag, time, record]`` in MessagePack, optionally with receipts."""

import base64
import os
import socket
import struct
from collections.abc import Iterator

from engine.shim.logs.remote.delivery import Delivery
from engine.shim.logs.remote.encoder import Part, Settings
from engine.shim.logs.remote.sockets import Address, Stream, resolve
from engine.shim.loop import Loop


def pack_text(value: bytes) -> bytes:
    """A MessagePack string."""
    size = len(value)
    if size < 32:
        return bytes((0xA0 | size,)) + value
    if size < 1 << 8:
        return b"\xd9" + bytes((size,)) + value
    if size < 1 << 16:
        return b"\xda" + struct.pack(">H", size) + value
    return b"\xdb" + struct.pack(">I", size) + value


def _map_head(size: int) -> bytes:
    return bytes((0x80 | size,)) if size < 16 else b"\xde" + struct.pack(">H", size)


class Fluentd:
    """``precise``: times have nanoseconds. ``receipts``: each message requests a receipt."""

    def __init__(self, tag: str, record: dict[str, str], *, precise: bool, receipts: bool) -> None:
        self._head = bytes((0x94 if receipts else 0x93,)) + pack_text(tag.encode())
        self._record = b"".join(pack_text(k.encode()) + pack_text(v.encode()) for k, v in record.items())
        self._size = len(record) + 2
        self._precise = precise
        self._receipts = receipts

    def encode(self, stream: str, line: bytes, now_ns: int, part: Part | None) -> Iterator[bytes]:
        seconds, nanos = divmod(now_ns, 1_000_000_000)
        # EventTime is an extension of type 0: seconds and nanoseconds.
        moment = (
            b"\xd7\x00" + struct.pack(">II", seconds, nanos) if self._precise else b"\xce" + struct.pack(">I", seconds)
        )
        more, count = b"", 0
        if part is not None:
            fields = {
                "partial_message": "true",
                "partial_id": part.identity,
                "partial_ordinal": str(part.ordinal),
                "partial_last": "true" if part.last else "false",
            }
            count = len(fields)
            more = b"".join(pack_text(k.encode()) + pack_text(v.encode()) for k, v in fields.items())
        message = b"".join(
            (
                self._head,
                moment,
                _map_head(self._size + count),
                self._record,
                pack_text(b"source") + pack_text(stream.encode()),
                pack_text(b"log") + pack_text(line),
                more,
            )
        )
        if self._receipts:
            chunk = base64.b64encode(os.urandom(16))
            message += b"\x81" + pack_text(b"chunk") + pack_text(chunk)
        yield message


class Receipts(Stream):
    """Keeps sent messages until the server has acknowledged them; after a reconnect, sends them again."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._unsure: dict[bytes, bytes] = {}
        self._said = b""
        self.on_data = self._receive

    def sent(self, message: bytes) -> None:
        # The receipt's id ends the message: a string of 24 characters.
        self._unsure[message[-24:]] = message

    def _receive(self, data: bytes) -> None:
        self._said += data
        while len(self._said) >= 30:
            # {"ack": chunk}: one pair, a key of three, a string of 24 characters.
            at = self._said.find(b"\xa3ack\xb8")
            if at < 0 or len(self._said) < at + 29:
                break
            message = self._unsure.pop(self._said[at + 5 : at + 29], None)
            self._said = self._said[at + 29 :]
            if message is not None:
                self.queued -= len(message)
        self.after_flush()

    @property
    def idle(self) -> bool:
        return not self.queue and not self._unsure

    def reset(self) -> None:
        super().reset()
        self.queue.extendleft(reversed(self._unsure.values()))
        self._unsure.clear()
        self._said = b""


def make(settings: Settings, loop: Loop) -> tuple[Fluentd, Delivery]:
    """``scheme`` (``tcp``, ``tls``, ``unix``), ``host``, ``port``, ``path``, ``tag``, ``record``, ``precise``,
    ``receipts``, ``asynchronous``, ``retry`` (milliseconds), ``attempts``, ``limit`` (bytes).

    :raises OSError: the name has no address.
    """
    receipts = bool(settings.options.get("receipts"))
    encoder = Fluentd(
        settings.text("tag"),
        settings.strings("record"),
        precise=bool(settings.options.get("precise")),
        receipts=receipts,
    )
    tls = None
    if settings.text("scheme") == "tls":
        from engine.shim.logs.remote.tls import context

        tls = context(settings)
    if settings.text("scheme") == "unix":
        found: list[Address] = [(int(socket.AF_UNIX), int(socket.SOCK_STREAM), settings.text("path"))]
    else:
        found = resolve(settings.text("host"), settings.number("port", 24224), socket.SOCK_STREAM)
    asynchronous = bool(settings.options.get("asynchronous"))
    kind = Receipts if receipts else Stream
    return encoder, kind(
        loop,
        found,
        limit=settings.number("limit", settings.limit) if asynchronous else settings.limit,
        waits=settings.waits and not asynchronous,
        patient=not asynchronous,
        retry=max(0.1, settings.number("retry", 1000) / 1000),
        attempts=settings.number("attempts", 0),
        tls=tls,
        host=settings.text("host"),
    )
