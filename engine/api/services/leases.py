"""The lease service. A lease protects content, ingests and snapshots from the garbage collector while they are in
use."""

import asyncio
import builtins
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from google.protobuf.empty_pb2 import Empty

from engine.api.labels import GC_EXPIRE
from engine.api.pb import leases_pb2 as pb
from engine.api.rpc import Connection, current_lease
from engine.api.types import Lease, LeaseResource, to_ns
from engine.common.errors import Kind, WharfError

_SERVICE = "/containerd.services.leases.v1.Leases"
# The label of a lease that protects an operation of a client.
_OPERATION = "wharf.operation"
#: The expiry that containerd's own client uses; longer than a pull over the slowest line.
_LIFE = timedelta(hours=24)


def _lease(message: pb.Lease) -> Lease:
    return Lease(id=message.id, created_at_ns=to_ns(message.created_at), labels=dict(message.labels))


class Leases:
    def __init__(self, connection: Connection) -> None:
        self._rpc = connection
        self._releases: set[asyncio.Future[None]] = set()

    async def create(
        self, id: str | None = None, *, labels: Mapping[str, str] | None = None, ttl: timedelta | None = None
    ) -> Lease:
        """Creates a lease; without ``id`` one is generated. After ``ttl`` the lease protects nothing and is deleted."""
        all_labels = dict(labels or {})
        if ttl is not None:
            all_labels[GC_EXPIRE] = (datetime.now(UTC) + ttl).strftime("%Y-%m-%dT%H:%M:%SZ")
        request = pb.CreateRequest(id=id or f"{time.time_ns():x}-{secrets.token_hex(8)}", labels=all_labels)
        return _lease((await self._rpc.call(f"{_SERVICE}/Create", request, pb.CreateResponse)).lease)

    async def delete(self, id: str, *, sync: bool = False) -> None:
        """``sync`` waits until the garbage collector has removed what only this lease protected."""
        request = pb.DeleteRequest(id=id, sync=sync)
        await self._rpc.call(f"{_SERVICE}/Delete", request, Empty, deadline="engine.collect" if sync else "engine.call")

    async def list(self, filters: Sequence[str] = ()) -> list[Lease]:
        request = pb.ListRequest(filters=filters)
        reply = await self._rpc.call(f"{_SERVICE}/List", request, pb.ListResponse)
        return [_lease(message) for message in reply.leases]

    async def add_resource(self, lease: str, id: str, type: str) -> None:
        """Protects one more resource; ``type`` is ``content``, ``ingests`` or ``snapshots/<snapshotter>``."""
        request = pb.AddResourceRequest(id=lease, resource=pb.Resource(id=id, type=type))
        await self._rpc.call(f"{_SERVICE}/AddResource", request, Empty)

    async def delete_resource(self, lease: str, id: str, type: str) -> None:
        request = pb.DeleteResourceRequest(id=lease, resource=pb.Resource(id=id, type=type))
        await self._rpc.call(f"{_SERVICE}/DeleteResource", request, Empty)

    async def resources(self, lease: str) -> "builtins.list[LeaseResource]":
        request = pb.ListResourcesRequest(id=lease)
        reply = await self._rpc.call(f"{_SERVICE}/ListResources", request, pb.ListResourcesResponse)
        return [LeaseResource(message.id, message.type) for message in reply.resources]

    async def delete_stale(self) -> None:
        """Deletes the leases that :meth:`acquire` of an earlier process left. For the start of the only client of a
        namespace."""
        for lease in await self.list([f'labels."{_OPERATION}"']):
            try:
                await self.delete(lease.id)
            except WharfError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise

    async def create_temporary(self, *, ttl: timedelta = _LIFE) -> Lease:
        """Creates a lease as :meth:`acquire` does; the caller deletes it."""
        return await self.create(ttl=ttl, labels={_OPERATION: "1"})

    @asynccontextmanager
    async def acquire(self, *, ttl: timedelta = _LIFE, sync: bool = False) -> AsyncIterator[Lease]:
        """Every call made inside the block runs under a new lease, which is deleted at the end; ``sync`` as in
        ``delete``.

        The expiry covers a crash: the resources of a dead client are collected after ``ttl``, or when it restarts and
        calls :meth:`delete_stale`.
        """
        # Clients may cancel at any moment, also while a lease is created or deleted: both run to completion.
        creation = asyncio.ensure_future(self.create_temporary(ttl=ttl))
        try:
            lease = await asyncio.shield(creation)
        except asyncio.CancelledError:
            creation.add_done_callback(self._release_when_created)
            raise
        token = current_lease.set(lease.id)
        try:
            yield lease
        finally:
            # The event loop closes an abandoned generator in another context.
            with contextlib.suppress(ValueError):
                current_lease.reset(token)
            await asyncio.shield(self._release(lease.id, sync=sync))

    async def _release(self, id: str, *, sync: bool) -> None:
        """Deletes the lease, which may have expired."""
        try:
            await self.delete(id, sync=sync)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise

    def _release_when_created(self, creation: "asyncio.Future[Lease]") -> None:
        """Deletes the lease of a caller that was cancelled while the lease was created."""
        if not creation.cancelled() and creation.exception() is None:
            release = asyncio.ensure_future(self._release(creation.result().id, sync=False))
            self._releases.add(release)
            release.add_done_callback(self._released)

    def _released(self, release: "asyncio.Future[None]") -> None:
        self._releases.discard(release)
        if not release.cancelled():
            release.exception()  # the lease then expires
