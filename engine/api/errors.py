"""The table Kind ↔ gRPC status. The supervisor's servicers raise WharfError, which ``engine.api.serving`` turns into a
status; the client turns the status into a WharfError again.

CONFLICT and NOT_MODIFIED become FAILED_PRECONDITION, as in containerd: the server decides Docker's 409 and 304, so
these kinds never have to pass gRPC.

A reason travels as a ``google.rpc.ErrorInfo`` in the status details, which only our own supervisor sends: callers that
support a stock containerd decide by the kind.
"""

from enum import IntEnum

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from engine.api.pb.rpc_status_pb2 import ErrorInfo, Status
from engine.common.errors import Kind, Reason, WharfError, reason_of


class Code(IntEnum):
    """gRPC's codes of a status."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


#: Whose reasons an ErrorInfo names.
_DOMAIN = "wharf"

_TO_CODE = {
    Kind.INVALID_ARGUMENT: Code.INVALID_ARGUMENT,
    Kind.NOT_FOUND: Code.NOT_FOUND,
    Kind.CONFLICT: Code.FAILED_PRECONDITION,
    Kind.ALREADY_EXISTS: Code.ALREADY_EXISTS,
    Kind.NOT_MODIFIED: Code.FAILED_PRECONDITION,
    Kind.FAILED_PRECONDITION: Code.FAILED_PRECONDITION,
    Kind.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    Kind.PERMISSION_DENIED: Code.PERMISSION_DENIED,
    Kind.NOT_IMPLEMENTED: Code.UNIMPLEMENTED,
    Kind.UNAVAILABLE: Code.UNAVAILABLE,
    Kind.RESOURCE_EXHAUSTED: Code.RESOURCE_EXHAUSTED,
    Kind.OUT_OF_RANGE: Code.OUT_OF_RANGE,
    Kind.DEADLINE_EXCEEDED: Code.DEADLINE_EXCEEDED,
    Kind.CANCELLED: Code.CANCELLED,
    # containerd sends errors of its own without a kind as UNKNOWN, and clients expect the same here.
    Kind.INTERNAL: Code.UNKNOWN,
}

_TO_KIND: dict[int, Kind] = {
    **{code: kind for kind, code in _TO_CODE.items()},
    Code.FAILED_PRECONDITION: Kind.FAILED_PRECONDITION,
    Code.ABORTED: Kind.CONFLICT,
    Code.INTERNAL: Kind.INTERNAL,
    Code.DATA_LOSS: Kind.INTERNAL,
}


class Detailed(WharfError):
    """An error that carries a serialized ``google.rpc.Status`` to the client."""

    def __init__(self, kind: Kind, message: str, status: bytes) -> None:
        super().__init__(kind, message)
        self.status = status


def to_code(kind: Kind) -> Code:
    return _TO_CODE[kind]


def details(error: WharfError) -> bytes:
    """The serialized ``google.rpc.Status`` of an error with more than a code and a sentence; b"" for others."""
    if isinstance(error, Detailed):
        return error.status
    if error.reason is None:
        return b""
    status = Status(code=to_code(error.kind), message=error.message)
    detail = Any()
    detail.Pack(ErrorInfo(reason=error.reason.value, domain=_DOMAIN))
    status.details.append(detail)
    return status.SerializeToString()


def _reason(details: bytes) -> Reason | None:
    info = ErrorInfo()
    try:
        for detail in Status.FromString(details).details:
            if detail.Unpack(info) and info.domain == _DOMAIN:
                return reason_of(info.reason)
    except DecodeError:
        return None
    return None


def from_status(code: int, message: str, details: bytes = b"") -> WharfError:
    """The error for a status: its code, its message and its details, a serialized ``google.rpc.Status``."""
    reason = _reason(details) if details else None
    return WharfError(_TO_KIND.get(code, Kind.INTERNAL), message, reason=reason)
