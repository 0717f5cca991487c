"""The store of a swarm with several managers: etcd, by its gRPC API (https://etcd.io/docs/v3.5/learning/api/).

Writes and reads are linearizable. A watch begins anew, at the revision where it ended, on whichever member answers: the
reader of the watch gets UNAVAILABLE and watches again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import TypeVar, cast

import grpc.aio
from google.protobuf.message import Message
from grpc.aio import AioRpcError

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.swarm.store.channel import call, error_of, open_channel, result_of
from server.swarm.store.interface import (
    Change,
    Commit,
    Compacted,
    Condition,
    ConditionFailed,
    Entry,
    LeaseEnded,
    Write,
    check_bounds,
)
from server.swarm.store.pb import etcd_pb2 as pb

# Two attempts of a commit. A member forwards it to the leader. If that has just been lost, the commit is lost with it,
# and the member answers after 7 s only, when the others have long elected another leader: within 1 to 2 s.
timeouts.define("swarm.commit", 2.5)
timeouts.define("swarm.commit-again", 4.5)

#: The key of ``EtcdStore.begin_after``, beside all that a swarm stores.
_BASE = "wharf/revisions-after"
#: The most entries of one answer: ranges of many objects are read in pages.
_PAGE = 500

R = TypeVar("R", bound=Message)


class _Watch:
    """One watch's call, and the revision that was asked for by a progress request."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]", after: int) -> None:
        self.call = call
        self.reached = after
        self.created = False


