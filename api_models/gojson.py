"""Explains why a text is not JSON, in the sentences of Go's scanner, which dockerd's clients show."""

import re

_SPACE = b" \t\r\n"
_NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]+')
_MAX_DEPTH = 10_000
_WS = rb"[ \t\r\n]*+"
_KEY = rb'"[^"\\\x00-\x1f]*+"'
_SIMPLE = (
    _WS + rb"(?:" + _KEY + rb"|-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+"
    rb"|true|false|null|\{" + _WS + rb"\}|\[" + _WS + rb"\])" + _WS + rb","
)
# Matches runs of simple elements at once: a Python step per element would be slow.
_ELEMENTS = re.compile(rb"(?:" + _SIMPLE + rb"){1,10000}+")
_MEMBERS = re.compile(rb"(?:" + _SIMPLE + _WS + _KEY + _WS + rb":){1,10000}+")


class _BadSyntax(Exception):
    pass


def _quoted(byte: int) -> str:
    if byte == ord("'"):
        return "'\\''"
    if byte == ord('"'):
        return "'\"'"
    if byte < 0x20 or byte == 0x7F:
        special = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}
        return "'" + special.get(byte, f"\\x{byte:02x}") + "'"
    # Go quotes the byte as if it were a code point.
    return f"'{chr(byte)}'"


class _Scanner:
    """Scans a document once, without building it and without recursion."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1

    def skip_simple(self, values: re.Pattern[bytes]) -> None:
        while (match := values.match(self.text, self.at)) is not None:
            self.at = match.end()

    def peek(self) -> int:
        if self.at >= len(self.text):
            raise _BadSyntax("unexpected EOF")
        return self.text[self.at]

    def fail(self, where: str) -> _BadSyntax:
        return _BadSyntax(f"invalid character {_quoted(self.peek())} {where}")

    def value(self) -> None:
        open_brackets: list[int] = []
        while True:
            if open_brackets:
                self.skip_simple(_MEMBERS if open_brackets[-1] == 0x7B else _ELEMENTS)
            self.skip()
            char = self.peek()
            if char in b"{[":
                open_brackets.append(char)
                if len(open_brackets) > _MAX_DEPTH:
                    raise _BadSyntax("exceeded max depth")
                self.at += 1
                self.skip()
                if self.peek() == (0x7D if char == 0x7B else 0x5D):
                    self.at += 1
                    open_brackets.pop()
                elif char == 0x7B:
                    self.key("looking for beginning of object key string")
                    continue
                else:
                    continue
            else:
                self.scalar(char)
            if not self.close(open_brackets):
                return

    def close(self, open_brackets: list[int]) -> bool:
        """Closes brackets that end after a value. Returns whether another value follows."""
        while open_brackets:
            self.skip()
            char = self.peek()
            in_object = open_brackets[-1] == 0x7B
            if char == 0x2C:
                self.at += 1
                if in_object:
                    self.skip()
                    self.key("looking for beginning of object key string")
                return True
            if char != (0x7D if in_object else 0x5D):
                raise self.fail("after object key:value pair" if in_object else "after array element")
            self.at += 1
            open_brackets.pop()
        return False

    def key(self, where: str) -> None:
        if self.peek() != 0x22:
            raise self.fail(where)
        self.string()
        self.skip()
        if self.peek() != 0x3A:
            raise self.fail("after object key")
        self.at += 1

    def scalar(self, char: int) -> None:
        if char == 0x22:
            self.string()
        elif char == 0x2D or 0x30 <= char <= 0x39:
            self.number()
        else:
            self.literal(char)

    def literal(self, char: int) -> None:
        word = {0x74: b"true", 0x66: b"false", 0x6E: b"null"}.get(char)
        if word is None:
            raise self.fail("looking for beginning of value")
        for expected in word:
            if self.peek() != expected:
                raise self.fail(f"in literal {word.decode()} (expecting '{chr(expected)}')")
            self.at += 1

    def number(self) -> None:
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            self.at += 1
            raise self.fail("in numeric literal")
        self.at = match.end()
        if self.at < len(self.text) and self.text[self.at] in b".eE":
            dot = self.text[self.at] == 0x2E
            self.at += 1
            raise self.fail("after decimal point in numeric literal" if dot else "in exponent of numeric literal")

    def _skip_plain(self) -> int:
        match = _PLAIN.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return self.peek()

    def string(self) -> None:
        self.at += 1
        # Most bytes of a large document are in strings: one iteration per byte would take seconds on the event loop.
        while (char := self._skip_plain()) != 0x22:
            if char < 0x20:
                raise self.fail("in string literal")
            self.at += 1
            if char == 0x5C:
                escape = self.peek()
                if escape not in b'"\\/bfnrtu':
                    raise self.fail("in string escape code")
                self.at += 1
                if escape == 0x75:
                    for _ in range(4):
                        if self.peek() not in b"0123456789abcdefABCDEF":
                            raise self.fail("in \\u hexadecimal character escape")
                        self.at += 1
        self.at += 1


def explain(text: bytes) -> str:
    """Returns dockerd's sentence for a body that isn't one JSON value. Takes up to 2 µs per byte of nested values."""
    scanner = _Scanner(text)
    scanner.skip()
    if scanner.at >= len(text):
        return "invalid JSON: EOF"
    try:
        scanner.value()
    except _BadSyntax as error:
        return f"invalid JSON: {error}"
    return "unexpected content after JSON"
