"""The ``until`` filter of the prune endpoints."""

import datetime
import re
import time

from api_models.filters import Filters
from engine.common.errors import invalid

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|m|s|ms|us|µs|ns)")
_UNITS = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 1000, "µs": 1000, "ns": 1}


def until_ns(filters: Filters, *, several: bool = False) -> int:
    """Returns the ``until`` filter as nanoseconds since the epoch; 0 without it. Of ``several``, the earliest counts.

    A duration counts back from now; other forms are seconds since the epoch, or a date and time.

    :raises WharfError: INVALID_ARGUMENT.
    """
    values = filters.get("until")
    if not values:
        return 0
    if len(values) > 1 and not several:
        raise invalid("more than one until filter specified")
    return min(_moment(text) for text in values)


def _moment(text: str) -> int:
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        back = sum(int(float(number) * _UNITS[unit]) for number, unit in parts)
        return time.time_ns() - back
    if re.fullmatch(r"[0-9]+(\.[0-9]{1,9})?", text):
        whole, _, fraction = text.partition(".")
        return int(whole) * 10**9 + int(fraction.ljust(9, "0") or "0")
    return _date(text)


def _date(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise invalid(f'failed to parse value as time or duration: "{text}"') from None
    if moment.tzinfo is None:
        moment = moment.astimezone()
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000
