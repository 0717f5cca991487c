"""Errors that refer to lines of a Dockerfile, and the excerpt that clients show for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.common.errors import Kind, Reason, WharfError

CONTEXT = 3
"""Lines shown before and after those of an error."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of Dockerfile lines, counted from 1, both ends included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Warning:
    """A finding of a build check: rule, sentence, location."""

    rule: str
    message: str
    span: Span


class DockerfileError(WharfError):
    """An invalid Dockerfile. ``span``: the lines concerned; ``None`` if the error concerns the whole file.

    ``numbered``: the message includes the line number, as errors of the parser do and errors of later steps don't.
    """

    def __init__(
        self, message: str, span: Span | None = None, *, numbered: bool | None = None, reason: Reason | None = None
    ) -> None:
        super().__init__(Kind.INVALID_ARGUMENT, message, reason=reason)
        self.span, self.numbered = span, numbered
        self.warnings: Sequence[Warning] = ()
        """Findings of build checks before the error."""

    @property
    def sentence(self) -> str:
        """The message as both builders of dockerd send it: with the line number, if any."""
        if self.span is None or not self.numbered:
            return self.message
        return f"dockerfile parse error on line {self.span.first}: {self.message}"


def excerpt(name: str, lines: Sequence[str], span: Span) -> str:
    """Return the lines around an error, marked, as BuildKit's clients print them."""
    first = max(1, span.first - CONTEXT)
    last = min(len(lines), span.last + CONTEXT)
    shown = [f"{name}:{span.first}", "--------------------"]
    for number in range(first, last + 1):
        mark = ">>>" if span.first <= number <= span.last else "   "
        shown.append(f"{number:4d} | {mark} {lines[number - 1]}")
    shown.append("--------------------")
    return "\n".join(shown)
