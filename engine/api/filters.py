"""containerd's filter language.

A list of filters matches what any of them matches; a filter is selectors joined by commas, all of which must match::

    name==docker.io/library/busybox:latest
    labels."containerd.io/gc.root",kind==committed
    topic~="^/tasks/",namespace==moby

A selector is a path of fields, alone (the field is there) or with ``==``, ``!=`` or ``~=`` (a regular expression) and
a value. Fields and values may be quoted with ``"``; the value after ``~=`` also with ``/`` or ``|``.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from engine.common import regex
from engine.common.errors import WharfError, invalid

#: Returns the value of a field by its path; None when the record has no such field.
Fields = Callable[[Sequence[str]], str | None]
Filter = Callable[[Fields], bool]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>(?P<quote>["/|])(?:\\.|(?!(?P=quote))[^\\\n])*(?P=quote))
      | (?P<operator>[=!~]+)
      | (?P<separator>[,.])
      | (?P<field>[A-Za-z0-9_]+)
    )""",
    re.VERBOSE,
)
_VALUE = re.compile(r"""\s*(?P<value>[^,\s"/|=!~.][^,\s]*)""")
_ESCAPE = re.compile(r"\\(?:(?P<octal>[0-7]{3})|x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|(?P<char>.))")
_NAMED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


def compile_all(filters: Sequence[str]) -> Filter:
    """Compiles a request's list of filters into one. An empty list, or an empty filter (``ctr content active`` sends
    it), matches everything. Raises INVALID_ARGUMENT for a malformed filter."""
    parsed = [_Parser(text).parse() for text in filters if text]
    if len(parsed) < len(filters) or not parsed:
        return lambda fields: True
    return lambda fields: any(match(fields) for match in parsed)


def in_labels(path: Sequence[str], labels: Mapping[str, str]) -> str | None:
    """The field ``labels.<name>``; a name with dots may be written without quotes."""
    return labels.get(".".join(path))


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> Filter:
        selectors = [self._selector()]
        while self._rest():
            if not self._rest().startswith(","):
                raise self._error(f"unexpected input: {self._text[self._at]}")
            self._take("separator")
            selectors.append(self._selector())
        if len(selectors) == 1:
            return selectors[0]
        return lambda fields: all(selector(fields) for selector in selectors)

    def _selector(self) -> Filter:
        path = [self._field()]
        while self._rest().startswith("."):
            self._take("separator")
            path.append(self._field())
        if not self._rest() or self._rest().startswith(","):
            return lambda fields: fields(path) is not None
        at = self._at
        operator = self._take("operator")
        if operator == "==":
            value = self._value(alternatives=False)
            return lambda fields: fields(path) == value
        if operator == "!=":
            value = self._value(alternatives=False)
            return lambda fields: (fields(path) or "") != value
        if operator == "~=":
            return self._regex(path)
        self._at = at
        raise self._error(f'unsupported operator "{operator}"')

    def _regex(self, path: Sequence[str]) -> Filter:
        try:
            pattern = regex.compiled(self._value(alternatives=True))
        except regex.RegexError:
            # containerd reports an invalid expression only while matching, where it counts as no match.
            return lambda fields: False
        return lambda fields: pattern.search(fields(path) or "")

    def _field(self) -> str:
        token = _TOKEN.match(self._text, self._at)
        if token is not None and token["quoted"]:
            self._at = token.end()
            return self._unquote(token["quoted"], alternatives=False)
        if token is None or not token["field"]:
            raise self._error("expected field or quoted")
        self._at = token.end()
        return token["field"]

    def _value(self, *, alternatives: bool) -> str:
        token = _TOKEN.match(self._text, self._at)
        if token is not None and token["quoted"]:
            self._at = token.end()
            return self._unquote(token["quoted"], alternatives=alternatives)
        value = _VALUE.match(self._text, self._at)
        if value is None:
            raise self._error("expected value or quoted")
        self._at = value.end()
        return value["value"]

    def _take(self, kind: str) -> str:
        token = _TOKEN.match(self._text, self._at)
        if token is None or not token[kind]:
            raise self._error('expected an operator ("=="|"!="|"~=")' if kind == "operator" else "unexpected input")
        self._at = token.end()
        return token[kind]

    def _rest(self) -> str:
        return self._text[self._at :].lstrip()

    def _unquote(self, quoted: str, *, alternatives: bool) -> str:
        quote = quoted[0]
        if quote != '"' and not alternatives:
            raise self._error("invalid quote encountered")

        def replace(found: re.Match[str]) -> str:
            for name, base in (("octal", 8), ("x", 16), ("u", 16)):
                if found[name]:
                    return chr(int(found[name], base))
            char = found["char"]
            if char == quote:
                return quote
            if char not in _NAMED:
                raise self._error("illegal escape sequence")
            return _NAMED[char]

        return _ESCAPE.sub(replace, quoted[1:-1])

    def _error(self, message: str) -> WharfError:
        before, at, after = self._text[: self._at], self._text[self._at : self._at + 1], self._text[self._at + 1 :]
        place = f"{before} >|{at}|< {after}" if at else self._text
        return invalid(f"filters: parse error: [{place}]: {message}")
