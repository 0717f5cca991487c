"""Path wildcards as regular expressions with bounded backtracking.

A pattern is a list of tokens: a regular expression for exactly one character, :data:`STAR` (any characters but ``/``),
:data:`DOUBLE` (any characters) or :data:`FOLDERS` (nothing, or any characters up to a ``/``). If another wildcard of
the same or a wider kind follows, the earliest match of the text after a wildcard is always right, so it is put into an
atomic group. The remaining attempts are quadratic in the path's length, whatever the pattern.
"""

import re
from collections.abc import Sequence

from engine.common import limits
from engine.common.errors import invalid

STAR, DOUBLE, FOLDERS = "*", "**", "**/"


def compiled(tokens: Sequence[str]) -> re.Pattern[str]:
    """A pattern for ``fullmatch``. Raises INVALID_ARGUMENT if the pattern is too long or has an invalid class."""
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
    """A wildcard over folders, and the pieces after it with a :data:`STAR` between any two."""
    first, *more = ("".join(piece) for piece in pieces)
    out = [first]
    for number, piece in enumerate(more, 1):
        # The last piece of the pattern ends where the path ends.
        out.append(f"[^/]*{piece}" if last and number == len(more) else f"(?>[^/]*?{piece})")
    body = "".join(out)
    begin = {"": "", DOUBLE: ".*?", FOLDERS: "(?:.*?/)??"}[wildcard]
    return body if not wildcard else f"{begin}{body}" if last else f"(?>{begin}{body})"
