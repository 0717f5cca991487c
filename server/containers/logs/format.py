"""The formats of the file drivers, and the output of ``docker logs``.

A block of a ``json-file`` log is parsed as one JSON array: its records have one line each, without newlines inside.
This is several times as fast as parsing line by line, which is only done for a block with a malformed record (after a
full disk or a crash).
"""

import contextlib
import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard
from urllib.parse import quote_plus

import orjson

from engine.shim import varint

STREAMS: Mapping[str, int] = {"stdout": 1, "stderr": 2}
_HEADERS = {name: [bytes((number, 0, 0, 0)) + size.to_bytes(4, "big") for size in range(512)]
            for name, number in STREAMS.items()}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The query of ``GET /containers/{id}/logs``. ``tail``: the number of records, -1: all. Times: ns since the epoch,
    0: no bound. ``framed``: each record in a stdcopy frame; else raw, as for a terminal. ``json``: each record as a
    JSON object after these bytes; None: as it was written. ``attributes``: added to those of each record."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since_ns: int = 0
    until_ns: int = 0
    tail: int = -1
    timestamps: bool = False
    details: bool = False
    framed: bool = True
    json: bytes | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def header(stream: str, size: int) -> bytes:
    """The header of a stdcopy frame with ``size`` bytes of data."""
    return bytes((STREAMS[stream], 0, 0, 0)) + size.to_bytes(4, "big")


def stamp(ns: int) -> str:
    """A time as RFC 3339 in UTC with nine digits of the fraction, so that texts compare as the times do."""
    seconds, nanos = divmod(ns, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def _padded(time: str) -> str:
    """A record's time with nine digits of the fraction: the driver omits trailing zeros."""
    return time if len(time) == 30 else time[:19] + "." + time[20:-1].ljust(9, "0") + "Z"


def attributes_text(attributes: Mapping[str, str]) -> str:
    """The attributes for ``--details``: sorted ``key=value``, both encoded as in a URL's query."""
    return ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(attributes.items()))


