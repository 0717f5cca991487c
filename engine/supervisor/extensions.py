"""The supervisor's side of ``engine.api.extensions``: the declaration, and the socket that passes descriptors of blobs
and measures snapshots.

The other two extensions are parts of what they extend: ``apply-ingest`` of ``engine.supervisor.diff``, ``run-exec`` of
``engine.shim.container.execs``.
"""

import asyncio
import contextlib
import logging
import os
import socket

from engine.api.extensions import (
    APPLY_INGEST,
    BLOB_DESCRIPTORS,
    DESCRIPTORS,
    PLUGIN_TYPE,
    RUN_EXEC,
    SNAPSHOT_USAGES,
)
from engine.api.pb import introspection_pb2 as pb
from engine.common import timeouts
from engine.common.errors import WharfError
from engine.common.sockets import BACKLOG
from engine.common.system import fds, idle, private
from engine.supervisor.content import Content
from engine.supervisor.diff import Differ
from engine.supervisor.snapshots.service import Snapshots

log = logging.getLogger(__name__)

timeouts.define("content.request", 30.0)  # from a client's connection to its request


def declaration(descriptors: str) -> pb.Plugin:
    """The plugin that lists the extensions. ``descriptors``: the path of the descriptor socket, "" for none."""
    plugin = pb.Plugin(type=PLUGIN_TYPE, id="wharf", capabilities=[APPLY_INGEST, RUN_EXEC])
    if descriptors:
        plugin.capabilities.extend((BLOB_DESCRIPTORS, SNAPSHOT_USAGES))
        plugin.exports[DESCRIPTORS] = descriptors
    return plugin


class DescriptorServer:
    """Passes descriptors of ingests and blobs, reports the offsets of extractions, measures snapshots. The socket is
    beside that of the API (``address``). ``open`` it in the event loop and ``close`` it at the end."""

    def __init__(self, content: Content, snapshots: Snapshots, differ: Differ, address: str) -> None:
        self._content = content
        self._snapshots = snapshots
        self._differ = differ
        self._path = f"{address}.fds"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._serving: asyncio.Task[None] | None = None
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def path(self) -> str:
        """Where it listens, "" where it doesn't."""
        return self._path if self._serving is not None else ""

    def open(self) -> None:
        """A path that can't be bound (it may be too long) leaves the clients with the standard calls."""
        private.make_directory(os.path.dirname(self._path), private.PASSABLE)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        mask = os.umask(0o177)  # for root only, like the API's socket
        try:
            self._socket.bind(self._path)
        except OSError as error:
            log.warning("%s: %s", self._path, error)
            return
        finally:
            os.umask(mask)
        self._socket.listen(BACKLOG)
        self._serving = asyncio.create_task(self._serve(), name="descriptors")

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
        idle.request_received()
        with client, contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
            async with asyncio.timeout(timeouts.seconds("content.request")):
                request, passed = await fds.recv_fds_async(client)
                passed.close()
            if "usages" in request:
                async with asyncio.timeout(timeouts.seconds("snapshot.prepare")):
                    await fds.send_fds_async(client, await self._usages(request))
                return
            async with asyncio.timeout(timeouts.seconds("content.request")):
                if digest := request.get("extracting"):
                    offset = self._differ.extracted(str(request.get("namespace")), str(digest))
                    await fds.send_fds_async(client, {"offset": offset})
                    return
                fd = await self._open(request)
                try:
                    await fds.send_fds_async(client, {}, [fd] if fd >= 0 else [])
                finally:
                    if fd >= 0:
                        os.close(fd)

    async def _usages(self, request: dict[str, object]) -> dict[str, object]:
        """An empty answer: it is not a valid request; the standard call then says why."""
        keys = request["usages"]
        if not isinstance(keys, list):
            return {}
        namespace, name = str(request.get("namespace") or ""), str(request.get("snapshotter") or "")
        try:
            found = await self._snapshots.usages(namespace, name, list(map(str, keys)))
        except (WharfError, OSError) as error:
            log.debug("usages of %d snapshots: %s", len(keys), error)
            return {}
        return {"usages": {key: (usage.size, usage.inodes) for key, usage in found.items()}}

    async def _open(self, request: dict[str, object]) -> int:
        """-1: there is no such ingest or blob."""
        fields = {key: str(request.get(key) or "") for key in ("namespace", "ref", "digest")}
        try:
            return await self._content.descriptor(fields["namespace"], ref=fields["ref"], digest=fields["digest"])
        except (WharfError, OSError) as error:
            log.debug("descriptor of %s: %s", fields, error)
            return -1
