"""A gRPC channel to a member of etcd, and etcd's errors in the words of dockerd's swarm."""

from collections.abc import Awaitable
from typing import TypeVar, cast

import grpc.aio
from google.protobuf.message import Message
from grpc.aio import AioRpcError

from engine.api.errors import from_status
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.swarmtext import NO_LEADER

timeouts.define("swarm.store", 10.0)  # an answer of etcd, with an election of its leader between

FULL = (
    "the swarm's store is full: nothing can be added or changed until services, secrets or configs are removed"
    " (etcd: database space exceeded)"
)

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 4 << 20),
    # A member that starts again is used at once: it needs less than a second to start.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A member that vanished without a word is noticed after 10 s without an answer.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_http_proxy", 0),
)
#: What etcd answers without a leader: none is known, the old one was lost, a majority does not answer in time, or this
#: member stops. Some of these have the status UNKNOWN.
_LEADERLESS = ("no leader", "leader changed", "leader failure", "request timed out", "stopped")

R = TypeVar("R", bound=Message)


def open_channel(endpoint: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """A channel to an endpoint: ``unix:/path`` or ``host:port``, an IPv6 address in brackets."""
    target = endpoint if endpoint.startswith("unix:") else f"dns:///{endpoint}"
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)


async def call(
    channel: grpc.aio.Channel, method: str, request: Message, reply: type[R], *, seconds: float | None = None
) -> R:
    """Calls a method of etcd, ``<service>/<method>``. ``seconds``: until it fails; None: as ``swarm.store``.

    :raises WharfError: UNAVAILABLE; RESOURCE_EXHAUSTED; and those of etcd's own answers.
    """
    invoke = channel.unary_unary(
        f"/etcdserverpb.{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=reply.FromString,
    )
    deadline = timeouts.seconds("swarm.store") if seconds is None else seconds
    return await result_of(cast("Awaitable[R]", invoke(request, timeout=deadline, wait_for_ready=True)))


async def result_of(call: Awaitable[R]) -> R:
    """What a call returns; errors as in ``call``."""
    try:
        return await call
    except AioRpcError as error:
        raise error_of(error) from None


def error_of(error: AioRpcError) -> WharfError:
    """etcd's errors have a gRPC status that covers several causes, so the text distinguishes them."""
    found = from_status(error.code().value[0], error.details() or "")
    if found.kind is Kind.RESOURCE_EXHAUSTED and "database space exceeded" in found.message:
        return found.worded(FULL)
    if found.kind is Kind.DEADLINE_EXCEEDED or (
        found.kind in (Kind.UNAVAILABLE, Kind.INTERNAL) and any(word in found.message for word in _LEADERLESS)
    ):
        return WharfError(Kind.UNAVAILABLE, NO_LEADER)
    if found.kind in (Kind.UNAVAILABLE, Kind.CANCELLED, Kind.INTERNAL, Kind.UNAUTHENTICATED, Kind.PERMISSION_DENIED):
        return WharfError(Kind.UNAVAILABLE, f"the swarm's store does not answer: {found.message}")
    return found
