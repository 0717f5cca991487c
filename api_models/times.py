"""Times in the API's formats: Go's RFC 3339 with nanoseconds, and ``docker ps``'s "3 minutes ago"."""

import time

_SECOND = 1_000_000_000


def rfc3339(ns: int) -> str:
    """Formats nanoseconds since the epoch in UTC; 0 is Go's zero time."""
    if ns == 0:
        return "0001-01-01T00:00:00Z"
    seconds, nanos = divmod(ns, _SECOND)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{nanos:09d}".rstrip("0") + "Z" if nanos else text + "Z"


def human(ns: int) -> str:
    """Formats a duration as ``docker ps`` does; clients parse it."""
    seconds = ns // _SECOND
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    # Go rounds to the nearest hour here, and truncates everywhere else.
    hours = (seconds + 1800) // 3600
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{seconds // 3600 // 24 // 365} years"
