"""A start that failed: the exit code that Docker gives it, and the sentence clients look at.

The CLI turns words of the message into its own exit code (127 not found, 126 not executable, else 125), so the
message must carry the runtime's words, and the container's ``ExitCode`` is set alike.
"""

from dataclasses import dataclass
from itertools import takewhile

from engine.common.errors import Kind, WharfError, causes, internal, invalid
from engine.runtime.oci import in_runcs_words

NOT_EXECUTABLE = 126
NOT_FOUND = 127
UNKNOWN = 128

_NOT_FOUND_WORDS = (
    "executable file not found",
    "no such file or directory",
    "system cannot find the file specified",
    "failed to run runc create/exec call",
)
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


def start_failure(error: WharfError) -> tuple[int, WharfError]:
    """The exit code and the error for a failed create or start of a task."""
    if error.kind in (Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED):
        return UNKNOWN, error
    text = in_runcs_words(error.message)
    lower = text.lower()
    if "permission denied" in lower:
        return NOT_EXECUTABLE, invalid(text)
    if "is a directory" in lower:
        # The CLI looks for the older word.
        return NOT_EXECUTABLE, invalid(f"{text}: permission denied")
    if "not a directory" in lower:
        return NOT_FOUND, invalid(text + _TYPE_HINT)
    if any(words in lower for words in _NOT_FOUND_WORDS):
        return NOT_FOUND, invalid(text)
    return UNKNOWN, internal(text)