class Formatter:
    """Formats records for a query. ``done``: a record later than ``until`` was reached."""

    def __init__(self, query: Query) -> None:
        self.done = False
        self._query = query
        self._selected = {"stdout": query.stdout, "stderr": query.stderr}
        self._all = query.stdout and query.stderr
        self._since = stamp(query.since_ns) if query.since_ns > 0 else ""
        # A bound before the epoch excludes all records.
        self._until = stamp(max(query.until_ns, 1)) if query.until_ns else ""
        self._plain = not (query.timestamps or query.details or self._since or self._until)

    def format(self, records: list[dict[str, Any]]) -> bytes:
        """The output for ``records``: objects with ``log``, ``stream``, ``time`` and optionally ``attrs``. Malformed
        records are skipped."""
        try:
            return self._format(records)
        except (KeyError, TypeError, AttributeError):
            return self._format([record for record in records if valid(record)])

    def _format(self, records: list[dict[str, Any]]) -> bytes:
        if not self._plain:
            return b"".join(self._each(records))
        if not self._all:
            records = [record for record in records if self._selected[record["stream"]]]
        if not self._query.framed:
            return "".join([record["log"] for record in records]).encode()
        parts: list[bytes] = []
        add = parts.append
        heads = _HEADERS
        for record in records:
            data = record["log"].encode()
            size = len(data)
            stream = record["stream"]
            add(heads[stream][size] if size < 512 else header(stream, size))
            add(data)
        return b"".join(parts)

    def chosen(self, records: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The wanted records, each with its time in the form of :func:`stamp`."""
        since, until = self._since, self._until
        for record in records:
            time = _padded(record["time"])
            if since and time < since:
                continue
            if until and time > until:
                self.done = True
                return
            if self._selected[record["stream"]]:
                yield time, record

    def attributes(self, record: dict[str, Any]) -> dict[str, str]:
        """What ``--details`` shows of a record."""
        return {**(record.get("attrs") or {}), **self._query.attributes}

    def _each(self, records: Iterable[dict[str, Any]]) -> Iterable[bytes]:
        query = self._query
        for time, record in self.chosen(records):
            text = record["log"]
            if query.details:
                text = f"{attributes_text(self.attributes(record))} {text}"
            if query.timestamps:
                text = f"{time} {text}"
            data = text.encode()
            if query.framed:
                yield header(record["stream"], len(data))
            yield data


class Format(Protocol):
    """The format of a driver's file."""

    def whole(self, data: bytes) -> int:
        """The number of bytes of the complete records at the beginning of ``data``."""

    def records(self, data: bytes) -> list[dict[str, Any]]:
        """The records in a block of complete records; malformed ones are skipped."""

    def tail(self, read: Callable[[int, int], bytes], size: int, count: int) -> tuple[int, int]:
        """The offset at which the last ``count`` records begin, and their number, which is smaller in a short file.
        ``read(size, offset)`` reads the file; ``size``: its bytes."""


_BLOCK = 1 << 16


class JsonLines:
    """The format of ``json-file``: a JSON object in each line."""

    def whole(self, data: bytes) -> int:
        return data.rfind(b"\n") + 1

    def records(self, data: bytes) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = orjson.loads(b"[" + data[:-1].replace(b"\n", b",") + b"]")
            return found
        except ValueError:
            pass
        return [record for line in data.splitlines() if (record := _parse_line(line)) is not None]

    def tail(self, read: Callable[[int, int], bytes], size: int, count: int) -> tuple[int, int]:
        found, end = 0, size
        while end > 0:
            begin = max(0, end - _BLOCK)
            block = read(end - begin, begin)
            at = len(block)
            # Each newline ends a record; the one at the end of the file ends the last record.
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                if begin + at + 1 == size:
                    continue
                found += 1
                if found == count:
                    return begin + at + 1, found
            end = begin
        return 0, found + (1 if size else 0)


def _parse_line(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except ValueError:
        return None
    return record if valid(record) else None


def valid(record: object) -> TypeGuard[dict[str, Any]]:
    """Whether ``record`` has the fields and types that the driver writes."""
    if not isinstance(record, dict) or record.get("stream") not in STREAMS:
        return False
    attributes = record.get("attrs") or {}
    return (
        isinstance(record.get("log"), str)
        and isinstance(record.get("time"), str)
        and isinstance(attributes, dict)
        and all(isinstance(value, str) for value in attributes.values())
    )


class LocalRecords:
    """The format of ``local``: a protobuf LogEntry between two copies of its length (4 bytes, big-endian)."""

    def whole(self, data: bytes) -> int:
        at = 0
        while at + 4 <= len(data):
            after = at + 8 + int.from_bytes(data[at : at + 4], "big")
            if after > len(data):
                break
            at = after
        return at

    def records(self, data: bytes) -> list[dict[str, Any]]:
        found, at = [], 0
        while at + 8 <= len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            with contextlib.suppress(IndexError, ValueError):  # malformed: skip it by its length
                found.append(_entry(data[at + 4 : at + 4 + size]))
            at += 8 + size
        return found

    def tail(self, read: Callable[[int, int], bytes], size: int, count: int) -> tuple[int, int]:
        found, end = 0, size
        while end >= 8 and found < count:
            length = int.from_bytes(read(4, end - 4), "big")
            if length + 8 > end:
                break
            end -= length + 8
            found += 1
        return end, found


def _entry(data: bytes) -> dict[str, Any]:
    """The record of a LogEntry, whose fields are: 1 source, 2 time_nano, 3 line without newline, 4 partial, 5 metadata
    of a partial line.

    :raises ValueError, IndexError: a malformed message.
    """
    stream, ns, line, partial = "", 0, b"", False
    part: dict[str, Any] = {}
    at = 0
    while at < len(data):
        key, at = varint.decode(data, at)
        if key & 7 == 0:
            number, at = varint.decode(data, at)
            if key >> 3 == 2:
                ns = number
            elif key >> 3 == 4:
                partial = bool(number)
        elif key & 7 == 2:
            size, at = varint.decode(data, at)
            value = data[at : at + size]
            at += size
            if key >> 3 == 1:
                stream = value.decode()
            elif key >> 3 == 3:
                line = value
            elif key >> 3 == 5:
                part = _part(value)
        else:
            raise ValueError("no such wire type")
    if stream not in STREAMS:
        raise ValueError("no such stream")
    text = line.decode(errors="replace")
    found = {"log": text if partial and not part.get("Last") else text + "\n", "stream": stream, "time": stamp(ns)}
    return {**found, "part": part} if part else found


def _part(data: bytes) -> dict[str, Any]:
    """PartialLogEntryMetadata: 1 whether it is the last part, 2 the ID of the line, 3 the part's number."""
    found: dict[str, Any] = {"Last": False, "ID": "", "Ordinal": 0}
    at = 0
    while at < len(data):
        key, at = varint.decode(data, at)
        value, at = varint.decode(data, at)
        if key >> 3 == 1:
            found["Last"] = bool(value)
        elif key >> 3 == 2:
            found["ID"] = data[at : at + value].decode()
            at += value
        elif key >> 3 == 3:
            found["Ordinal"] = value
    return found


def format_of(driver: str) -> Format:
    """The format of a driver's file. The copies of drivers that send lines to a server have the format of ``local``."""
    return JsonLines() if driver == "json-file" else LocalRecords()
