"""The answers of ordinary endpoints: JSON as dockerd writes it, or nothing."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from api_models.base import Model, wire
from engine.common import jsontext


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        return wire(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def dumps(value: Any) -> bytes:
    """JSON of plain values and models, as dockerd's ordinary answers have it: ``<``, ``>`` and ``&`` as they are."""
    return jsontext.escaped(jsontext.dumps(value, _plain), html=False)


def dumps_escaped(value: Any) -> bytes:
    """The same with these escaped, as dockerd has it in the messages of streams and in the header of a path."""
    return jsontext.escaped(jsontext.dumps(value, _plain), html=True)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON with a newline at its end. The type is exactly application/json: clients compare the whole string."""
    return Response(dumps(value) + b"\n", status, headers, media_type="application/json")


def no_content(status: int = 204) -> Response:
    """No body: 204, or an empty 200 or 201."""
    return Response(b"", status)
