"""etcd's errors in the words of dockerd's swarm."""

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from engine.common.errors import Kind
from server.swarm.store.channel import error_of
from server.swarmtext import NO_LEADER


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (StatusCode.UNAVAILABLE, "etcdserver: no leader"),
        (StatusCode.UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure"),
        (StatusCode.UNAVAILABLE, "etcdserver: server stopped"),
        # A write that is under way when the member ends.
        (StatusCode.UNKNOWN, "raft: stopped"),
        (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
    ],
)
def test_without_a_leader_the_sentence_is_dockerds(status: StatusCode, text: str) -> None:
    error = error_of(AioRpcError(status, Metadata(), Metadata(), details=text, debug_error_string=""))
    assert (error.kind, error.message) == (Kind.UNAVAILABLE, NO_LEADER)


def test_other_errors_keep_their_text() -> None:
    error = error_of(
        AioRpcError(
            StatusCode.UNKNOWN, Metadata(), Metadata(), details="no space left on device", debug_error_string=""
        )
    )
    assert error.kind is Kind.UNAVAILABLE
    assert "no space left on device" in error.message
