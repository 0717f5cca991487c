"""Variables in a Dockerfile's words: ``$NAME``, ``${NAME}`` and the modifiers of the reference.

``:-  -  :+  +  :?  ?`` as in the shell (``:`` also takes an empty value for unset), ``#  ##  %  %%`` strip a pattern,
``/  //`` replace one. Quotes are removed; within single ones nothing is replaced; the escape character keeps the next
character as it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.errors import WharfError, invalid

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*|[0-9]+|[@*#?!$-]")


@dataclass(slots=True)
class Expansion:
    """A word's value and the variables that were asked for without being known (a build check warns of them)."""

    words: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    @property
    def text(self) -> str:
        return " ".join(self.words)


class _Reader:
    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        escape: str,
        *,
        raw_quotes: bool,
        raw_escapes: bool,
        keep_unknown: bool = False,
    ) -> None:
        self.text, self.variables, self.escape = text, variables, escape
        self.raw_quotes, self.raw_escapes, self.keep_unknown = raw_quotes, raw_escapes, keep_unknown
        self.at = 0
        self.unknown: set[str] = set()

    def _next(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        return char

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def read(self, stop: str = "") -> tuple[str, list[str]]:
        """The expansion up to the character ``stop`` (consumed), whole and split into words."""
        whole: list[str] = []
        words: list[str] = []
        word: list[str] = []
        started = False  # an empty pair of quotes is a word too
        while self.at < len(self.text):
            char = self._peek()
            if stop and char == stop:
                self.at += 1
                break
            if char == "'":
                piece = self._single()
                started = True
            elif char == '"':
                piece = self._double()
                started = True
            elif char == "$":
                piece = self._dollar()
                whole.append(piece)
                first, *more = re.split(r"\s+", piece)
                word.append(first)
                for item in more:
                    if word and (started or "".join(word)):
                        words.append("".join(word))
                    word, started = [item], False
                continue
            elif char == self.escape:
                piece = self._escaped()
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

    def _escaped(self) -> str:
        mark = self._next()
        char = self._next()
        if not char:
            return mark
        return mark + char if self.raw_escapes else char

    def _single(self) -> str:
        self.at += 1
        end = self.text.find("'", self.at)
        if end < 0:
            raise invalid("unexpected end of statement while looking for matching single-quote")
        inner = self.text[self.at : end]
        self.at = end + 1
        return f"'{inner}'" if self.raw_quotes else inner

    def _double(self) -> str:
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
                out.append(self._dollar())
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

    def _value(self, name: str) -> str | None:
        value = self.variables.get(name)
        if value is None:
            self.unknown.add(name)
        return value

    def _dollar(self) -> str:
        start = self.at
        value = self._replaced()
        return self.text[start : self.at] if self.keep_unknown and self._named(start) in self.unknown else value

    def _named(self, start: int) -> str:
        """The variable that the text names there."""
        match = _NAME.match(self.text, start + 1 + self.text.startswith("{", start + 1))
        return match[0] if match else ""

    def _replaced(self) -> str:
        self.at += 1
        if self._peek() != "{":
            match = _NAME.match(self.text, self.at)
            if match is None:
                return "$"
            self.at = match.end()
            return self._value(match[0]) or ""
        self.at += 1
        match = _NAME.match(self.text, self.at)
        if match is None:
            raise invalid("syntax error: bad substitution" if self._peek() else "syntax error: missing '}'")
        name = match[0]
        self.at = match.end()
        return self._modified(name)

    def _modified(self, name: str) -> str:
        mark = self._next()
        if mark == "}":
            return self._value(name) or ""
        if mark == "":
            raise invalid("syntax error: missing '}'")
        value = self._value(name)
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
            return _strip(value or "", pattern, suffix=operator == "%", greedy=greedy)
        if operator == "/":
            everywhere = self._peek() == "/"
            if everywhere:
                self.at += 1
            pattern = self._pattern("/")
            replacement, _ = self.read("}")
            expression = re.compile(_translate(pattern, greedy=True))
            return expression.sub(lambda _: replacement, value or "", count=0 if everywhere else 1)
        raise invalid(f"unsupported modifier ({operator}) in substitution")

    def _pattern(self, stop: str) -> str:
        """A pattern with its variables replaced; escapes stay, as they are part of the pattern."""
        inner = _Reader(self.text, self.variables, self.escape, raw_quotes=False, raw_escapes=True)
        inner.at = self.at
        pattern, _ = inner.read(stop)
        self.at = inner.at
        self.unknown |= inner.unknown
        return pattern


def _translate(pattern: str, *, greedy: bool) -> str:
    """A shell pattern (``*``, ``?``, ``\\`` escapes) as a regular expression."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            out.append(".*" if greedy else ".*?")
        elif char == "?":
            out.append(".")
        elif char == "\\" and at + 1 < len(pattern):
            at += 1
            out.append(re.escape(pattern[at]))
        else:
            out.append(re.escape(char))
        at += 1
    return "(?s:" + "".join(out) + ")"


def _strip(value: str, pattern: str, *, suffix: bool, greedy: bool) -> str:
    expression = re.compile(_translate(pattern, greedy=True))
    cuts = range(len(value) + 1)
    if suffix:
        order = cuts if greedy else reversed(cuts)
        for cut in order:
            if expression.fullmatch(value, cut):
                return value[:cut]
    else:
        order = reversed(cuts) if greedy else cuts
        for cut in order:
            if expression.fullmatch(value, 0, cut):
                return value[cut:]
    return value


def expand(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> Expansion:
    """One word: variables replaced, quotes removed, spaces kept. Raises INVALID_ARGUMENT for bad syntax."""
    reader = _Reader(text, variables, escape, raw_quotes=False, raw_escapes=False)
    whole, _ = reader.read()
    return Expansion([whole], reader.unknown)


def expand_words(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> Expansion:
    """Like :func:`expand`, but unquoted spaces, also those from a variable, split the result into words."""
    reader = _Reader(text, variables, escape, raw_quotes=False, raw_escapes=False)
    _, words = reader.read()
    return Expansion(words, reader.unknown)


def expand_raw(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> Expansion:
    """Only variables are replaced; quotes and escapes stay: the text of a here-document or of ``--mount``."""
    reader = _Reader(text, variables, escape, raw_quotes=True, raw_escapes=True)
    whole, _ = reader.read()
    return Expansion([whole], reader.unknown)


def expand_known(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> str:
    """To be shown: what is known is replaced, all else stays, quotes too."""
    reader = _Reader(text, variables, escape, raw_quotes=True, raw_escapes=False, keep_unknown=True)
    try:
        return reader.read()[0]
    except WharfError:
        return text


def expand_heredoc(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> Expansion:
    """The content of an unquoted here-document: quotes mean nothing in it, an escape stands for what follows it."""
    out: list[str] = []
    unknown: set[str] = set()
    at = 0
    while at < len(text):
        char = text[at]
        if char == escape and at + 1 < len(text):
            following = text[at + 1]
            out.append(following)
            at += 2
            continue
        if char == "$":
            reader = _Reader(text, variables, escape, raw_quotes=False, raw_escapes=False)
            reader.at = at
            out.append(reader._dollar())
            unknown |= reader.unknown
            at = reader.at
            continue
        out.append(char)
        at += 1
    return Expansion(["".join(out)], unknown)
