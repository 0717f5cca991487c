"""The members of the swarm's etcd (https://etcd.io/docs/v3.5/learning/design-learner/).

A manager joins as a learner, which gets the whole state but has no vote, and becomes a voting member when it has caught
up. etcd has one learner at a time.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.swarm.store.channel import call, open_channel
from server.swarm.store.pb import etcd_pb2 as pb

timeouts.define("swarm.etcd-defragment", 120.0)  # etcd copies its database

R = TypeVar("R", bound=Message)

_QUORUM = (
    "rpc error: code = FailedPrecondition desc = can't remove member from the raft: this would result in a loss of"
    " quorum"
)
_TAKEN = "a manager of the swarm has the address {} already: demote its node and remove it first"
_OFFLINE = "a manager can't join the swarm while one of its managers is offline, or has joined a few seconds ago"
#: What etcd answers when a change of the members could cost the majority. It adds and removes only while all, or a
#: majority, of the others have been connected for 5 s.
_UNSAFE = ("unhealthy cluster", "not enough started members")
#: How long a removal is tried again that etcd refuses: a little longer than these 5 s.
_HEALTHY, _PAUSE = 6.0, 0.5
_SECOND = 1.0
_IN_SYNC = "in sync with leader"
_TOO_MANY = "too many learner members"


@dataclass(frozen=True, slots=True)
class Member:
    """``name``: the node's id; "": it has not started yet."""

    id: int
    name: str
    peer_urls: Sequence[str]
    learner: bool

    @property
    def started(self) -> bool:
        return bool(self.name)


@dataclass(frozen=True, slots=True)
class Added:
    """A new learner: its id, and ``MemberOptions.initial_cluster`` for its start."""

    id: int
    initial_cluster: str


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """The member that answers. ``leader``: the id of etcd's leader; 0: it knows none. ``size``: bytes of its database,
    ``used``: without what a defragmentation would release."""

    id: int
    leader: int
    learner: bool
    revision: int
    size: int
    used: int


