"""``.dockerignore``: which paths of a context are left out, and the same patterns for ``--exclude``.

Patterns are Go's ``filepath.Match`` plus ``**``; ``!`` takes back; the last pattern that fits a path, or a directory
above it, decides. A pattern is cleaned and taken relative to the context's root.
"""

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.common import globs, limits
from engine.common.errors import invalid


def read(text: str) -> list[str]:
    """The patterns of a ``.dockerignore`` file: comments and blank lines dropped, paths cleaned."""
    patterns: list[str] = []
    for raw in text.removeprefix("\ufeff").splitlines():
        if raw.startswith("#"):
            continue
        line = raw.strip()
        if not line:
            continue
        negated = line.startswith("!")
        if negated:
            line = line[1:].strip()
        if line:
            line = posixpath.normpath(line)
            if line.startswith("//"):
                line = line[1:]
            if len(line) > 1 and line.startswith("/"):
                line = line[1:]
        patterns.append("!" + line if negated else line)
    return patterns


def _expression(pattern: str) -> re.Pattern[str]:
    if len(pattern) > limits.GLOB_BYTES:
        raise limits.exceeded("GLOB_BYTES", "the length of a pattern")
    tokens: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                at += 1
                tokens.append(globs.FOLDERS)
            else:
                tokens.append(globs.DOUBLE)
            continue
        if char == "*":
            tokens.append(globs.STAR)
        elif char == "?":
            tokens.append("[^/]")
        elif char == "[":
            end = pattern.find("]", at + 2)
            if end < 0:
                raise invalid(f"error parsing pattern {pattern!r}: syntax error in pattern")
            inner = pattern[at + 1 : end]
            if inner.startswith("^"):
                inner = "^" + inner[1:].replace("^", r"\^")
            tokens.append("[" + inner + "]")
            at = end
        elif char == "\\" and at + 1 < len(pattern):
            at += 1
            tokens.append(re.escape(pattern[at]))
        else:
            tokens.append(re.escape(char))
        at += 1
    return globs.compiled(tokens)


def component(pattern: str) -> re.Pattern[str]:
    """One part of a path with Go's wildcards, compiled. Raises INVALID_ARGUMENT for one that can't be."""
    return _expression(pattern)


_SPECIAL = re.compile(r"[*?\[\\]")


@dataclass(slots=True)
class _Run:
    """Neighbouring patterns that all leave out, or all take back: their order does not matter."""

    negated: bool
    names: set[str] = field(default_factory=set)
    """Those without wildcards: thousands are looked up at once."""
    expressions: list[re.Pattern[str]] = field(default_factory=list)

    def fits(self, paths: Sequence[str]) -> bool:
        return not self.names.isdisjoint(paths) or any(
            expression.fullmatch(path) for expression in self.expressions for path in paths
        )


class Ignore:
    """A list of patterns, compiled. Raises INVALID_ARGUMENT for one that can't be, and for too many."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._runs: list[_Run] = []
        self._kept: list[str] = []
        """Of each pattern that takes back what comes before its first wildcard: where a directory must lead to."""
        for number, raw in enumerate(patterns):
            if number >= limits.IGNORE_PATTERNS:
                raise limits.exceeded("IGNORE_PATTERNS", "the number of patterns that leave files out")
            pattern = raw.strip()
            negated = pattern.startswith("!")
            if negated:
                pattern = pattern[1:]
                if not pattern:
                    raise invalid('illegal exclusion pattern: "!"')
            pattern = posixpath.normpath(pattern).lstrip("/") if pattern else pattern
            if not pattern or pattern == ".":
                continue
            self._add(pattern, negated=negated)

    def _add(self, pattern: str, *, negated: bool) -> None:
        if not self._runs or self._runs[-1].negated != negated:
            self._runs.append(_Run(negated))
        wildcard = _SPECIAL.search(pattern)
        if wildcard is None:
            self._runs[-1].names.add(pattern)
        else:
            self._runs[-1].expressions.append(_expression(pattern))
        if negated:
            self._kept.append(pattern if wildcard is None else pattern[: wildcard.start()])

    def __bool__(self) -> bool:
        return bool(self._runs)

    def ignores(self, path: str) -> bool:
        """Whether the relative path is left out, by itself or with a directory above it."""
        if not self._runs:
            return False
        parts = path.split("/")
        prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        ignored = False
        for run in self._runs:
            if run.negated == ignored and run.fits(prefixes):
                ignored = not run.negated
        return ignored

    def may_hold_kept(self, directory: str) -> bool:
        """Whether something in an ignored directory may be taken back by a ``!`` pattern."""
        below = directory + "/"
        return any(kept.startswith(below) or directory.startswith(kept.rstrip("/")) for kept in self._kept)
