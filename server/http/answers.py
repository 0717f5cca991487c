"""Responses of ordinary endpoints: JSON as dockerd writes it, or no body."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from engine.common import jsontext


def dumps(value: Any) -> bytes:
    """JSON of plain values, as in dockerd's ordinary responses: ``<``, ``>`` and ``&`` are not escaped."""
    return jsontext.escaped(jsontext.dumps(value), html=False)


def dumps_escaped(value: Any) -> bytes:
    """The same with these escaped, as dockerd does in messages of streams and in the header of a path."""
    return jsontext.escaped(jsontext.dumps(value), html=True)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON with a final newline. The type is exactly application/json: clients compare the whole string."""
    return Response(dumps(value) + b"\n", status, headers, media_type="application/json")


def no_content(status: int = 204) -> Response:
    """No body: 204, or an empty 200 or 201."""
    return Response(b"", status)
