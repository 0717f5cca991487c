"""A client whose connection was taken over: the socket that is handed to the container's stdio, and its keys."""

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
    """``sock`` is non-blocking and ours to close. ``head`` is the answer's head, not sent yet; ``early`` came
    from the client behind its request and precedes what is read from ``sock``."""

    sock: socket.socket
    head: bytes
    early: bytes = b""

    async def send(self, data: bytes) -> None:
        """:raises OSError: the client has gone."""
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def send_head(self) -> None:
        """Sends the head in a read of its own, where the socket can do that.

        docker-py reads the head through a buffer and goes on with the bare socket: what the buffer took besides is
        lost to it. On a unix socket a read ends behind bytes that carry a descriptor (unix_stream_read_generic in
        the kernel's net/unix/af_unix.c); the reader doesn't ask for it, so the kernel drops it.

        :raises OSError: the client has gone.
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
        """Writes last words to a client that was not handed over, and closes in order."""
        with contextlib.suppress(OSError):
            if data:
                await self.send(data)
            self.sock.shutdown(socket.SHUT_WR)
        self.sock.close()


def parse_keys(text: str) -> bytes:
    """``ctrl-p,q`` → bytes.

    :raises WharfError: INVALID_ARGUMENT for a word that is no key.
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