class EtcdStore:
    """See ``interface.Store``. Belongs to one event loop; call ``close`` at the end.

    Its revisions are etcd's plus a number that etcd stores: those of a swarm that comes from another store go on where
    they were, so that a version that a client has read there is never that of another state here.
    """

    def __init__(self, endpoints: Sequence[str], credentials: grpc.ChannelCredentials | None = None) -> None:
        """``endpoints``: of members, as in ``channel.open_channel``. They need not be complete: one that answers is
        enough.
        After a call that one didn't answer, the next one is used. Each has a channel of its own: gRPC would check the
        certificates of several addresses by one name.
        """
        self._channels = [open_channel(endpoint, credentials) for endpoint in endpoints]
        self._watches: set[_Watch] = set()
        self._closed = False
        #: What is added to etcd's revisions; None: not read yet.
        self._added: int | None = None

    async def begin_after(self, revision: int) -> None:
        """All revisions of this store are greater than ``revision``, from now on. For a store that nobody has read.

        :raises WharfError:
        """
        write = _operation(Write(_BASE, str(revision).encode()))
        await self._call("KV/Txn", pb.TxnRequest(success=[write]), pb.TxnResponse)
        self._added = revision

    async def _base(self) -> int:
        if self._added is None:
            answer = await self._call("KV/Range", pb.RangeRequest(key=_BASE.encode()), pb.RangeResponse)
            self._added = int(answer.kvs[0].value) if answer.kvs else 0
        return self._added

    async def close(self) -> None:
        self._closed = True
        for watch in self._watches:
            watch.call.cancel()
        await asyncio.gather(*(channel.close(None) for channel in self._channels))

    @property
    def _channel(self) -> grpc.aio.Channel:
        return self._channels[0]

    def _failed(self, channel: grpc.aio.Channel) -> None:
        if channel is self._channels[0]:
            self._channels.append(self._channels.pop(0))

    async def range(self, prefix: str) -> tuple[Sequence[Entry], int]:
        base, entries = await self._base(), list[Entry]()
        end, revision, start = _after(prefix), 0, prefix.encode()
        while True:
            request = pb.RangeRequest(key=start, range_end=end, limit=_PAGE, revision=revision)
            answer = await self._call("KV/Range", request, pb.RangeResponse)
            # Later pages are read at the revision of the first one.
            revision = revision or answer.header.revision
            entries += (Entry(kv.key.decode(), kv.value, base + kv.mod_revision) for kv in answer.kvs)
            if not answer.more:
                break
            start = answer.kvs[-1].key + b"\0"
        await self._ask_progress(revision)
        return entries, base + revision

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
        check_bounds(conditions, writes)
        base = await self._base()
        compare = [_compare(condition, base) for condition in conditions]
        request = pb.TxnRequest(compare=compare, success=map(_operation, writes))
        proof = _proof(conditions, writes)
        first = timeouts.seconds("swarm.commit") if proof is not None else timeouts.seconds("swarm.store")
        begin = time.monotonic()
        try:
            answer = await self._call("KV/Txn", request, pb.TxnResponse, seconds=first)
            revision = answer.header.revision if answer.succeeded else 0
        except WharfError:
            if proof is None or time.monotonic() - begin < first:
                raise
            revision = await self._commit_again(request, proof)
        if not revision:
            raise ConditionFailed
        await self._ask_progress(revision)
        return base + revision

    async def _commit_again(self, request: pb.TxnRequest, proof: Write) -> int:
        """Repeats a commit that has got no answer; it may have been done. Returns its revision, 0: a condition is
        false, and the commit was not done, as ``proof`` shows: all of its writes were done or none."""
        seconds = timeouts.seconds("swarm.commit-again")
        answer = await self._call("KV/Txn", request, pb.TxnResponse, seconds=seconds)
        if answer.succeeded:
            return answer.header.revision
        found = await self._call("KV/Range", pb.RangeRequest(key=proof.key.encode()), pb.RangeResponse)
        if proof.value is None:
            return 0 if found.kvs else found.header.revision
        return found.kvs[0].mod_revision if found.kvs and found.kvs[0].value == proof.value else 0

    # watches

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Commit]:
        channel = self._channel
        invoke = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        base = await self._base()
        after -= base
        if after < 0:
            raise Compacted  # the changes in the former store
        watch = _Watch(cast("grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]", invoke(None)), after)
        self._watches.add(watch)
        try:
            async for commit in self._commits(watch, prefix, after):
                yield Commit(base + commit.revision, commit.changes)
        except AioRpcError as error:
            if not self._closed:
                self._failed(channel)
                raise error_of(error) from None
        except asyncio.CancelledError:
            # gRPC cancels the reader of a call that ``close`` has cancelled.
            if not self._closed or (task := asyncio.current_task()) is None or task.cancelling():
                raise
        finally:
            self._watches.discard(watch)
            watch.call.cancel()

    async def _commits(self, watch: _Watch, prefix: str, after: int) -> AsyncIterator[Commit]:
        create = pb.WatchCreateRequest(
            key=prefix.encode(), range_end=_after(prefix), start_revision=after + 1, fragment=True, progress_notify=True
        )
        await watch.call.write(pb.WatchRequest(create_request=create))
        events: list[pb.Event] = []
        async for answer in watch.call:
            if answer.compact_revision:
                raise Compacted
            if answer.canceled:
                raise WharfError(Kind.UNAVAILABLE, f"etcd ended a watch: {answer.cancel_reason}")
            if answer.created:
                watch.created = True
                await self._request_progress(watch)
                continue
            events += answer.events
            if answer.fragment:
                continue
            for commit in _by_revision(events):
                yield commit
            events = []
            if answer.header.revision > watch.reached:
                watch.reached = answer.header.revision
                if not answer.events:
                    yield Commit(answer.header.revision, [])

    async def _ask_progress(self, revision: int) -> None:
        """Lets the watches report that they have reached a revision: it may contain none of their keys."""
        for watch in self._watches:
            if watch.created and watch.reached < revision:
                await self._request_progress(watch)

    async def _request_progress(self, watch: _Watch) -> None:
        try:
            await watch.call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        except (AioRpcError, asyncio.InvalidStateError):
            return  # the call has ended, which its reader learns itself

    # leases

    async def grant(self, seconds: int) -> int:
        answer = await self._call("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=seconds), pb.LeaseGrantResponse)
        return answer.ID

    async def keep_alive(self, lease: int) -> None:
        invoke = self._channel.stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=pb.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=pb.LeaseKeepAliveResponse.FromString,
        )
        requests = iter([pb.LeaseKeepAliveRequest(ID=lease)])
        stream = invoke(requests, timeout=timeouts.seconds("swarm.store"))
        try:
            got = await _leased(result_of(anext(aiter(stream))))
        finally:
            stream.cancel()
        if got.TTL <= 0:
            raise LeaseEnded

    async def revoke(self, lease: int) -> None:
        try:
            await self._call("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), pb.LeaseRevokeResponse)
        except LeaseEnded:
            return

    async def _call(self, method: str, request: Message, reply: type[R], *, seconds: float | None = None) -> R:
        channel = self._channel
        try:
            return await _leased(call(channel, method, request, reply, seconds=seconds))
        except WharfError as error:
            if error.kind is Kind.UNAVAILABLE:
                self._failed(channel)
            raise


async def _leased(answer: Awaitable[R]) -> R:
    """:raises LeaseEnded: :raises WharfError: what the contract names, and no other."""
    try:
        return await answer
    except WharfError as error:
        failure = error
    if failure.kind is Kind.NOT_FOUND and "lease" in failure.message:
        raise LeaseEnded
    if failure.kind in (Kind.RESOURCE_EXHAUSTED, Kind.UNAVAILABLE):
        raise failure
    raise WharfError(Kind.UNAVAILABLE, f"the swarm's store does not answer: {failure.message}")


def _after(prefix: str) -> bytes:
    """The end of the range of all keys that begin with ``prefix``. Keys are ASCII."""
    return prefix.encode() + b"\x7f"


def _proof(conditions: Sequence[Condition], writes: Sequence[Write]) -> Write | None:
    """The write that shows afterwards whether a commit was done; None: the commit must not be repeated.

    Without conditions a repetition could undo another commit, and a value does not show which lease its key has. Values
    of objects are unique, since they have the time of their change; empty values are those of marks, which many commits
    write."""
    if not conditions or any(write.lease for write in writes):
        return None
    puts = (write for write in writes if write.value)
    return next(puts, None) or next((write for write in writes if write.value is None), None)


def _compare(condition: Condition, base: int) -> pb.Compare:
    revision = condition.revision and condition.revision - base
    return pb.Compare(
        result=pb.Compare.EQUAL,
        target=pb.Compare.MOD,
        key=condition.key.encode(),
        # One that is not later than the base is of the former store, and no entry's any more; 0 is that of none.
        mod_revision=-1 if condition.revision and revision <= 0 else revision,
    )


def _operation(write: Write) -> pb.RequestOp:
    key = write.key.encode()
    if write.value is None:
        return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=write.value, lease=write.lease))


def _by_revision(events: Iterable[pb.Event]) -> list[Commit]:
    """etcd reports several commits at a time, in their order."""
    found: dict[int, list[Change]] = {}
    for event in events:
        value = event.kv.value if event.type == pb.Event.PUT else None
        found.setdefault(event.kv.mod_revision, []).append(Change(event.kv.key.decode(), value))
    return [Commit(revision, changes) for revision, changes in found.items()]
