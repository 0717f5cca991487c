"""Filters of history requests."""

import contextlib
import operator
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from engine.common.errors import WharfError, invalid, not_implemented
from server.builder.dockerfile.words import duration
from server.builder.session.pb import control_pb2 as pb


class HistoryFilter:
    """The filter of a request: ``ref``, ``status`` (running, completed, error, canceled) and ``repository`` with ``=``,
    ``==`` or ``!=``; ``startedAt`` and ``completedAt`` (a time or an age) and ``duration`` with ``<``, ``<=``, ``>`` or
    ``>=``. All conditions must match, whether comma-separated or in filters of their own."""

    def __init__(self, request: pb.BuildHistoryRequest) -> None:
        self._ref, self._active = request.Ref, request.ActiveOnly
        self._filters = [_read(part) for text in request.Filter for part in text.split(",")]

    def matches(self, record: pb.BuildHistoryRecord) -> bool:
        """Whether a record matches."""
        if (self._ref and record.Ref != self._ref) or (self._active and record.HasField("CompletedAt")):
            return False
        return all(matches(record) for matches in self._filters)


Matches = Callable[[pb.BuildHistoryRecord], bool]


def _read(text: str) -> Matches:
    match = _FILTER.fullmatch(text.strip())
    if match is None:
        names = ", ".join((*_FIELDS, *_TIMES))
        raise not_implemented(f"the filter {text} is not supported: {names} are")
    key, how, value = match[1] or match[4], match[2] or match[5], (match[3] or match[6] or "").strip('"')
    if key in _FIELDS:
        return lambda record: (_field(record, key) == value) is (how != "!=")
    compare, limit = _COMPARE[how], _limit(key, value)
    return lambda record: (at := _time(record, key)) is not None and compare(at, limit)


def _limit(key: str, value: str) -> int:
    """Parse a duration, or a time since the epoch, to nanoseconds."""
    with contextlib.suppress(WharfError):
        ns = duration(value)
        return ns if key == "duration" else time.time_ns() - ns
    if key != "duration":
        with contextlib.suppress(ValueError):
            return int(datetime.fromisoformat(value).timestamp() * 10**9)
    raise invalid(f"the filter {key} takes no {value}")


def _time(record: pb.BuildHistoryRecord, key: str) -> int | None:
    """Return a time of the record; ``None`` if it is not reached yet."""
    if key != "startedAt" and not record.HasField("CompletedAt"):
        return None
    started, ended = record.CreatedAt.ToNanoseconds(), record.CompletedAt.ToNanoseconds()
    return {"startedAt": started, "completedAt": ended, "duration": ended - started}[key]


def _field(record: pb.BuildHistoryRecord, key: str) -> str:
    if key == "ref":
        return record.Ref
    if key == "repository":
        return record.FrontendAttrs.get("vcs:source", "")
    if not record.HasField("CompletedAt"):
        return "running"
    if not record.HasField("error"):
        return "completed"
    return "canceled" if record.error.code == 1 else "error"


_FIELDS = ("ref", "status", "repository")
_TIMES = ("startedAt", "completedAt", "duration")
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FILTER = re.compile(rf"({'|'.join(_FIELDS)})(==|!=|=)(.*)|({'|'.join(_TIMES)})(<=|>=|<|>)(.+)")
