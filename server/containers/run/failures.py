"""A start that failed: the exit code that Docker gives it, and the sentence clients look at.

The CLI turns words of the message into its own exit code (127 not found, 126 not executable, else 125), so the
message must carry the runtime's words, and the container's ``ExitCode`` is set alike.
"""

from dataclasses import dataclass
from itertools import takewhile

from engine.common.errors import Kind, Reason, WharfError, causes, internal, invalid, reason_of
from engine.shim.runtime import refusals

NOT_EXECUTABLE = 126
NOT_FOUND = 127
UNKNOWN = 128

#: The engine is unreachable, too slow or out of space: the same start may succeed later.
_TEMPORARY = frozenset((Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED, Kind.CANCELLED, Kind.RESOURCE_EXHAUSTED))
_TYPE_HINT = (
    ": Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Why a start failed. ``temporary``: the cause is the engine or the host, not the container's configuration, so a
    restart policy tries again. What the runtime refuses is configuration: dockerd gives up there, too."""

    error: WharfError
    temporary: bool


def is_temporary(error: WharfError) -> bool:
    """Whether the same start may succeed later. A refusal that was put into other words counts as its cause."""
    refusals = takewhile(lambda found: isinstance(found, WharfError), causes(error))
    return any(isinstance(found, WharfError) and found.kind in _TEMPORARY for found in refusals)


def refusal(error: WharfError) -> tuple[str, Reason | None]:
    """Why the engine refuses to run a process: the message in runc's words, and the reason.

    Our own shim sends the reason of the runtime. It is read from the message where there is none: a stock containerd
    sends only the message, and what stopped a log driver or a mount is said by the kernel's words, as with dockerd.
    """
    text = refusals.in_runcs_words(error.message)
    if error.reason in (None, Reason.LOG_DRIVER):
        return text, reason_of(refusals.reason(text))
    return text, error.reason


def start_failure(error: WharfError) -> tuple[int, WharfError]:
    """The exit code and the error for a failed create or start of a task."""
    if error.kind in (Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED):
        return UNKNOWN, error
    text, reason = refusal(error)
    if reason is Reason.PERMISSION_DENIED:
        return NOT_EXECUTABLE, invalid(text, reason=reason)
    if reason is Reason.IS_A_DIRECTORY:
        # The CLI looks for the older word.
        return NOT_EXECUTABLE, invalid(f"{text}: permission denied", reason=reason)
    if reason is Reason.NOT_A_DIRECTORY:
        return NOT_FOUND, invalid(text + _TYPE_HINT, reason=reason)
    if reason is Reason.NO_SUCH_FILE:
        return NOT_FOUND, invalid(text, reason=reason)
    return UNKNOWN, internal(text, reason=reason)
