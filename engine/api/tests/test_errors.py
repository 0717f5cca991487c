"""What a failed call stands for."""

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from engine.api.errors import from_rpc_error
from engine.common.errors import Kind


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Stream removed (recvmsg:Connection reset by peer (104))", Kind.UNAVAILABLE),
        ("something of the server's own", Kind.INTERNAL),
    ],
)
def test_a_reset_connection_is_a_server_that_is_away(message: str, kind: Kind) -> None:
    error = AioRpcError(grpc.StatusCode.UNKNOWN, Metadata(), Metadata(), message, "")
    assert from_rpc_error(error).kind is kind
