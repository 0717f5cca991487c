"""Values as people read them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_BYTES = frozenset(("memory", "disk"))
_SECONDS = frozenset(("max_run_time", "idle_limit"))


def printable(text: str) -> str:
    """Text without control characters, which a terminal would execute: names and paths are other people's."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def size(count: float) -> str:
    """1536 → ``1.5 KiB``."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.4g} {_UNITS[unit]}"


def duration(seconds: int) -> str:
    """5400 → ``1h30m``."""
    parts = []
    for letter, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{letter}")
    return "".join(parts[:2]) or "0s"


def time(text: str) -> str:
    """RFC 3339 → local time in seconds; "" remains."""
    if not text:
        return ""
    try:
        return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return text


def limit(name: str, value: Any) -> str:
    """The value of a role's limit, which has the name of ``policy.toml``."""
    if isinstance(value, list):
        return "-".join(map(str, value))
    if name in _BYTES and isinstance(value, int):
        return size(value)
    if name in _SECONDS and isinstance(value, int):
        return duration(value)
    return str(value)


def limits(found: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {limit(name, value)}" for name, value in (found or {}).items() if value is not None)


def labels(found: Mapping[str, str] | None) -> str:
    return ",".join(f"{name}={value}" for name, value in (found or {}).items())
