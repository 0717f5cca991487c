"""The table Kind ↔ gRPC status. The supervisor's servicers raise WharfError, which ``engine.api.serving`` turns into a
status; the client turns the status into a WharfError again.

CONFLICT and NOT_MODIFIED become FAILED_PRECONDITION, as in containerd: the server decides Docker's 409 and 304, so
these kinds never have to pass gRPC.

A reason travels as a ``google.rpc.ErrorInfo`` in the status details, which only our own supervisor sends: callers that
support a stock containerd decide by the kind.
"""

from collections.abc import Iterable
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from grpc.aio import AioRpcError

from engine.api.pb.rpc_status_pb2 import ErrorInfo, Status
from engine.common.errors import Kind, Reason, WharfError, reason_of

#: Trailing metadata key of a ``google.rpc.Status``, for errors with more than a code and a sentence.
DETAILS = "grpc-status-details-bin"
#: Whose reasons an ErrorInfo names.
_DOMAIN = "wharf"

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
    # containerd sends errors of its own without a kind as UNKNOWN, and clients expect the same here.
    Kind.INTERNAL: grpc.StatusCode.UNKNOWN,
}

_TO_KIND = {code: kind for kind, code in _TO_CODE.items()} | {
    grpc.StatusCode.FAILED_PRECONDITION: Kind.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED: Kind.CONFLICT,
    grpc.StatusCode.INTERNAL: Kind.INTERNAL,
    grpc.StatusCode.DATA_LOSS: Kind.INTERNAL,
}

#: gRPC's messages for a connection that ends or is reset during a call: the server has died. Other failures have the
#: same codes, so only the text distinguishes them.
_LOST = ("Stream removed", "Socket closed", "recvmsg:")


def to_code(kind: Kind) -> grpc.StatusCode:
    return _TO_CODE[kind]


def details(error: WharfError) -> bytes:
    """The value of ``DETAILS`` for an error with a reason; b"" without one."""
    if error.reason is None:
        return b""
    status = Status(code=to_code(error.kind).value[0], message=error.message)
    detail = Any()
    detail.Pack(ErrorInfo(reason=error.reason.value, domain=_DOMAIN))
    status.details.append(detail)
    return status.SerializeToString()


def _reason(error: AioRpcError) -> Reason | None:
    value = dict(cast(Iterable[tuple[str, str | bytes]], error.trailing_metadata() or ())).get(DETAILS)
    if not isinstance(value, bytes):
        return None
    info = ErrorInfo()
    try:
        for detail in Status.FromString(value).details:
            if detail.Unpack(info) and info.domain == _DOMAIN:
                return reason_of(info.reason)
    except DecodeError:
        return None
    return None


def from_status(code: grpc.StatusCode | None, message: str) -> WharfError:
    """The error for a status and its message."""
    return WharfError(_TO_KIND.get(code, Kind.INTERNAL) if code else Kind.INTERNAL, message)


def from_rpc_error(error: AioRpcError, server: str = "containerd") -> WharfError:
    """The error for a failed call. ``server``: what was called, for the sentence about a lost connection."""
    message = error.details() or ""
    if error.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE) and message.startswith(_LOST):
        return WharfError(Kind.UNAVAILABLE, f"the connection to {server} was lost during a call")
    found = from_status(error.code(), message)
    found.reason = _reason(error)
    return found
