"""Errors that point at lines, and the excerpt that a client shows for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.common.errors import Kind, Reason, WharfError

CONTEXT = 3
"""Lines shown before and after the ones an error is about."""


@dataclass(frozen=True, slots=True)
class Span:
    """Lines of the Dockerfile, counted from 1, both ends included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Warning:
    """A finding of a build check: rule, sentence, where."""

    rule: str
    message: str
    span: Span


class DockerfileError(WharfError):
    """A Dockerfile that can't be built. ``span`` is where; ``None`` when it is about the whole file.

    ``numbered``: the sentence names the line: the parser's errors do, those of later steps don't.
    """

    def __init__(
        self, message: str, span: Span | None = None, *, numbered: bool | None = None, reason: Reason | None = None
    ) -> None:
        super().__init__(Kind.INVALID_ARGUMENT, message, reason=reason)
        self.span, self.numbered = span, numbered
        self.warnings: Sequence[Warning] = ()
        """What build checks had found before."""

    @property
    def sentence(self) -> str:
        """The message as both builders of dockerd give it: with the line when there is one."""
        if self.span is None or not self.numbered:
            return self.message
        return f"dockerfile parse error on line {self.span.first}: {self.message}"


def excerpt(name: str, lines: Sequence[str], span: Span) -> str:
    """The lines around an error, marked, as BuildKit's clients print them."""
    first = max(1, span.first - CONTEXT)
    last = min(len(lines), span.last + CONTEXT)
    shown = [f"{name}:{span.first}", "--------------------"]
    for number in range(first, last + 1):
        mark = ">>>" if span.first <= number <= span.last else "   "
        shown.append(f"{number:4d} | {mark} {lines[number - 1]}")
    shown.append("--------------------")
    return "\n".join(shown)
