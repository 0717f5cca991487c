"""The one place that chooses an HTTP status: from the kind of an error. The body is dockerd's form of it."""

import logging

from engine.common import jsontext
from engine.common.errors import Kind, WharfError, causes
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


def status_of(error: BaseException) -> int:
    """The HTTP status of an error; what isn't ours is 500."""
    return STATUS[error.kind] if isinstance(error, WharfError) else 500


def report(error: BaseException, request: str) -> None:
    """Logs what a person must know: defects with their trace, failures of the host with a line."""
    error = disk_error(error)
    if not isinstance(error, WharfError):
        log.error("%s: %s", request, error, exc_info=error)
    elif status_of(error) >= 500:
        log.error("%s: %s", request, error.message, exc_info=error if _is_defect(error) else None)
    else:
        log.debug("%s: %s", request, error.message)


def _is_defect(error: BaseException) -> bool:
    """Whether an exception that this project did not foresee is behind an error. What the runtime, the kernel or a
    peer refuses is told in full by its message."""
    cause = next((found for found in causes(error) if not isinstance(found, WharfError)), None)
    return cause is not None and not isinstance(cause, OSError)


def error_body(error: BaseException) -> bytes:
    """``{"message": "..."}`` and a newline."""
    return jsontext.escaped(jsontext.dumps({"message": message_of(error)}), html=False) + b"\n"
