"""Wildcards of paths as regular expressions that do not backtrack without end.

A pattern is a list of tokens: a regular expression for exactly one character, :data:`STAR` (any characters but ``/``),
:data:`DOUBLE` (any characters) or :data:`FOLDERS` (nothing, or any characters up to a ``/``). The earliest place of
what follows a wildcard is always right if another wildcard of the same or a wider kind comes later, so it is put into
an atomic group. What is left to try is quadratic in the path, whatever the pattern.
"""

import re
from collections.abc import Sequence

from engine.common import limits
from engine.common.errors import invalid

STAR, DOUBLE, FOLDERS = "*", "**", "**/"


def compiled(tokens: Sequence[str]) -> re.Pattern[str]:
    """For ``fullmatch``. Raises INVALID_ARGUMENT for a pattern that is too long, or a class that can't be read."""
    if len(tokens) > limits.GLOB_BYTES:
        raise limits.exceeded("GLOB_BYTES", "the length of a pattern")
    segments: list[tuple[str, list[list[str]]]] = [("", [[]])]
    for token in tokens:
        if token in (DOUBLE, FOLDERS):
            segments.append((token, [[]]))
        elif token == STAR:
            segments[-1][1].append([])
        else:
            segments[-1][1][-1].append(token)
    try:
        return re.compile("(?s:" + "".join(_segment(*each, last=each is segments[-1]) for each in segments) + ")")
    except (re.error, RecursionError):
        raise invalid("syntax error in pattern") from None


def _segment(wildcard: str, pieces: Sequence[Sequence[str]], *, last: bool) -> str:
    """A wildcard over folders, and the pieces behind it with a :data:`STAR` between any two."""
    first, *more = ("".join(piece) for piece in pieces)
    out = [first]
    for number, piece in enumerate(more, 1):
        # The last piece of all ends where the path ends.
        out.append(f"[^/]*{piece}" if last and number == len(more) else f"(?>[^/]*?{piece})")
    body = "".join(out)
    begin = {"": "", DOUBLE: ".*?", FOLDERS: "(?:.*?/)??"}[wildcard]
    return body if not wildcard else f"{begin}{body}" if last else f"(?>{begin}{body})"
