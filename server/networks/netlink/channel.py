"""A netlink socket: sends encoded requests and waits for the kernel's answers (RFC 3549, ``netlink(7)``)."""

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Self

NETLINK_ROUTE, NETLINK_XFRM = 0, 6
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
CREATE, REPLACE, EXCL = 0x400, 0x100, 0x200
HEADER = struct.Struct("=IHHII")
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
#: Requests that are sent together: the kernel's answers to them have to fit into the socket's buffer.
_BATCH = 200

#: An encoded request: its type, its flags, and what follows the header, a multiple of 4 bytes.
Packed = tuple[int, int, bytes]


class Channel:
    """The socket belongs to the namespace of the thread that created it. Threads may share it."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        """:raises OSError: EPROTONOSUPPORT: the kernel lacks the protocol."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._socket.setsockopt(270, 12, 1)  # SOL_NETLINK, NETLINK_GET_STRICT_CHK: dumps filter in kernel
            self._socket.setsockopt(270, 10, 1)  # NETLINK_CAP_ACK: errors without the request's payload
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise
        self._sequence = 0
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def run_packed(self, requests: Sequence[Packed], *, ignore: int = 0) -> None:
        """As :meth:`run`, for any number of requests that the caller has encoded. ``ignore``: an errno that is none.

        The kernel also executes the requests after a failed one.
        """
        failed = 0
        for at in range(0, len(requests), _BATCH):
            with self._lock:
                parts: list[bytes] = []
                first = self._sequence + 1
                for command, flags, body in requests[at : at + _BATCH]:
                    self._sequence += 1
                    length = HEADER.size + len(body)
                    parts += HEADER.pack(length, command, REQUEST | ACK | flags, self._sequence, 0), body
                errors = self._acknowledged(b"".join(parts), range(first, self._sequence + 1))
            failed = failed or next((code for _, code in errors if code != ignore), 0)
        if failed:
            raise OSError(failed, os.strerror(failed))

    def _acknowledged(self, data: bytes, sequences: range) -> list[tuple[int, int]]:
        """Sends requests and waits for all answers. Returns (number of the request, errno) of those that failed."""
        self._socket.send(data)
        errors = []
        waiting = set(sequences)
        while waiting:
            for kind, sequence, body in self._receive():
                if kind == _NLMSG_ERROR and sequence in waiting:
                    waiting.discard(sequence)
                    if code := struct.unpack_from("=i", body)[0]:
                        errors.append((sequence, -code))
        return errors

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 18)
        offset = 0
        while offset + HEADER.size <= len(data):
            length, kind, _, sequence, _ = HEADER.unpack_from(data, offset)
            yield kind, sequence, data[offset + HEADER.size : offset + length]
            offset += (length + 3) & ~3

    def dump_packed(self, command: int, body: bytes) -> list[bytes]:
        """The answers to a request that the caller has encoded, without their headers."""
        with self._lock:
            self._sequence += 1
            header = HEADER.pack(HEADER.size + len(body), command, REQUEST | DUMP, self._sequence, 0)
            return [answer for _, answer in self._answers(header + body, self._sequence)]

    def _answers(self, data: bytes, sequence: int) -> list[tuple[int, bytes]]:
        self._socket.send(data)
        found: list[tuple[int, bytes]] = []
        while True:
            for answer, number, body in self._receive():
                if number != sequence:
                    continue
                if answer == _NLMSG_DONE:
                    return found
                if answer == _NLMSG_ERROR:
                    code = struct.unpack_from("=i", body)[0]
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return found
                found.append((answer, body))
