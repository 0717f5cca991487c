"""Regular expressions of clients, in time linear in the text: Go's (RE2's) syntax, searched without backtracking.

Python's ``re`` tries alternatives one after the other and keeps the interpreter's lock meanwhile: ``(a+)+$`` against
thirty letters stops a daemon for minutes. Here all alternatives advance together (K. Thompson, "Regular Expression
Search Algorithm", CACM 11(6), 1968). Captures are not supported, as nobody here asks for them.

Not supported, and refused: Unicode classes (``\\p{Greek}``).
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from engine import limits

Ranges = tuple[tuple[int, int], ...]
_LAST = sys.maxunicode
_DIGITS: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = ((9, 10), (12, 13), (32, 32))
_PERL = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_POSIX: dict[str, Ranges] = {
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "alpha": ((65, 90), (97, 122)),
    "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)),
    "digit": _DIGITS,
    "graph": ((33, 126),),
    "lower": ((97, 122),),
    "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),),
    "word": _WORD,
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}
_ESCAPES = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_COUNT = re.compile(r"\{(\d{1,9})(?:(,)(\d{0,9}))?\}")
_GROUP = re.compile(r"\?(?:P?<([A-Za-z_]\w*)>|([imsU]*)(?:-([imsU]+))?([:)]))")


class RegexError(ValueError):
    """In Go's words: ``error parsing regexp: missing closing ]: `[a-z` ``."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"error parsing regexp: {what}: `{where}`")


# A program is a list of instructions (kind, argument, next): "char" has ranges, "split" a second next, "look" a test.
_Instruction = tuple[str, object, int]


@dataclass(frozen=True, slots=True)
class Regex:
    """A compiled expression."""

    program: Sequence[_Instruction]
    start: int

    def search(self, text: str) -> bool:
        """Whether the expression matches somewhere in the text."""
        active: set[int] = set()
        for at in range(len(text) + 1):
            # A match may begin at every place.
            follow = self._closure((*active, self.start), text, at)
            if follow is None:
                return True
            if at == len(text):
                break
            code = ord(text[at])
            active = {after for ranges, after in follow if any(low <= code <= high for low, high in ranges)}
        return False

    def _closure(self, states: Sequence[int], text: str, at: int) -> list[tuple[Ranges, int]] | None:
        """The characters that may come next, and where they lead; ``None`` if the match is complete."""
        seen: set[int] = set()
        stack = list(states)
        follow: list[tuple[Ranges, int]] = []
        while stack:
            state = stack.pop()
            if state in seen:
                continue
            seen.add(state)
            kind, argument, after = self.program[state]
            if kind == "match":
                return None
            if kind == "char":
                follow.append((argument, after))  # type: ignore[arg-type]
            elif kind == "split":
                stack += (after, argument)  # type: ignore[arg-type]
            elif kind == "jump" or argument(text, at):  # type: ignore[operator]
                stack.append(after)
        return follow


@lru_cache(maxsize=64)
def compiled(pattern: str) -> Regex:
    """:raises RegexError: in Go's words, or with the limit that the pattern exceeds."""
    if len(pattern) > limits.REGEX_BYTES:
        raise RegexError(f"expression exceeds the limit REGEX_BYTES ({limits.REGEX_BYTES})", pattern[:40])
    parser = _Parser(pattern)
    node = parser.alternatives()
    if parser.at < len(pattern):
        raise RegexError("unexpected )", pattern)
    compiler = _Compiler(pattern)
    start = compiler.add(node, compiler.emit("match", None, 0))
    return Regex(compiler.program, start)


# Nodes: ("char", ranges), ("look", test), ("all", nodes), ("any", nodes), ("repeat", node, least, most or None).
_Node = tuple[object, ...]


