"""Times of image documents: RFC 3339 in Go's format, from and to nanoseconds."""

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")


def parse_ns(text: object) -> int | None:
    """Return nanoseconds since the epoch; ``None`` for an invalid time and for Go's zero time."""
    found = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    base, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(base.upper() + ("+00:00" if zone in "Zz" else zone))
        seconds = int(moment.timestamp())
    except (ValueError, OverflowError):
        return None
    if moment.year == 1:
        return None
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


def format_ns(ns: int) -> str:
    """Format as RFC 3339 in UTC with as many digits as needed (Go's RFC3339Nano)."""
    seconds, nanos = divmod(ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{text}{fraction}Z"
