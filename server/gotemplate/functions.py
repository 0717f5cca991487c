"""The functions of templates (Go's text/template, and those that Docker adds for tags), and Go's text form of
values."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus

from engine.common import limits


class Struct(dict[str, Any]):
    """A struct of Go: a field that it lacks is an error. ``go_type``: the type's name in errors."""

    __slots__ = ("go_type",)

    def __init__(self, go_type: str, **fields: Any) -> None:
        super().__init__(fields)
        self.go_type = go_type


def truth(value: Any) -> bool:
    """Whether ``if`` is taken: the value is neither zero nor empty."""
    return bool(value)


def to_text(value: Any) -> str:
    """The text that Go's fmt prints with ``%v``."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Struct):
        return "{" + " ".join(map(to_text, value.values())) + "}"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{to_text(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(to_text, value)) + "]"
    return str(value)


def gotype(value: Any) -> str:
    """The name of the value's type in Go's errors."""
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Struct):
        return value.go_type
    if isinstance(value, Mapping):
        return "map[string]string"
    return "[]string" if isinstance(value, list) else "float64" if isinstance(value, float) else "int"


def _len(value: Any) -> int:
    if isinstance(value, int | float) or value is None:
        raise ValueError(f"len of type {gotype(value)}")
    return len(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "")
        elif not isinstance(key, int):
            raise ValueError(f"cannot index slice/array with type {gotype(key)}")
        elif not 0 <= key < len(value):
            raise ValueError(f"index out of range: {key}")
        else:
            value = value[key]
    return value


#: The widest field and the largest precision of Go's fmt.
_MAX_WIDTH = 1_000_000


def _check_size(size: int) -> None:
    """:raises ValueError: ``size`` exceeds ``limits.TEMPLATE_BYTES``."""
    if size > limits.TEMPLATE_BYTES:
        raise ValueError(f"text exceeds the limit TEMPLATE_BYTES ({limits.TEMPLATE_BYTES})")


def _printf(text: str, *values: Any) -> str:
    rest = iter(values)
    size = len(text)

    def replace(match: re.Match[str]) -> str:
        nonlocal size
        width, _, precision = match[1].lstrip("-+# 0").partition(".")
        for digits, error in ((width, "BADWIDTH"), (precision, "BADPREC")):
            if len(digits) > 7 or int(digits or 0) > _MAX_WIDTH:
                return f"%!({error})"
        size += max(int(width or 0), int(precision or 0))
        _check_size(size)
        formatted = format_next(match)
        size += len(formatted)
        _check_size(size)
        return formatted

    def format_next(match: re.Match[str]) -> str:
        verb = match[2]
        if verb == "%":
            return "%"
        value = next(rest, None)
        if verb == "q":
            return f"%{match[1]}s" % json.dumps(to_text(value), ensure_ascii=False)
        if verb in "dxXoc" and isinstance(value, int):
            return f"%{match[1]}{verb}" % value
        if verb in "feg" and isinstance(value, int | float):
            return f"%{match[1]}{verb}" % value
        return f"%{match[1]}s" % to_text(value)

    return re.sub(r"%([-+# 0]*\d*(?:\.\d+)?)([a-zA-Z%])", replace, text)


def _compare(test: Callable[[Any, Any], bool]) -> Callable[..., bool]:
    def compare(first: Any, *others: Any) -> bool:
        return any(test(first, other) for other in others)

    return compare


def _and(*values: Any) -> Any:
    return next((value for value in values if not truth(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if truth(value)), values[-1])


def _truncate(text: str, length: int) -> str:
    return text[:length]


def _pad(text: str, before: int, after: int) -> str:
    _check_size(len(text) + max(before, 0) + max(after, 0))
    return " " * before + text + " " * after if text else text


def _print(*values: Any) -> str:
    text = ""
    for number, value in enumerate(values):
        both_other = number and not isinstance(value, str) and not isinstance(values[number - 1], str)
        text += (" " if both_other else "") + to_text(value)
    return text


def _join(items: Any, by: str) -> str:
    _check_size(sum(map(len, items)) + len(by) * len(items))
    return by.join(items)


def _html(text: str) -> str:
    return text.translate({34: "&#34;", 39: "&#39;", 38: "&amp;", 60: "&lt;", 62: "&gt;"})


def _js(text: str) -> str:
    marks = {92: "\\\\", 39: "\\'", 34: '\\"', 60: "\\u003C", 62: "\\u003E", 38: "\\u0026", 61: "\\u003D"}
    return text.translate(marks)


def _slice(value: Any, *bounds: int) -> Any:
    return value[slice(*bounds)] if len(bounds) > 1 else value[bounds[0] :] if bounds else value


#: The functions of text/template by their names.
BUILTINS: Mapping[str, Callable[..., Any]] = {
    "and": _and,
    "or": _or,
    "not": lambda value: not truth(value),
    "len": _len,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: " ".join(map(to_text, values)) + "\n",
    "html": lambda *values: _html(_print(*values)),
    "js": lambda *values: _js(_print(*values)),
    "urlquery": lambda *values: quote_plus(_print(*values)),
    "eq": _compare(lambda first, other: bool(first == other)),
    "ne": lambda first, other: first != other,
    "lt": lambda first, other: first < other,
    "le": lambda first, other: first <= other,
    "gt": lambda first, other: first > other,
    "ge": lambda first, other: first >= other,
}
#: Those of Docker's templates.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **BUILTINS,
    "json": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "split": lambda text, by: text.split(by) if by else list(text),
    "join": _join,
    "title": lambda text: re.sub(r"\b\w", lambda match: match[0].upper(), text),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "pad": _pad,
    "truncate": _truncate,
}

#: The types of the arguments, for functions on texts.
TEXTS: Mapping[str, tuple[type, ...]] = {
    "split": (str, str),
    "join": (list, str),
    "title": (str,),
    "lower": (str,),
    "upper": (str,),
    "pad": (str, int, int),
    "truncate": (str, int),
}
#: The number of arguments of other functions.
COUNTS: Mapping[str, int] = {"not": 1, "len": 1, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2, "json": 1}