class Members:
    """Asks one member, mostly this node's. Close it at the end.

    All methods raise WharfError: UNAVAILABLE: there is no majority, or no answer."""

    def __init__(self, endpoint: str) -> None:
        self._channel = open_channel(endpoint, None)

    async def close(self) -> None:
        await self._channel.close(None)

    async def list(self) -> Sequence[Member]:
        """All members, as the majority knows them."""
        answer = await self._call("MemberList", pb.MemberListRequest(linearizable=True), pb.MemberListResponse)
        return _members(answer.members)

    async def add_learner(self, name: str, peer_url: str) -> Added:
        """Adds the member of the node ``name``. Adding a learner twice is no error: the answer was lost, or the node
        begins anew.

        :raises WharfError: also UNAVAILABLE: another node is joining or has just joined, or a manager is offline.
            CONFLICT: a voting member has the URL.
        """
        for member in await self.list():
            if peer_url in member.peer_urls:
                if not member.learner:
                    raise WharfError(Kind.CONFLICT, _TAKEN.format(peer_url))
                # Its data may be lost: a member with an id that it has used may have forgotten what it has voted for.
                await self.remove(member.id)
                # A member's id is a digest of its URL and of the second in which it was added.
                await asyncio.sleep(_SECOND)
        request = pb.MemberAddRequest(peerURLs=[peer_url], isLearner=True)
        try:
            answer = await self._call("MemberAdd", request, pb.MemberAddResponse)
        except WharfError as error:
            if _TOO_MANY in error.message:
                raise WharfError(Kind.UNAVAILABLE, "another manager is joining the swarm; try again") from None
            raise _offline(error) from None
        return Added(answer.member.ID, _initial_cluster(answer.members, answer.member.ID, name))

    async def promote(self, id: int) -> None:
        """Makes a learner a voting member. It is no error if it is one.

        :raises WharfError: also UNAVAILABLE: it has not caught up; NOT_FOUND.
        """
        try:
            await self._call("MemberPromote", pb.MemberPromoteRequest(ID=id), pb.MemberPromoteResponse)
        except WharfError as error:
            found = next((member for member in await self.list() if member.id == id), None)
            if found is not None and not found.learner:
                return
            if _IN_SYNC in error.message:
                raise WharfError(Kind.UNAVAILABLE, "the new manager has not caught up with the swarm yet") from None
            raise _offline(error) from None

    async def remove(self, id: int) -> None:
        """Removes a member. Its process ends by itself (``child.Status.REMOVED``). A missing one is no error.

        :raises WharfError: also FAILED_PRECONDITION: too few voting members would be left, or online.
        """
        voters = [member.id for member in await self.list() if not member.learner]
        if voters == [id]:
            raise WharfError(Kind.FAILED_PRECONDITION, _QUORUM)
        ends = time.monotonic() + _HEALTHY
        while True:
            try:
                await self._call("MemberRemove", pb.MemberRemoveRequest(ID=id), pb.MemberRemoveResponse)
            except WharfError as error:
                if error.kind is Kind.NOT_FOUND:
                    return
                if not _is_unsafe(error):
                    raise
                if time.monotonic() > ends:
                    raise WharfError(Kind.FAILED_PRECONDITION, _QUORUM) from None
            else:
                return
            await asyncio.sleep(_PAUSE)

    async def update(self, id: int, peer_url: str) -> None:
        """The member has another address. :raises WharfError: also NOT_FOUND."""
        await self._call("MemberUpdate", pb.MemberUpdateRequest(ID=id, peerURLs=[peer_url]), pb.MemberUpdateResponse)

    async def status(self) -> MemberStatus:
        """Of the member that is asked; it answers also without a majority."""
        answer = await call(self._channel, "Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
        return MemberStatus(
            answer.header.member_id,
            answer.leader,
            answer.isLearner,
            answer.header.revision,
            answer.dbSize,
            answer.dbSizeInUse,
        )

    # the space of the databases

    async def without_space(self) -> Sequence[int]:
        """The members with the alarm NOSPACE."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET, alarm=pb.NOSPACE)
        answer = await call(self._channel, "Maintenance/Alarm", request, pb.AlarmResponse)
        return [each.memberID for each in answer.alarms if each.alarm == pb.NOSPACE]

    async def disarm(self, id: int) -> None:
        """Ends the alarm NOSPACE of a member."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=id, alarm=pb.NOSPACE)
        await call(self._channel, "Maintenance/Alarm", request, pb.AlarmResponse)

    async def compact(self, revision: int) -> None:
        """Removes what was overwritten or deleted until this revision, on all members."""
        request = pb.CompactionRequest(revision=revision, physical=True)
        seconds = timeouts.seconds("swarm.etcd-defragment")
        try:
            await call(self._channel, "KV/Compact", request, pb.CompactionResponse, seconds=seconds)
        except WharfError as error:
            if error.kind is not Kind.OUT_OF_RANGE:  # it was done before
                raise

    async def defragment(self) -> None:
        """Gives unused space of the asked member's database back. The member serves nothing meanwhile."""
        request = pb.DefragmentRequest()
        seconds = timeouts.seconds("swarm.etcd-defragment")
        await call(self._channel, "Maintenance/Defragment", request, pb.DefragmentResponse, seconds=seconds)

    async def _call(self, method: str, request: Message, reply: type[R]) -> R:
        return await call(self._channel, f"Cluster/{method}", request, reply)


def _members(found: "Sequence[pb.Member]") -> Sequence[Member]:
    return [Member(each.ID, each.name, list(each.peerURLs), each.isLearner) for each in found]


def _initial_cluster(members: "Sequence[pb.Member]", new: int, name: str) -> str:
    """etcd compares the URLs only; each needs some name, also if its member has not started."""
    pairs = []
    for member in members:
        own = new == member.ID
        called = name if own else member.name or f"member-{member.ID:x}"
        pairs += [f"{called}={url}" for url in member.peerURLs]
    return ",".join(pairs)


def _is_unsafe(error: WharfError) -> bool:
    return any(word in error.message for word in _UNSAFE)


def _offline(error: WharfError) -> WharfError:
    return WharfError(Kind.UNAVAILABLE, _OFFLINE) if _is_unsafe(error) else error
