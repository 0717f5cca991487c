"""Failures of a start: the exit code and the message that dockerd reports for them.

The CLI derives its own exit code from words of the message (127 not found, 126 not executable, else 125). So the
message has the runtime's words, and the container's ``ExitCode`` is the same number.
"""

from dataclasses import dataclass
from itertools import takewhile

from engine.common.errors import Kind, Reason, WharfError, causes, internal, invalid, reason_of
from engine.shim.runtime import refusals

NOT_EXECUTABLE = 126
NOT_FOUND = 127
UNKNOWN = 128

#: Unreachable, too slow, or out of space: the same start may succeed later.
_TEMPORARY = frozenset((Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED, Kind.CANCELLED, Kind.RESOURCE_EXHAUSTED))
_TYPE_HINT = (
    ": Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Why a start failed. ``temporary``: because of the engine or the host, so a restart policy tries again; else
    because of the container's configuration (errors of the runtime), where dockerd, too, doesn't try again."""

    error: WharfError
    temporary: bool


def is_temporary(error: WharfError) -> bool:
    """Whether the same start may succeed later: the error or one of its causes has a temporary kind."""
    chain = takewhile(lambda found: isinstance(found, WharfError), causes(error))
    return any(isinstance(found, WharfError) and found.kind in _TEMPORARY for found in chain)


def refusal(error: WharfError) -> tuple[str, Reason | None]:
    """Why the engine could not run a process: the message in runc's words, and the reason.

    Our own shim sends the runtime's reason. Else the reason is parsed from the message: a stock containerd sends no
    reasons, and errors of log drivers and mounts have only the kernel's words.
    """
    text = refusals.in_runcs_words(error.message)
    if error.reason in (None, Reason.LOG_DRIVER):
        return text, reason_of(refusals.reason(text))
    return text, error.reason


def start_failure(error: WharfError) -> tuple[int, WharfError]:
    """The exit code of the container, and the error for the client, after a failed create or start of a task."""
    if error.kind in (Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED):
        return UNKNOWN, error
    text, reason = refusal(error)
    if reason is Reason.PERMISSION_DENIED:
        return NOT_EXECUTABLE, invalid(text, reason=reason)
    if reason is Reason.IS_A_DIRECTORY:
        # The CLI searches for "permission denied".
        return NOT_EXECUTABLE, invalid(f"{text}: permission denied", reason=reason)
    if reason is Reason.NOT_A_DIRECTORY:
        return NOT_FOUND, invalid(text + _TYPE_HINT, reason=reason)
    if reason is Reason.NO_SUCH_FILE:
        return NOT_FOUND, invalid(text, reason=reason)
    return UNKNOWN, internal(text, reason=reason)