class _Compiler:
    def __init__(self, pattern: str) -> None:
        self.program: list[_Instruction] = []
        self._pattern = pattern
        self._steps = 0

    def emit(self, kind: str, argument: object, after: int) -> int:
        self.program.append((kind, argument, after))
        return len(self.program) - 1

    def add(self, node: _Node, after: int) -> int:
        """Instructions that match ``node`` and continue at ``after``; the first of them."""
        # Counted are not the instructions alone: ``(((){1000}){1000}){1000}`` makes none.
        self._steps += 1
        if self._steps > limits.REGEX_PROGRAM:
            what = f"expression exceeds the limit REGEX_PROGRAM ({limits.REGEX_PROGRAM})"
            raise RegexError(what, self._pattern[:40])
        kind = node[0]
        if kind in ("char", "look"):
            return self.emit(str(kind), node[1], after)
        if kind == "all":
            for part in reversed(node[1]):  # type: ignore[call-overload]
                after = self.add(part, after)
            return after
        if kind == "any":
            starts = [self.add(part, after) for part in node[1]]  # type: ignore[attr-defined]
            first: int = starts.pop()
            while starts:
                first = self.emit("split", first, starts.pop())
            return first
        return self._repeat(node[1], node[2], node[3], after)  # type: ignore[arg-type]

    def _repeat(self, node: _Node, least: int, most: int | None, after: int) -> int:
        if most is None:
            loop = self.emit("jump", None, 0)
            self.program[loop] = ("split", after, self.add(node, loop))
            after = loop
        else:
            end = after
            for _ in range(most - least):
                after = self.emit("split", end, self.add(node, after))
        for _ in range(least):
            after = self.add(node, after)
        return after


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.at = 0
        self._flags: frozenset[str] = frozenset()
        self._depth = 0

    def _next(self) -> str:
        return self._pattern[self.at : self.at + 1]

    def alternatives(self) -> _Node:
        branches = [self._sequence()]
        while self._next() == "|":
            self.at += 1
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else ("any", branches)

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while (char := self._next()) not in ("", "|", ")"):
            begin = self.at
            if char in "*+?":
                raise RegexError("missing argument to repetition operator", char)
            node = self._atom(char)
            if node is not None:
                parts.append(self._repeated(node, begin))
        return ("all", parts)

    def _repeated(self, node: _Node, begin: int) -> _Node:
        repeated = 0
        while True:
            operator_at, char = self.at, self._next()
            counted = _COUNT.match(self._pattern, self.at) if char == "{" else None
            if char in ("*", "+", "?") and char:
                self.at += 1
                least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
            elif counted is not None:
                self.at = counted.end()
                least = int(counted[1])
                most = least if not counted[2] else int(counted[3]) if counted[3] else None
                if max(least, most or 0) > limits.REGEX_REPEAT or (most is not None and most < least):
                    raise RegexError("invalid repeat count", counted[0])
            else:
                return node
            if self._next() == "?":
                self.at += 1
            repeated += 1
            if repeated > 1:
                raise RegexError("invalid nested repetition operator", self._pattern[operator_at - 1 : self.at])
            node = ("repeat", node, least, most)

    def _atom(self, char: str) -> _Node | None:
        self.at += 1
        if char == "(":
            return self._group()
        if char == "[":
            return ("char", self._class())
        if char == "\\":
            return self._escape()
        if char == ".":
            return ("char", ((0, _LAST),) if "s" in self._flags else ((0, 9), (11, _LAST)))
        if char == "^":
            return ("look", _line_begin if "m" in self._flags else _text_begin)
        if char == "$":
            return ("look", _line_end if "m" in self._flags else _text_end)
        return ("char", self._cased(((ord(char), ord(char)),)))

    def _group(self) -> _Node | None:
        flags = self._flags
        if self._next() == "?":
            match = _GROUP.match(self._pattern, self.at)
            if match is None:
                raise RegexError("invalid or unsupported Perl syntax", self._pattern[self.at - 1 : self.at + 2])
            self.at = match.end()
            self._flags = (flags | set(match[2] or "")) - set(match[3] or "")
            if match[4] == ")":
                return None  # flags for what follows in this group
        self._depth += 1
        if self._depth > _NESTED:
            raise RegexError("expression nests too deeply", self._pattern[:40])
        node = self.alternatives()
        self._depth -= 1
        if self._next() != ")":
            raise RegexError("missing closing )", self._pattern)
        self.at += 1
        self._flags = flags
        return node

    def _escape(self) -> _Node:
        char = self._next()
        if char == "":
            raise RegexError("trailing backslash at end of expression", "")
        self.at += 1
        looks = {"A": _text_begin, "z": _text_end, "b": _boundary, "B": lambda text, at: not _boundary(text, at)}
        if char in looks:
            return ("look", looks[char])
        if char == "Q":
            end = self._pattern.find("\\E", self.at)
            quoted = self._pattern[self.at : end if end >= 0 else None]
            self.at = end + 2 if end >= 0 else len(self._pattern)
            return ("all", [("char", self._cased(((ord(each), ord(each)),))) for each in quoted])
        self.at -= 1
        return ("char", self._cased(self._escaped()))

    def _escaped(self) -> Ranges:
        """What is behind a backslash, in a class or not."""
        char = self._next()
        self.at += 1
        if char.lower() in _PERL:
            ranges = _PERL[char.lower()]
            return ranges if char.islower() else _without(ranges)
        if char in _ESCAPES:
            return ((_ESCAPES[char], _ESCAPES[char]),)
        if char == "x":
            match = re.compile(r"\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{2})").match(self._pattern, self.at)
            code = int(match[1] or match[2], 16) if match else _LAST + 1
            if match and code <= _LAST:
                self.at = match.end()
                return ((code, code),)
        if char == "0" or (char.isdigit() and char in "1234567" and self._next().isdigit()):
            match = re.compile(r"[0-7]{1,3}").match(self._pattern, self.at - 1)
            if match:
                self.at = match.end()
                return ((int(match[0], 8), int(match[0], 8)),)
        if char and ord(char) < 128 and not char.isalnum():
            return ((ord(char), ord(char)),)
        raise RegexError("invalid escape sequence", f"\\{char}")

    def _class(self) -> Ranges:
        begin = self.at - 1
        negated = self._next() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        first = True
        while first or self._next() != "]":
            if self._next() == "":
                raise RegexError("missing closing ]", self._pattern[begin:])
            first = False
            ranges += self._item(begin)
        self.at += 1
        found = self._cased(tuple(ranges))
        return _without(found) if negated else found

    def _item(self, begin: int) -> Ranges:
        named = re.compile(r"\[:(\^?)(\w*):\]").match(self._pattern, self.at)
        if named:
            self.at = named.end()
            if named[2] not in _POSIX:
                raise RegexError("invalid character class range", named[0])
            return _without(_POSIX[named[2]]) if named[1] else _POSIX[named[2]]
        low_at = self.at
        low = self._single()
        following = self._pattern[self.at + 1 : self.at + 2]
        if len(low) != 1 or low[0][0] != low[0][1] or self._next() != "-" or following in ("]", ""):
            return low
        self.at += 1
        high = self._single()
        if len(high) != 1 or high[0][1] < low[0][0]:
            raise RegexError("invalid character class range", self._pattern[low_at : self.at])
        return ((low[0][0], high[0][1]),)

    def _single(self) -> Ranges:
        char = self._next()
        self.at += 1
        return self._escaped() if char == "\\" else ((ord(char), ord(char)),)

    def _cased(self, ranges: Ranges) -> Ranges:
        """With the other case of their letters, where case does not count."""
        if "i" not in self._flags:
            return ranges
        found = list(ranges)
        for low, high in ranges:
            if high - low < 1024:
                for code in range(low, high + 1):
                    found += [
                        (ord(other), ord(other)) for other in (chr(code).lower(), chr(code).upper()) if len(other) == 1
                    ]
        return tuple(found)


_NESTED = 100


def _without(ranges: Ranges) -> Ranges:
    """All characters but these."""
    found: list[tuple[int, int]] = []
    at = 0
    for low, high in sorted(ranges):
        if low > at:
            found.append((at, low - 1))
        at = max(at, high + 1)
    return (*found, (at, _LAST)) if at <= _LAST else tuple(found)


def _is_word(text: str, at: int) -> bool:
    return 0 <= at < len(text) and any(low <= ord(text[at]) <= high for low, high in _WORD)


def _boundary(text: str, at: int) -> bool:
    return _is_word(text, at - 1) != _is_word(text, at)


_Test = Callable[[str, int], bool]
_text_begin: _Test = lambda text, at: at == 0  # noqa: E731
_text_end: _Test = lambda text, at: at == len(text)  # noqa: E731
_line_begin: _Test = lambda text, at: at == 0 or text[at - 1] == "\n"  # noqa: E731
_line_end: _Test = lambda text, at: at == len(text) or text[at] == "\n"  # noqa: E731
