"""Clients' regular expressions, matched in linear time by RE2, which has the syntax of Go's ``regexp``.

Python's ``re`` backtracks and holds the GIL meanwhile: ``(a+)+$`` against thirty letters blocks a daemon for minutes.
RE2 needs 2 MiB. It is imported when the first expression is compiled that has more than characters, classes of
characters, and anchors at its ends: Python's ``re`` matches others, such as those of wharfd's own subscriptions, in
linear time, too.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from engine.common import limits

#: Error texts of RE2's C++ library (re2/regexp.cc) that Go's port (regexp/syntax) words differently.
_GO_WORDS = {
    "bad repetition operator": "invalid nested repetition operator",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "trailing \\": "trailing backslash at end of expression",
    "invalid named capture group": "invalid named capture",
}
_SIMPLE = re.compile(r"\^?(?:[A-Za-z0-9_/-]|\[(?:[a-z0-9]-[a-z0-9]|[a-z0-9])+\])*\$?")
_SHOWN = 200  # characters of an expression in an error


class RegexError(ValueError):
    """Has Go's message: ``error parsing regexp: missing closing ]: `[a-z` ``."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"error parsing regexp: {what}: `{where[:_SHOWN]}`")


@dataclass(frozen=True, slots=True)
class Regex:
    """A compiled expression."""

    _compiled: Any

    def search(self, text: str) -> bool:
        """Whether the expression matches somewhere in the text."""
        return self._compiled.search(text) is not None


@lru_cache(maxsize=64)
def compiled(pattern: str) -> Regex:
    """Compiles an expression.

    :raises RegexError: Go's message, or the limit that the pattern exceeds.
    """
    if len(pattern) > limits.REGEX_BYTES:
        raise RegexError(f"expression exceeds the limit REGEX_BYTES ({limits.REGEX_BYTES})", pattern)
    if _SIMPLE.fullmatch(pattern):
        try:
            # Python's $ also matches before a final newline, Go's doesn't.
            return Regex(re.compile(pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern))
        except re.error:
            pass  # an invalid range: the error has RE2's words
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = limits.REGEX_MEMORY
    try:
        return Regex(re2.compile(pattern, options=options))
    except re2.error as error:
        what, _, where = error.args[0].decode(errors="replace").partition(": ")
        raise RegexError(_GO_WORDS.get(what, what), where) from None
