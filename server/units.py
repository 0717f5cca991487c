"""Sizes as in Docker's options and as it prints them, and durations."""

import re

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)i?b?\s*", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")


def parse_size(text: str) -> int:
    """Parse ``10m`` to bytes (binary units, as ``docker`` reads memory sizes).

    :raises ValueError: in dockerd's words.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def human_size(size: float) -> str:
    """Four significant digits in powers of 1000, as Go's units.HumanSize."""
    unit = 0
    while size >= 1000 and unit < len(_DECIMAL) - 1:
        size /= 1000
        unit += 1
    return f"{size:.4g}{_DECIMAL[unit]}"


def parse_duration(text: str) -> int:
    """Parse ``90s``, ``30m``, ``12h``, ``7d`` or a number of seconds to seconds.

    :raises ValueError: anything else.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("not a duration such as 90s, 30m, 12h or 7d")
    return int(match[1]) * _SECONDS[match[2]]
