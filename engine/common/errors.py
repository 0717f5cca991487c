"""The one error vocabulary. Domain code names the kind; two tables elsewhere turn it into a status:
kind → HTTP in ``server/http/errors.py``, kind ↔ gRPC in ``engine/api/errors.py``.

The message is dockerd's sentence where a client can see it. Nobody reads an error's text to decide.
"""

from collections.abc import Iterator
from enum import Enum


class Kind(Enum):
    """What went wrong, as containerd's errdefs names it."""

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


class WharfError(Exception):
    """An error with a kind. ``message`` is what a client reads."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def invalid(message: str) -> WharfError:
    return WharfError(Kind.INVALID_ARGUMENT, message)


def not_found(message: str) -> WharfError:
    return WharfError(Kind.NOT_FOUND, message)


def conflict(message: str) -> WharfError:
    return WharfError(Kind.CONFLICT, message)


def not_modified(message: str = "") -> WharfError:
    return WharfError(Kind.NOT_MODIFIED, message)


def not_implemented(message: str) -> WharfError:
    return WharfError(Kind.NOT_IMPLEMENTED, message)


def internal(message: str) -> WharfError:
    return WharfError(Kind.INTERNAL, message)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, then what caused it (``__cause__``), each once: an error that was raised from itself ends the walk."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__
