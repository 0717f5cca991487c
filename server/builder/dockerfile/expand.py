"""Expands variables in a Dockerfile's words: ``$NAME``, ``${NAME}`` and the modifiers of the reference.

``:-  -  :+  +  :?  ?`` as in the shell (``:`` treats an empty value as unset), ``#  ##  %  %%`` strip a pattern,
``/  //`` replace one. Quotes are removed; nothing is expanded within single quotes; the escape character keeps the next
character literally.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.common import limits
from engine.common.errors import WharfError, invalid
from server.builder.dockerfile import patterns

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*|[0-9]+|[@*#?!$-]")


@dataclass(slots=True)
class Expansion:
    """The value of a word, and the unknown variables in it (a build check reports them)."""

    words: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    @property
    def text(self) -> str:
        return " ".join(self.words)


class Budget:
    """The expansion limit of one build: ``limits.EXPANSION_BYTES`` characters over all instructions."""

    def __init__(self) -> None:
        self._left = limits.EXPANSION_BYTES

    def spend(self, size: int) -> None:
        """Count ``size`` characters. Raises INVALID_ARGUMENT beyond the limit."""
        self._left -= size
        if self._left < 0:
            raise limits.exceeded("EXPANSION_BYTES", "what the instructions expand to")


class _Reader:
    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        escape: str,
        *,
        budget: Budget | None,
        raw_quotes: bool,
        raw_escapes: bool,
        keep_unknown: bool = False,
        depth: int = 0,
    ) -> None:
        self.text, self.variables, self.escape = text, variables, escape
        self.raw_quotes, self.raw_escapes, self.keep_unknown = raw_quotes, raw_escapes, keep_unknown
        self.budget = budget or Budget()
        self.depth = depth
        self.at = 0
        self.unknown: set[str] = set()

    def _next(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        return char

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def read(self, stop: str = "") -> tuple[str, list[str]]:
        """Expand up to the character ``stop`` (consumed); return the whole text and its words."""
        whole: list[str] = []
        words: list[str] = []
        word: list[str] = []
        started = False  # a pair of empty quotes is a word too
        while self.at < len(self.text):
            char = self._peek()
            if stop and char == stop:
                self.at += 1
                break
            if char == "'":
                piece = self._read_single_quoted()
                started = True
            elif char == '"':
                piece = self._read_double_quoted()
                started = True
            elif char == "$":
                piece = self._read_dollar()
                whole.append(piece)
                first, *more = re.split(r"\s+", piece)
                word.append(first)
                for item in more:
                    if word and (started or "".join(word)):
                        words.append("".join(word))
                    word, started = [item], False
                continue
            elif char == self.escape:
                piece = self._read_escape()
                started = True
            elif char.isspace():
                self.at += 1
                whole.append(char)
                if started or "".join(word):
                    words.append("".join(word))
                word, started = [], False
                continue
            else:
                self.at += 1
                piece = char
            whole.append(piece)
            word.append(piece)
        else:
            if stop:
                raise invalid(f"syntax error: missing '{stop}'")
        if started or "".join(word):
            words.append("".join(word))
        return "".join(whole), words

    def read_heredoc(self) -> str:
        """Expand the whole text as a here-document."""
        out: list[str] = []
        while self.at < len(self.text):
            char = self._peek()
            if char == self.escape and self.at + 1 < len(self.text):
                out.append(self.text[self.at + 1])
                self.at += 2
            elif char == "$":
                out.append(self._read_dollar())
            else:
                out.append(self._next())
        return "".join(out)

    def _read_escape(self) -> str:
        mark = self._next()
        char = self._next()
        if not char:
            return mark
        return mark + char if self.raw_escapes else char

    def _read_single_quoted(self) -> str:
        self.at += 1
        end = self.text.find("'", self.at)
        if end < 0:
            raise invalid("unexpected end of statement while looking for matching single-quote")
        inner = self.text[self.at : end]
        self.at = end + 1
        return f"'{inner}'" if self.raw_quotes else inner

    def _read_double_quoted(self) -> str:
        self.at += 1
        out: list[str] = []
        while True:
            char = self._peek()
            if not char:
                raise invalid("unexpected end of statement while looking for matching double-quote")
            if char == '"':
                self.at += 1
                break
            if char == "$":
                out.append(self._read_dollar())
            elif char == self.escape:
                self.at += 1
                following = self._next()
                if following in ('"', "$", self.escape) and not self.raw_escapes:
                    out.append(following)
                else:
                    out.append(char + following)
            else:
                out.append(self._next())
        inner = "".join(out)
        return f'"{inner}"' if self.raw_quotes else inner

    def _lookup(self, name: str) -> str | None:
        value = self.variables.get(name)
        if value is None:
            self.unknown.add(name)
        else:
            self.budget.spend(len(value))
        return value

    def _read_dollar(self) -> str:
        start = self.at
        value = self._read_braced()
        return self.text[start : self.at] if self.keep_unknown and self._read_variable(start) in self.unknown else value

    def _read_variable(self, start: int) -> str:
        """Expand the variable whose name starts there."""
        match = _NAME.match(self.text, start + 1 + self.text.startswith("{", start + 1))
        return match[0] if match else ""

    def _read_braced(self) -> str:
        self.at += 1
        if self._peek() != "{":
            match = _NAME.match(self.text, self.at)
            if match is None:
                return "$"
            self.at = match.end()
            return self._lookup(match[0]) or ""
        self.at += 1
        match = _NAME.match(self.text, self.at)
        if match is None:
            raise invalid("syntax error: bad substitution" if self._peek() else "syntax error: missing '}'")
        name = match[0]
        self.at = match.end()
        self.depth += 1
        if self.depth > limits.EXPANSION_DEPTH:
            raise limits.exceeded("EXPANSION_DEPTH", "the nesting of substitutions")
        value = self._apply_modifier(name)
        self.depth -= 1
        return value

    def _apply_modifier(self, name: str) -> str:
        mark = self._next()
        if mark == "}":
            return self._lookup(name) or ""
        if mark == "":
            raise invalid("syntax error: missing '}'")
        value = self._lookup(name)
        colon = mark == ":"
        operator = self._next() if colon else mark
        absent = value is None or (colon and value == "")
        if operator in ("-", "+", "?"):
            word, _ = self.read("}")
            if operator == "-":
                return word if absent else value or ""
            if operator == "+":
                return "" if absent else word
            if absent:
                reason = word or (
                    "is not allowed to be empty" if colon and value == "" else "is not allowed to be unset"
                )
                raise invalid(f"{name}: {reason}")
            return value or ""
        if colon:
            raise invalid(f"unsupported modifier ({operator}) in substitution")
        if operator in ("#", "%"):
            greedy = self._peek() == operator
            if greedy:
                self.at += 1
            pattern = self._pattern("}")
            strip = patterns.strip_suffix if operator == "%" else patterns.strip_prefix
            return strip(pattern, value or "", greedy=greedy)
        if operator == "/":
            everywhere = self._peek() == "/"
            if everywhere:
                self.at += 1
            pattern = self._pattern("/")
            replacement, _ = self.read("}")
            spans = patterns.find(pattern, value or "", everywhere=everywhere)
            self.budget.spend(len(spans) * len(replacement))
            return patterns.replace(value or "", spans, replacement)
        raise invalid(f"unsupported modifier ({operator}) in substitution")

    def _pattern(self, stop: str) -> str:
        """Expand the variables of a pattern; escapes stay, as they belong to the pattern."""
        inner = _Reader(
            self.text,
            self.variables,
            self.escape,
            budget=self.budget,
            raw_quotes=False,
            raw_escapes=True,
            depth=self.depth,
        )
        inner.at = self.at
        pattern, _ = inner.read(stop)
        self.at = inner.at
        self.unknown |= inner.unknown
        return pattern


def expand(text: str, variables: Mapping[str, str], *, escape: str = "\\", budget: Budget | None = None) -> Expansion:
    """Expand one word: replace variables, remove quotes, keep spaces. Raises INVALID_ARGUMENT for bad syntax.

    Without a ``budget`` the word has a limit of its own.
    """
    reader = _Reader(text, variables, escape, budget=budget, raw_quotes=False, raw_escapes=False)
    whole, _ = reader.read()
    return Expansion([whole], reader.unknown)


def expand_words(
    text: str, variables: Mapping[str, str], *, escape: str = "\\", budget: Budget | None = None
) -> Expansion:
    """Like :func:`expand`, but split the result at unquoted spaces, including spaces in values of variables."""
    reader = _Reader(text, variables, escape, budget=budget, raw_quotes=False, raw_escapes=False)
    _, words = reader.read()
    return Expansion(words, reader.unknown)


def expand_raw(
    text: str, variables: Mapping[str, str], *, escape: str = "\\", budget: Budget | None = None
) -> Expansion:
    """Replace only variables, keep quotes and escapes: for the text of a here-document or of ``--mount``."""
    reader = _Reader(text, variables, escape, budget=budget, raw_quotes=True, raw_escapes=True)
    whole, _ = reader.read()
    return Expansion([whole], reader.unknown)


def expand_known(text: str, variables: Mapping[str, str], *, escape: str = "\\", budget: Budget | None = None) -> str:
    """For display: replace known variables and keep everything else, including quotes."""
    reader = _Reader(text, variables, escape, budget=budget, raw_quotes=True, raw_escapes=False, keep_unknown=True)
    try:
        return reader.read()[0]
    except WharfError:
        return text


def expand_heredoc(
    text: str, variables: Mapping[str, str], *, escape: str = "\\", budget: Budget | None = None
) -> Expansion:
    """Expand an unquoted here-document: quotes are literal, an escape keeps the next character."""
    reader = _Reader(text, variables, escape, budget=budget, raw_quotes=False, raw_escapes=False)
    return Expansion([reader.read_heredoc()], reader.unknown)
