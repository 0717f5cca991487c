"""``.dockerignore``: which paths of a context are left out, and the same patterns for ``--exclude``.

Patterns are Go's ``filepath.Match`` plus ``**``; ``!`` takes back; the last pattern that fits a path, or a directory
above it, decides. A pattern is cleaned and taken relative to the context's root.
"""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from engine import globs, limits
from engine.errors import invalid


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


@dataclass(frozen=True, slots=True)
class _Rule:
    expression: re.Pattern[str]
    negated: bool
    literal: str
    """The start of the pattern that holds no wildcard: what a directory must be on the way to."""


class Ignore:
    """A list of patterns, compiled. Raises INVALID_ARGUMENT for one that can't be."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules: list[_Rule] = []
        for raw in patterns:
            pattern = raw.strip()
            negated = pattern.startswith("!")
            if negated:
                pattern = pattern[1:]
                if not pattern:
                    raise invalid('illegal exclusion pattern: "!"')
            pattern = posixpath.normpath(pattern).lstrip("/") if pattern else pattern
            if not pattern or pattern == ".":
                continue
            literal = re.split(r"[*?\[\\]", pattern, maxsplit=1)[0]
            self._rules.append(_Rule(_expression(pattern), negated, literal))
        self._negations = [rule for rule in self._rules if rule.negated]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def ignores(self, path: str) -> bool:
        """Whether the relative path is left out, by itself or with a directory above it."""
        if not self._rules:
            return False
        parts = path.split("/")
        prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        ignored = False
        for rule in self._rules:
            if rule.negated != ignored:
                continue
            if any(rule.expression.fullmatch(prefix) for prefix in prefixes):
                ignored = not rule.negated
        return ignored

    def may_hold_kept(self, directory: str) -> bool:
        """Whether something in an ignored directory may be taken back by a ``!`` pattern."""
        for rule in self._negations:
            if rule.literal.startswith(directory + "/") or directory.startswith(rule.literal.rstrip("/")):
                return True
        return False
