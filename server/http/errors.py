"""Chooses the HTTP status by the kind of an error, or by its reason; no other module does. The body is dockerd's error
format."""

import logging

from engine.common import jsontext
from engine.common.errors import Kind, Reason, WharfError, causes
from engine.common.system.reserve import disk_error
from server.messages import message_of

log = logging.getLogger(__name__)

STATUS = {
    Kind.INVALID_ARGUMENT: 400,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.ALREADY_EXISTS: 409,
    Kind.NOT_MODIFIED: 304,
    Kind.FAILED_PRECONDITION: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.PERMISSION_DENIED: 403,
    Kind.NOT_IMPLEMENTED: 501,
    Kind.UNAVAILABLE: 503,
    Kind.RESOURCE_EXHAUSTED: 500,
    Kind.OUT_OF_RANGE: 400,
    Kind.DEADLINE_EXCEEDED: 500,
    Kind.CANCELLED: 499,
    Kind.INTERNAL: 500,
}
#: The statuses of errors that need one apart from their kind's.
STATUS_OF_REASON = {Reason.TOO_MANY_REQUESTS: 429}


def status_of(error: BaseException) -> int:
    """The HTTP status of an error; 500 for an exception that is no WharfError."""
    if not isinstance(error, WharfError):
        return 500
    return STATUS_OF_REASON.get(error.reason, STATUS[error.kind]) if error.reason else STATUS[error.kind]


def report(error: BaseException, request: str) -> None:
    """Logs an error: internal errors with their traceback, failures of the host in one line."""
    error = disk_error(error)
    if not isinstance(error, WharfError):
        log.error("%s: %s", request, error, exc_info=error)
    elif status_of(error) >= 500:
        log.error("%s: %s", request, error.message, exc_info=error if _is_defect(error) else None)
    else:
        log.debug("%s: %s", request, error.message)


def _is_defect(error: BaseException) -> bool:
    """Whether an unexpected exception caused the error. A refusal of the runtime, the kernel or a peer is completely
    described by its message."""
    cause = next((found for found in causes(error) if not isinstance(found, WharfError)), None)
    return cause is not None and not isinstance(cause, OSError)


def error_body(error: BaseException) -> bytes:
    """``{"message": "..."}`` and a newline."""
    return jsontext.escaped(jsontext.dumps({"message": message_of(error)}), html=False) + b"\n"
