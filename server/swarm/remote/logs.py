"""Logs of tasks of other nodes, for ``docker service logs``. Implements ``server.swarm.operations.logs.TaskLog``."""

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from engine.common.errors import Kind, WharfError
from engine.common.sockets import join_host_port
from server.containers.logs.format import Query
from server.swarm.model.objects import Task
from server.swarm.remote import wire
from server.swarm.remote.client import Connections, asking
from server.swarm.remote.identity import Identity

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

#: The port of every node.
NODE_PORT = 7946

#: The log of one task in chunks of whole records.
LocalLog = Callable[[Task, Query], AsyncIterator[bytes]]


class TaskLogs:
    """Call it with a task. ``local``: the log of a task of this node, ``node_id``. ``address``: that of a node by its
    id; "": it has none. Call ``close`` at the end."""

    def __init__(
        self, identity: Identity, node_id: str, local: LocalLog, address: Callable[[str], str], port: int = NODE_PORT
    ) -> None:
        self._connections = Connections(identity)
        self._node_id = node_id
        self._local = local
        self._address = address
        self._port = port
        # The nodes that could not be reached last time.
        self._failed: set[str] = set()

    def __call__(self, task: Task, query: Query) -> AsyncIterator[bytes]:
        return self._local(task, query) if task.node_id == self._node_id else self._remote(task, query)

    async def close(self) -> None:
        await self._connections.close()

    async def _remote(self, task: Task, query: Query) -> AsyncGenerator[bytes, None]:
        """A node that can't be reached has no records."""
        host = self._address(task.node_id)
        if not host:
            return
        parameters = urlencode({"service": task.service_id, "query": wire.query_text(query)})
        url = f"https://{join_host_port(host, self._port)}{wire.VERSION}/tasks/{task.id}/log?{parameters}"
        try:
            async with self._connections.client() as client:
                async with asking(client, "GET", url, task.node_id) as response:
                    self._failed.discard(task.node_id)
                    async with contextlib.aclosing(_chunks(response)) as chunks:
                        async for chunk in chunks:
                            yield chunk
        except WharfError as error:
            if task.node_id not in self._failed:
                self._failed.add(task.node_id)
                log.warning("the logs of tasks of node %s can't be read: %s", task.node_id, error.message)


async def _chunks(response: "httpx.Response") -> AsyncGenerator[bytes, None]:
    rest = bytearray()
    async for part in response.aiter_raw():
        rest += part
        at = 0
        while len(rest) - at >= 4:
            size = int.from_bytes(rest[at : at + 4], "big")
            if size > wire.MAX_ANSWER:
                raise WharfError(Kind.UNAVAILABLE, f"a part of a log has more than {wire.MAX_ANSWER} bytes")
            if len(rest) - at - 4 < size:
                break
            if size:
                yield bytes(rest[at + 4 : at + 4 + size])
            at += 4 + size
        del rest[:at]
