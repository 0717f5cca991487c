"""Log servers for the tests: they receive and decode the messages of log drivers."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import select
import socket
import ssl
import struct
import threading
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.servers.plugins import Plugin


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Decode a protobuf integer at ``at``; return it and the start of the next field."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


class Collector:
    """A server on loopback or a unix socket. ``paused``: it accepts and reads nothing until ``resume``."""

    def __init__(
        self, kind: str, *, path: Path | None = None, tls: ssl.SSLContext | None = None, paused: bool = False
    ) -> None:
        family = socket.AF_UNIX if path else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM)
        self.sock.bind(str(path) if path else ("127.0.0.1", 0))
        self.port = 0 if path else int(self.sock.getsockname()[1])
        self._tls = tls
        self._lock = threading.Lock()
        self._data: list[bytes] = []
        self._connections: list[socket.socket] = []
        self._resumed = threading.Event()
        self._closing = False
        if not paused:
            self._resumed.set()
        if kind == "datagrams":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        else:
            self.sock.listen()
        self._thread = threading.Thread(target=self._receive if kind == "datagrams" else self._accept, daemon=True)
        self._thread.start()

    def resume(self) -> None:
        self._resumed.set()

    @property
    def parts(self) -> list[bytes]:
        """Return the datagrams, or the data of each read."""
        with self._lock:
            return list(self._data)

    @property
    def data(self) -> bytes:
        return b"".join(self.parts)

    def lines(self, count: int) -> list[bytes]:
        """Return at least so many lines, in order."""
        assert until(lambda: self.data.count(b"\n") >= count), self.data[-2000:]
        return self.data.splitlines()

    def _keep(self, data: bytes) -> None:
        with self._lock:
            self._data.append(data)

    def _receive(self) -> None:
        self._resumed.wait()
        with contextlib.suppress(OSError):
            while not self._closing:
                if data := self.sock.recv(1 << 16):
                    self._keep(data)

    def _accept(self) -> None:
        self._resumed.wait()
        readers = []
        while not self._closing:
            try:
                connection, _ = self.sock.accept()
            except OSError:
                break
            reader = threading.Thread(target=self._read, args=(connection,), daemon=True)
            reader.start()
            readers.append(reader)
        for reader in readers:
            reader.join(60)

    def _read(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._connections.append(connection)
            while data := connection.recv(1 << 16):
                self._keep(data)
                self.answer(connection, data)
        except OSError:
            pass
        finally:
            connection.close()

    def answer(self, connection: socket.socket, data: bytes) -> None:
        """Respond to ``data``: no response, unless a subclass sends one."""

    def cut(self) -> None:
        """Close the connections; new ones are accepted."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closing = True
        self._resumed.set()
        with contextlib.suppress(OSError):
            # Wakes a thread blocked in accept or recv.
            self.sock.shutdown(socket.SHUT_RDWR)
        self.cut()
        self.sock.close()
        self._thread.join(60)

    def __enter__(self) -> Collector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Fluentd(Collector):
    """Acknowledges each message that requests it."""

    def answer(self, connection: socket.socket, data: bytes) -> None:
        for chunk in re.findall(rb"\xa5chunk\xb8(.{24})", data, re.DOTALL):
            connection.sendall(b"\x81\xa3ack\xb8" + chunk)


def unpack(data: bytes) -> list[Any]:
    """Return the complete MessagePack values at the start of a stream."""
    found, at = [], 0
    with contextlib.suppress(IndexError, struct.error):
        while at < len(data):
            value, at = _value(data, at)
            found.append(value)
    return found


def _value(data: bytes, at: int) -> tuple[Any, int]:
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    if byte < 0x90:
        return _pairs(data, at, byte & 15)
    if byte < 0xA0:
        return _items(data, at, byte & 15)
    if byte < 0xC0:
        return _text(data, at, byte & 31)
    if byte == 0xC0:
        return None, at
    if byte == 0xCE:
        return struct.unpack_from(">I", data, at)[0], at + 4
    if byte in (0xD2, 0xD3, 0xCF):
        form = {0xD2: ">i", 0xD3: ">q", 0xCF: ">Q"}[byte]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if byte == 0xD7:
        return struct.unpack_from(">xII", data, at), at + 9
    if byte in (0xD9, 0xDA, 0xDB):
        form = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}[byte]
        (size,) = struct.unpack_from(form, data, at)
        return _text(data, at + struct.calcsize(form), size)
    if byte == 0xDE:
        return _pairs(data, at + 2, struct.unpack_from(">H", data, at)[0])
    raise AssertionError(f"an unexpected type {byte:#x} at {at - 1}")


def _text(data: bytes, at: int, size: int) -> tuple[str, int]:
    if at + size > len(data):
        raise IndexError
    return data[at : at + size].decode(), at + size


def _items(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    found = []
    for _ in range(count):
        value, at = _value(data, at)
        found.append(value)
    return found, at


def _pairs(data: bytes, at: int, count: int) -> tuple[dict[Any, Any], int]:
    flat, at = _items(data, at, 2 * count)
    return dict(zip(flat[::2], flat[1::2], strict=True)), at


def gelf_messages(datagrams: list[bytes]) -> list[dict[str, Any]]:
    """Reassemble and decompress GELF datagrams."""
    found, chunks = [], dict[bytes, dict[int, bytes]]()
    for datagram in datagrams:
        if datagram[:2] != b"\x1e\x0f":
            found.append(_unpacked(datagram))
            continue
        parts = chunks.setdefault(datagram[2:10], {})
        parts[datagram[10]] = datagram[12:]
        if len(parts) == datagram[11]:
            found.append(_unpacked(b"".join(parts[number] for number in sorted(parts))))
    return found


def _unpacked(data: bytes) -> dict[str, Any]:
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    elif data[:1] == b"\x78":
        data = zlib.decompress(data)
    message: dict[str, Any] = json.loads(data)
    return message


class LogPlugin(Plugin):
    """A log driver. ``lines``: (stream, line, complete)."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.lines: list[tuple[str, bytes, bool]] = []
        super().__init__(engine, name)

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        if method == "Plugin.Activate":
            return {"Implements": ["LogDriver"]}
        if method == "LogDriver.StartLogging":
            if body["Info"]["Config"].get("refuse"):
                return {"Err": "refused by an option"}
            # Open before the answer: data in a FIFO without a reader is lost when its writer closes.
            fifo = os.open(body["File"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self.run_in_thread(self._read, fifo)
        return {"Err": ""}

    def _read(self, fd: int) -> None:
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        waiting.poll()  # wait for a writer; until then, a read would return end-of-file
        os.set_blocking(fd, True)
        with open(fd, "rb") as fifo:
            while len(head := fifo.read(4)) == 4:
                self._decode(fifo.read(int.from_bytes(head, "big")))

    def _decode(self, message: bytes) -> None:
        at, stream, line, complete = 0, b"", b"", True
        while at < len(message):
            key, at = _varint(message, at)
            if key & 7 == 2:
                size, at = _varint(message, at)
                value, at = message[at : at + size], at + size
                stream, line = (value, line) if key >> 3 == 1 else (stream, value) if key >> 3 == 3 else (stream, line)
            else:
                number, at = _varint(message, at)
                complete = complete and not (key >> 3 == 4 and number)
        self.lines.append((stream.decode(), line, complete))
