"""Parsers for the values of log options, with Go's rules and errors."""

import re

TRUE, FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h))+|0")
_MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}


def parse_bool(text: str) -> bool:
    """:raises ValueError: not a boolean, in the words of Go's strconv."""
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_unsigned(text: str) -> int:
    """:raises ValueError: not an unsigned number, in the words of Go's strconv."""
    if not text.isdecimal() or not text.isascii():
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def parse_milliseconds(text: str) -> int:
    """The milliseconds of a Go duration (``1s``, ``1m30s``).

    :raises ValueError: not a duration, in the words of Go's time package.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f'time: invalid duration "{text}"')
    parts = re.findall(r"([0-9.]+)(ns|us|µs|ms|s|m|h)", text)
    return int(sum(float(number) * _MILLISECONDS[unit] for number, unit in parts))
