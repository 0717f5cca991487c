"""The patterns of ``.dockerignore`` and ``--exclude``.

Patterns are Go's ``filepath.Match`` plus ``**``; ``!`` negates; the last pattern that matches a path, or one of its
parent directories, decides. A pattern is cleaned and relative to the context's root.
"""

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.common import globs, limits
from engine.common.errors import invalid


def read(text: str) -> list[str]:
    """Parse a ``.dockerignore`` file: drop comments and blank lines, clean paths."""
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
    """Compile one path component with Go's wildcards. Raises INVALID_ARGUMENT for an invalid pattern."""
    return _expression(pattern)


_SPECIAL = re.compile(r"[*?\[\\]")


@dataclass(slots=True)
class _Run:
    """Consecutive patterns of the same sign: their order does not matter."""

    negated: bool
    names: set[str] = field(default_factory=set)
    """Patterns without wildcards: thousands are looked up at once."""
    expressions: list[re.Pattern[str]] = field(default_factory=list)

    def matches(self, paths: Sequence[str]) -> bool:
        return not self.names.isdisjoint(paths) or any(
            expression.fullmatch(path) for expression in self.expressions for path in paths
        )


class Ignore:
    """A compiled list of patterns. Raises INVALID_ARGUMENT for an invalid pattern, and for too many."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._runs: list[_Run] = []
        self._kept: list[str] = []
        """For each negated pattern, the path before its first wildcard: directories that may lead to a kept file."""
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
        """Whether the relative path is ignored, itself or by a parent directory."""
        if not self._runs:
            return False
        parts = path.split("/")
        prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        ignored = False
        for run in self._runs:
            if run.negated == ignored and run.matches(prefixes):
                ignored = not run.negated
        return ignored

    def may_contain_kept(self, directory: str) -> bool:
        """Whether a ``!`` pattern may match below an ignored directory."""
        below = directory + "/"
        return any(kept.startswith(below) or directory.startswith(kept.rstrip("/")) for kept in self._kept)
