"""The client of a hijacked connection: its socket, which the container's stdio gets, and its detach keys."""

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass

from engine.common.errors import invalid

#: ctrl-p, ctrl-q.
DEFAULT_KEYS = b"\x10\x11"
_NAMED = {"DEL": 127, **{f"ctrl-{char}": ord(char.upper()) & 0x1F for char in "@abcdefghijklmnopqrstuvwxyz[\\]^_"}}


@dataclass(slots=True)
class Client:
    """``sock``: non-blocking; the holder of this object closes it. ``head``: the response's head, not sent yet.
    ``early``: bytes that the client sent right after its request; they precede what is read from ``sock``."""

    sock: socket.socket
    head: bytes
    early: bytes = b""

    async def send(self, data: bytes) -> None:
        """Sends all of ``data``.

        :raises OSError: the client has closed the connection.
        """
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def send_head(self) -> None:
        """Sends the head. On a unix socket, a read of the client returns the head without the bytes that follow it.

        docker-py reads the head through a buffer and then reads the socket itself: it loses bytes that its buffer has
        read after the head. On a unix socket a read ends after bytes that carry a descriptor
        (unix_stream_read_generic in the kernel's net/unix/af_unix.c). A client that doesn't receive descriptors makes
        the kernel close it.

        :raises OSError: the client has closed the connection.
        """
        head, self.head = self.head, b""
        sent = 0
        if self.sock.family == socket.AF_UNIX:
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            try:
                with contextlib.suppress(BlockingIOError):
                    sent = socket.send_fds(self.sock, [head], [null])
            finally:
                os.close(null)
        if sent < len(head):
            await self.send(head[sent:])

    async def finish(self, data: bytes = b"") -> None:
        """Sends ``data`` and closes the connection; for a client whose socket the stdio doesn't have."""
        with contextlib.suppress(OSError):
            if data:
                await self.send(data)
            self.sock.shutdown(socket.SHUT_WR)
        self.sock.close()


def parse_keys(text: str) -> bytes:
    """The bytes of detach keys such as ``ctrl-p,q``.

    :raises WharfError: INVALID_ARGUMENT: an unknown key.
    """
    found = bytearray()
    for word in text.split(","):
        if len(word) == 1 and word.isascii():
            found += word.encode()
        elif (code := _NAMED.get(word)) is not None:
            found.append(code)
        else:
            raise invalid(f"Invalid detach keys ({text}) provided")
    return bytes(found)
