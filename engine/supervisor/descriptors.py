"""The socket on which descriptors of blobs are given away (``engine.api.direct``), beside that of the API."""

import asyncio
import contextlib
import logging
import os
import socket

from engine.api.direct import socket_of
from engine.common import timeouts
from engine.common.errors import WharfError
from engine.common.system import fds, private, rest
from engine.shim.protocol import BACKLOG
from engine.supervisor.content import Content
from engine.supervisor.diff import Differ

log = logging.getLogger(__name__)

timeouts.define("content.request", 30.0)  # a client that connected asks for something


class Handing:
    """Opened in the event loop; ``close`` it at the end."""

    def __init__(self, content: Content, differ: Differ, address: str) -> None:
        self._content = content
        self._differ = differ
        self._path = socket_of(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._serving: asyncio.Task[None] | None = None
        self._clients: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Clients do without when the path can't be bound (it may be too long)."""
        private.make_directory(os.path.dirname(self._path), private.PASSABLE)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        mask = os.umask(0o177)  # root's alone, as the API
        try:
            self._socket.bind(self._path)
        except OSError as error:
            log.warning("%s: %s", self._path, error)
            return
        finally:
            os.umask(mask)
        self._socket.listen(BACKLOG)
        self._serving = asyncio.create_task(self._serve(), name="handing")

    async def close(self) -> None:
        tasks = [*self._clients, *([self._serving] if self._serving is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()
        if self._serving is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._socket)
            task = asyncio.create_task(self._answer(client))
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)

    async def _answer(self, client: socket.socket) -> None:
        rest.touched()
        with client, contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
            async with asyncio.timeout(timeouts.seconds("content.request")):
                request, strays = await fds.recv_fds_async(client)
                strays.close()
                if digest := request.get("extracting"):
                    offset = self._differ.extracted(str(request.get("namespace")), str(digest))
                    await fds.send_fds_async(client, {"offset": offset})
                    return
                found = self._found(request)
                try:
                    await fds.send_fds_async(client, {}, [found] if found >= 0 else [])
                finally:
                    if found >= 0:
                        os.close(found)

    def _found(self, request: dict[str, object]) -> int:
        words = {key: str(request.get(key) or "") for key in ("namespace", "ref", "digest")}
        try:
            return self._content.descriptor(words["namespace"], ref=words["ref"], digest=words["digest"])
        except (WharfError, OSError) as error:
            log.debug("descriptor of %s: %s", words, error)
            return -1
