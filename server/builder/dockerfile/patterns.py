"""Shell patterns of substitutions (``${a#x*}``, ``${a/x?/y}``): ``*``, ``?`` and ``\\`` escapes.

A pattern is split at its ``*`` into pieces of fixed length. The earliest match of each piece is always right, because
the ``*`` after it can match everything that follows. So nothing is tried twice, and the time is bounded by the length
of the value times that of the pattern. A single regular expression for the whole pattern would backtrack.
"""

import re
from collections.abc import Iterator, Sequence

Span = tuple[int, int]
"""Start and end of a match."""


def strip_prefix(pattern: str, value: str, *, greedy: bool) -> str:
    """Strip the shortest matching prefix; with ``greedy`` the longest."""
    return value[_prefix(_pieces(_tokens(pattern)), value, greedy=greedy) :]


def strip_suffix(pattern: str, value: str, *, greedy: bool) -> str:
    """Strip a suffix: a prefix of the reversed value by the reversed pattern."""
    turned = value[::-1]
    return turned[_prefix(_pieces(_tokens(pattern)[::-1]), turned, greedy=greedy) :][::-1]


def find(pattern: str, value: str, *, everywhere: bool) -> list[Span]:
    """Return the matches, each the longest from its start; without ``everywhere`` only the first."""
    pieces = _pieces(_tokens(pattern))
    found: list[Span] = []
    for span in _matches(pieces, value):
        found.append(span)
        if not everywhere:
            break
    return found


def replace(value: str, spans: Sequence[Span], replacement: str) -> str:
    """Replace these spans of the value."""
    out: list[str] = []
    at = 0
    for begin, end in spans:
        out += (value[at:begin], replacement)
        at = end
    return "".join((*out, value[at:]))


def _tokens(pattern: str) -> list[str]:
    """Return a regular expression for each character of the pattern; an empty one for ``*``."""
    tokens: list[str] = []
    characters = iter(pattern)
    for char in characters:
        if char == "*":
            tokens.append("")
        elif char == "?":
            tokens.append(".")
        else:
            tokens.append(re.escape(next(characters, char) if char == "\\" else char))
    return tokens


def _pieces(tokens: Sequence[str]) -> list[re.Pattern[str]]:
    pieces: list[list[str]] = [[]]
    for token in tokens:
        if token:
            pieces[-1].append(token)
        else:
            pieces.append([])
    return [re.compile("".join(piece), re.DOTALL) for piece in pieces]


def _prefix(pieces: Sequence[re.Pattern[str]], value: str, *, greedy: bool) -> int:
    """Return the end of the matching prefix; 0 if none matches."""
    first = pieces[0].match(value)
    return (_match_end(pieces, value, first.end(), greedy=greedy) or 0) if first else 0


def _match_end(pieces: Sequence[re.Pattern[str]], value: str, at: int, *, greedy: bool) -> int | None:
    """Return the end of a match whose first piece ends at ``at``."""
    for piece in pieces[1:-1]:
        found = piece.search(value, at)
        if found is None:
            return None
        at = found.end()
    if len(pieces) == 1:
        return at
    last = _last(pieces[-1], value, at) if greedy else pieces[-1].search(value, at)
    return last.end() if last else None


def _last(piece: re.Pattern[str], value: str, at: int) -> re.Match[str] | None:
    """Return the last match of a piece. A leading ``.*`` consumes the text before it and backtracks from the end."""
    return re.compile(f"(?s:.*)(?:{piece.pattern})", re.DOTALL).match(value, at)


def _matches(pieces: Sequence[re.Pattern[str]], value: str) -> Iterator[Span]:
    if len(pieces) == 1:
        yield from (match.span() for match in pieces[0].finditer(value))
        return
    at = 0
    while first := pieces[0].search(value, at):
        end = _match_end(pieces, value, first.end(), greedy=True)
        if end is None:
            return  # a piece that matches nowhere after this start matches after no later one
        yield first.start(), end
        if end == len(value):
            return
        at = max(end, first.start() + 1)
