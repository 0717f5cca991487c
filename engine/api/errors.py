"""Kind ↔ gRPC status: the only table of this kind. The supervisor's servicers raise WharfError, ``translated``
turns it into a status on the way out; the client turns the status into a WharfError again.

CONFLICT and NOT_MODIFIED become FAILED_PRECONDITION, as with containerd: Docker's reading of them belongs to the
server and never has to survive the wire.
"""

import grpc
from grpc.aio import AioRpcError

from engine.common.errors import Kind, WharfError

_TO_CODE = {
    Kind.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Kind.NOT_MODIFIED: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.FAILED_PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Kind.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Kind.NOT_IMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.OUT_OF_RANGE: grpc.StatusCode.OUT_OF_RANGE,
    Kind.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Kind.CANCELLED: grpc.StatusCode.CANCELLED,
    # containerd's own errors without a kind travel as UNKNOWN; clients expect no more of ours
    Kind.INTERNAL: grpc.StatusCode.UNKNOWN,
}

_TO_KIND = {code: kind for kind, code in _TO_CODE.items()} | {
    grpc.StatusCode.FAILED_PRECONDITION: Kind.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED: Kind.CONFLICT,
    grpc.StatusCode.INTERNAL: Kind.INTERNAL,
    grpc.StatusCode.DATA_LOSS: Kind.INTERNAL,
}

#: gRPC's words for a connection that ends or is reset in the middle of a call: the server has died.
_LOST = ("Stream removed", "Socket closed", "recvmsg:")


def to_code(kind: Kind) -> grpc.StatusCode:
    return _TO_CODE[kind]


def from_status(code: grpc.StatusCode | None, message: str) -> WharfError:
    """The error that a status and its message stand for."""
    return WharfError(_TO_KIND.get(code, Kind.INTERNAL) if code else Kind.INTERNAL, message)


def from_rpc_error(error: AioRpcError) -> WharfError:
    """The error that a failed call stands for."""
    message = error.details() or ""
    if error.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE) and message.startswith(_LOST):
        return WharfError(Kind.UNAVAILABLE, "containerd went away in the middle of a call")
    return from_status(error.code(), message)
