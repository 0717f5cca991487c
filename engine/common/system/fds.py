"""File descriptors: sends them over AF_UNIX stream sockets with a length-prefixed JSON header, waits for them, writes.

A message is a 4-byte big-endian length, then that many bytes of JSON. The fds travel as SCM_RIGHTS with the length.
"""

import array
import asyncio
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

MAX_FDS = 64
MAX_HEADER = 1 << 20
_PREFIX = struct.Struct(">I")


class FdSet:
    """Owns the fds of a message; closes those that no caller took."""

    def __init__(self, fds: Sequence[int] = ()) -> None:
        self._fds: list[int] = list(fds)

    def __len__(self) -> int:
        return len(self._fds)

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._fds))

    def take(self, index: int) -> int:
        """Passes ownership of one fd to the caller. IndexError: absent. ValueError: already taken."""
        fd = self._fds[index]
        if fd < 0:
            raise ValueError(f"fd {index} was taken already")
        self._fds[index] = -1
        return fd

    def close(self) -> None:
        for index, fd in enumerate(self._fds):
            if fd >= 0:
                self._fds[index] = -1
                os.close(fd)

    def __enter__(self) -> "FdSet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _encode(header: Mapping[str, object]) -> bytes:
    body = json.dumps(header, separators=(",", ":")).encode()
    return _PREFIX.pack(len(body)) + body


def _rights(fds: Sequence[int]) -> "list[tuple[int, int, array.array[int]]]":
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


def _received(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def send_fds(sock: socket.socket, header: Mapping[str, object], fds: Sequence[int] = ()) -> None:
    """Sends on a *blocking* socket. The caller keeps its own fds and may close them afterwards."""
    data = _encode(header)
    sent = sock.sendmsg([data], _rights(fds))
    if sent < len(data):
        sock.sendall(data[sent:])


def recv_fds(sock: socket.socket) -> tuple[dict[str, object], FdSet]:
    """Receives one message from a *blocking* socket.

    :raises EOFError: the peer closed, between messages or inside one.
    :raises ValueError: an invalid message.
    """
    fds = FdSet()
    try:
        data = bytearray()
        need = _PREFIX.size
        while len(data) < need:
            chunk, more = _recv_once(sock, need - len(data))
            fds._fds.extend(more)
            if not chunk:
                raise EOFError("connection closed")
            data += chunk
            if need == _PREFIX.size and len(data) == need:
                need += _length(data)
        return _decode(data[_PREFIX.size :]), fds
    except BaseException:
        fds.close()
        raise


async def send_fds_async(sock: socket.socket, header: Mapping[str, object], fds: Sequence[int] = ()) -> None:
    """Like ``send_fds``, for a *non-blocking* socket that no transport owns."""
    view = memoryview(_encode(header))
    rights = _rights(fds)
    while view:
        try:
            sent = sock.sendmsg([view], rights)
        except (BlockingIOError, InterruptedError):
            await ready(sock, write=True)
            continue
        view, rights = view[sent:], []


async def recv_fds_async(sock: socket.socket) -> tuple[dict[str, object], FdSet]:
    """Like ``recv_fds``, for a *non-blocking* socket that no transport owns."""
    fds = FdSet()
    try:
        data = bytearray()
        need = _PREFIX.size
        while len(data) < need:
            try:
                chunk, more = _recv_once(sock, need - len(data))
            except (BlockingIOError, InterruptedError):
                await ready(sock, write=False)
                continue
            fds._fds.extend(more)
            if not chunk:
                raise EOFError("connection closed")
            data += chunk
            if need == _PREFIX.size and len(data) == need:
                need += _length(data)
        return _decode(data[_PREFIX.size :]), fds
    except BaseException:
        fds.close()
        raise


def _recv_once(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    room = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
    chunk, ancillary, flags, _ = sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    found = _received(ancillary)
    if flags & socket.MSG_CTRUNC:
        for fd in found:
            os.close(fd)
        raise ValueError("more file descriptors than a message may carry")
    return chunk, found


def _length(data: bytes | bytearray) -> int:
    (length,) = _PREFIX.unpack(data)
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length} bytes")
    return int(length)


def _decode(data: bytes | bytearray) -> dict[str, object]:
    header = json.loads(data)
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    return header


async def ready(sock: socket.socket | int, *, write: bool) -> None:
    """Waits until a non-blocking descriptor is readable, or writable. One waiter per descriptor and direction."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def done() -> None:
        if not waiter.done():
            waiter.set_result(None)

    if write:
        loop.add_writer(sock, done)
    else:
        loop.add_reader(sock, done)
    try:
        await waiter
    finally:
        if write:
            loop.remove_writer(sock)
        else:
            loop.remove_reader(sock)


def pwrite_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Writes all data at an offset; pwrite(2) may write less.

    :raises OSError: of pwrite(2).
    """
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]
