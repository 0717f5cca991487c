"""The error vocabulary. Domain code raises a kind; two tables turn it into a status: kind → HTTP in
``server/http/errors.py``, kind ↔ gRPC in ``engine/api/errors.py``.

Where a client sees the message, it is dockerd's sentence. No code decides by an error's text: it decides by the kind,
and where a kind is not enough by the reason.
"""

from collections.abc import Iterator, Mapping
from enum import Enum


class Kind(Enum):
    """The kinds of errors, named as in containerd's errdefs."""

    INVALID_ARGUMENT = "invalid argument"
    NOT_FOUND = "not found"
    CONFLICT = "conflict"
    ALREADY_EXISTS = "already exists"
    NOT_MODIFIED = "not modified"
    FAILED_PRECONDITION = "failed precondition"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission denied"
    NOT_IMPLEMENTED = "not implemented"
    UNAVAILABLE = "unavailable"
    RESOURCE_EXHAUSTED = "resource exhausted"
    OUT_OF_RANGE = "out of range"
    DEADLINE_EXCEEDED = "deadline exceeded"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class Reason(Enum):
    """The exact reason of an error, for callers that need more than a kind. The values are the reasons of
    ``google.rpc.ErrorInfo`` over gRPC, and the words of the shims (``engine.shim.runtime.refusals``)."""

    # A process is not started, in runc's terms.
    CONTAINER_PAUSED = "CONTAINER_PAUSED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    IS_A_DIRECTORY = "IS_A_DIRECTORY"
    NOT_A_DIRECTORY = "NOT_A_DIRECTORY"
    NO_SUCH_FILE = "NO_SUCH_FILE"
    LOG_DRIVER = "LOG_DRIVER"
    # A registry's codes.
    NAME_UNKNOWN = "NAME_UNKNOWN"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    TOO_MANY_REQUESTS = "TOOMANYREQUESTS"
    # A Dockerfile has a keyword that is no instruction.
    UNKNOWN_INSTRUCTION = "UNKNOWN_INSTRUCTION"
    # A Git server can't send a history of limited depth.
    SHALLOW_UNSUPPORTED = "SHALLOW_UNSUPPORTED"
    # The managers of a swarm have removed the node that calls.
    NODE_REMOVED = "NODE_REMOVED"


class WharfError(Exception):
    """An error with a kind, and a reason where one is known. ``message`` is the text that a client reads."""

    def __init__(self, kind: Kind, message: str, *, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.reason = reason

    def worded(self, message: str) -> "WharfError":
        """The same kind and reason with another message."""
        return WharfError(self.kind, message, reason=self.reason)

    @classmethod
    def from_json(cls, error: Mapping[str, object]) -> "WharfError":
        """An error as the shims and I/O hosts send it: ``kind``, ``message`` and perhaps ``reason``. INTERNAL for a
        kind that isn't known."""
        try:
            kind = Kind(error.get("kind"))
        except ValueError:
            kind = Kind.INTERNAL
        return cls(kind, str(error.get("message", "")), reason=reason_of(error.get("reason")))


def reason_of(word: object) -> Reason | None:
    """The reason with this value; None for any other: it may come from a newer peer."""
    try:
        return Reason(word)
    except ValueError:
        return None


def invalid(message: str, *, reason: Reason | None = None) -> WharfError:
    return WharfError(Kind.INVALID_ARGUMENT, message, reason=reason)


def not_found(message: str) -> WharfError:
    return WharfError(Kind.NOT_FOUND, message)


def conflict(message: str) -> WharfError:
    return WharfError(Kind.CONFLICT, message)


def not_modified(message: str = "") -> WharfError:
    return WharfError(Kind.NOT_MODIFIED, message)


def not_implemented(message: str) -> WharfError:
    return WharfError(Kind.NOT_IMPLEMENTED, message)


def internal(message: str, *, reason: Reason | None = None) -> WharfError:
    return WharfError(Kind.INTERNAL, message, reason=reason)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error, then its causes (``__cause__``), each once: an error that was raised from itself ends the
    walk."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__
