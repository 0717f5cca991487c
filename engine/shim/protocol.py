"""The protocol of a shim's sockets: frames of JSON, a binary tail and file descriptors.

A frame is ``!II`` (length of the JSON, length of the tail), the JSON object, the tail. Descriptors travel with the
frame's first bytes (SCM_RIGHTS). Two sockets use it:

* ``shim.sock`` in the bundle, supervisor ↔ shim. Requests are ``{"id": n, "op": "start", …}``, replies
  ``{"id": n, "ok": {…}}`` or ``{"id": n, "error": {"kind": …, "message": …, "reason": …}}``,
  notices ``{"event": "exit", …}``.
* ``stdio.sock``, daemon ↔ shim (or I/O host). One request per connection:

  * ``{"op": "attach", …}`` with the client's own socket as a descriptor → ``{"handed": true}``, then
    ``{"ended": "eof"}``. With ``"held": true`` the first answer also has the end of the log, and the output is kept
    back until ``{"op": "go"}``.
  * ``{"op": "drained", …}`` → ``{"drained": true}`` when all output of the process was delivered.
  * to a shim: ``{"op": "run", …}`` with a process and its client (``engine.shim.container.execs``).

``kind`` and ``reason``, which may be absent, are values of ``engine.common.errors``; this package imports nothing but
the standard library.
"""

import array
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence

HEADER = struct.Struct("!II")
MAX_JSON = 16 << 20
MAX_TAIL = 16 << 20
MAX_FDS = 16
#: As many as ``net.core.somaxconn`` allows: a full queue refuses clients with EAGAIN. The daemons' sockets have the
#: same, from ``engine.common.sockets``, which shims can't import.
BACKLOG = 65_535

Json = dict[str, object]


class ProtocolError(Exception):
    """The peer sent an invalid frame."""


class RequestError(Exception):
    """A refused request; ``kind`` is the value of an ``engine.common.errors.Kind``, ``reason`` of a ``Reason``."""

    def __init__(self, kind: str, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.reason = reason

    def to_json(self) -> Json:
        return {"kind": self.kind, "message": self.message, **({"reason": self.reason} if self.reason else {})}


def encode(message: Mapping[str, object], tail: bytes = b"") -> bytes:
    """Encodes one frame."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return HEADER.pack(len(body), len(tail)) + body + tail


class Decoder:
    """Decodes a byte stream into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Json, bytes]]:
        """Adds bytes and yields the complete frames.

        :raises ProtocolError: invalid bytes, or a frame that exceeds the limits.
        """
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            body, tail = HEADER.unpack_from(self._buffer)
            if body > MAX_JSON or tail > MAX_TAIL:
                raise ProtocolError(f"a frame of {body}+{tail} bytes")
            end = HEADER.size + body + tail
            if len(self._buffer) < end:
                return
            try:
                message = json.loads(self._buffer[HEADER.size : HEADER.size + body])
            except ValueError as error:
                raise ProtocolError(f"not JSON: {error}") from None
            if not isinstance(message, dict):
                raise ProtocolError("a frame is an object")
            rest = bytes(self._buffer[HEADER.size + body : end])
            del self._buffer[:end]
            yield message, rest


def send_with_fds(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> int:
    """Sends as much as the socket accepts now; the descriptors travel with the first byte. Returns the bytes sent."""
    ancillary = []
    if fds:
        ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds)))
    return sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def receive_with_fds(sock: socket.socket, size: int = 65536) -> tuple[bytes, list[int]]:
    """Receives bytes and descriptors (close-on-exec); ``(b"", [])`` at the end of the stream.

    :raises BlockingIOError: nothing to read on a non-blocking socket.
    """
    space = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
    data, ancillary, _flags, _address = sock.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
            fds.extend(received)
    return data, fds


def send_blocking(sock: socket.socket, message: Mapping[str, object], fds: Sequence[int] = ()) -> None:
    """Sends one frame on a blocking socket."""
    data = encode(message)
    sent = send_with_fds(sock, data, fds)
    if sent < len(data):
        sock.sendall(data[sent:])


def receive_blocking(sock: socket.socket) -> tuple[Json, list[int]] | None:
    """One frame from a blocking socket; ``None`` at the end of the stream.

    :raises ProtocolError: the stream ends inside a frame, or two frames arrive at once.
    """
    decoder = Decoder()
    fds: list[int] = []
    fed = False
    while True:
        data, more = receive_with_fds(sock)
        fds.extend(more)
        if not data:
            if fed:
                raise ProtocolError("the stream ends within a frame")
            return None
        fed = True
        for message, _tail in decoder.feed(data):
            return message, fds


def text(message: Mapping[str, object], key: str, default: str = "") -> str:
    """A string member.

    :raises ProtocolError: it has another type.
    """
    value = message.get(key, default)
    if not isinstance(value, str):
        raise ProtocolError(f"{key} is not a string")
    return value


def integer(message: Mapping[str, object], key: str, default: int = 0) -> int:
    """An integer member.

    :raises ProtocolError: it has another type.
    """
    value = message.get(key, default)
    if not isinstance(value, int):
        raise ProtocolError(f"{key} is not an integer")
    return value


def mapping(message: Mapping[str, object], key: str) -> Json:
    """An object member, ``{}`` when absent.

    :raises ProtocolError: it has another type.
    """
    value = message.get(key, {})
    if not isinstance(value, dict):
        raise ProtocolError(f"{key} is not an object")
    return value


def _through_directory(path: str) -> tuple[int, str]:
    # sun_path has 107 bytes: name the directory by its descriptor, as the path may be longer.
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_CLOEXEC)
    return directory, f"/proc/self/fd/{directory}/{os.path.basename(path)}"


def listen(path: str, *, backlog: int = BACKLOG) -> socket.socket:
    """A non-blocking listener at ``path``, mode 0600; replaces an existing file."""
    directory, short = _through_directory(path)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            old = os.umask(0o177)
            try:
                sock.bind(short)
            finally:
                os.umask(old)
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return sock
    finally:
        os.close(directory)


def connect(path: str) -> socket.socket:
    """A connected blocking socket.

    :raises OSError: no process listens there.
    """
    directory, short = _through_directory(path)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(short)
        except BaseException:
            sock.close()
            raise
        return sock
    finally:
        os.close(directory)
