"""Log records as JSON objects, for ``GET /containers/{id}/logs?format=json`` (API 1.54).

An object has ``Line`` (with its newline; omitted if it is empty), ``Source`` (the stream), ``Timestamp``, ``Attrs``
with ``details``, and ``MetaData`` of a part of a line that was too long for one record.
"""

from collections.abc import Iterator
from typing import Any

from engine.common import jsontext
from server.containers.logs.format import Formatter, Query


class JsonFormatter(Formatter):
    """Writes one object per line; ``prefix`` precedes each object."""

    def __init__(self, query: Query, prefix: bytes) -> None:
        super().__init__(query)
        self._details = query.details
        self._prefix = prefix

    def _format(self, records: list[dict[str, Any]]) -> bytes:
        return b"".join(self._lines(records))

    def _lines(self, records: list[dict[str, Any]]) -> Iterator[bytes]:
        for time, record in self.chosen(records):
            shown: dict[str, Any] = {"Line": record["log"]} if record["log"] else {}
            shown |= {"Source": record["stream"], "Timestamp": _trimmed(time)}
            if self._details and (attributes := self.attributes(record)):
                shown["Attrs"] = [{"Key": key, "Value": value} for key, value in sorted(attributes.items())]
            if part := record.get("part"):
                shown["MetaData"] = part
            yield self._prefix + jsontext.escaped(jsontext.dumps(shown), html=True) + b"\n"


def _trimmed(time: str) -> str:
    """A time with nine digits of the second's fraction, as Go writes it: without trailing zeros."""
    return time[:-1].rstrip("0").rstrip(".") + "Z"
