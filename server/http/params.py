"""Query parameters and bodies, parsed as dockerd does: lenient booleans, strict numbers, its sentences."""

import asyncio
import base64
import binascii
from collections.abc import Collection
from typing import Any, TypeVar

from starlette.requests import Request

from api_models.base import Model
from api_models.changes import Change
from api_models.decode import decode
from api_models.filters import Filters
from api_models.record import Record, body_of, freeze
from api_models.supported import Version
from api_models.versions import QueryMark, accept, shape
from engine.common import jsontext
from engine.common.errors import WharfError, invalid

M = TypeVar("M", bound=Model)
R = TypeVar("R", bound=Record)

_FALSE = frozenset({"", "0", "no", "false", "none"})
# The seconds of Go's valid dates.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
# The maximum size of a JSON body.
MAX_BODY = 16 * 1024 * 1024
# Larger bodies are decoded in a thread: describing the error of an invalid one takes seconds.
_LARGE = 64 * 1024


def version_of(request: Request) -> Version:
    """The API version of this request."""
    version: Version = request.state.version
    return version


def has(request: Request, change: Change) -> bool:
    """Whether the client's version has a change of behaviour."""
    return change.within(version_of(request))


def strict(request: Request) -> bool:
    """Whether the daemon drops deprecated fields as the reference does (``--feature strict-api=true``)."""
    chosen: bool = request.state.services.system.config.strict_api
    return chosen


def shaped(request: Request, schema: type[Model] | type[Record], document: dict[str, Any]) -> dict[str, Any]:
    """Change an answer to what the client's version expects (in place); return it."""
    return shape(schema, document, version_of(request), strict=strict(request))


def text(request: Request, name: str, default: str = "") -> str:
    """A parameter's first value, as Go's ``FormValue``."""
    values = texts(request, name)
    return values[0] if values else default


def texts(request: Request, name: str) -> list[str]:
    """All values of a repeatable parameter, as the client's version means them."""
    given = request.query_params.getlist(name)
    mark: QueryMark | None = request.state.query.get(name)
    return given if mark is None else mark.values(given, version_of(request))


def flag(request: Request, name: str, *, default: bool = False) -> bool:
    """A boolean: "", 0, no, false and none (any case) are false, anything else is true."""
    values = texts(request, name)
    return default if not values else values[0].strip().lower() not in _FALSE


def number(request: Request, name: str, default: int | None = None) -> int | None:
    """A 64-bit number; "" counts as missing.

    :raises WharfError: INVALID_ARGUMENT with the sentence of Go's strconv.
    """
    value = text(request, name)
    return default if value == "" else parse_int(value)


def parse_int(value: str) -> int:
    """A signed 64-bit decimal.

    :raises WharfError: INVALID_ARGUMENT with the sentence of Go's strconv.
    """
    digits = value[1:] if value[:1] in ("+", "-") else value
    quoted = jsontext.dumps(value).decode()
    if not (digits.isascii() and digits.isdigit()):
        raise invalid(f"strconv.ParseInt: parsing {quoted}: invalid syntax")
    parsed = int(value) if len(digits) < 32 else 2**64
    if not -(2**63) <= parsed < 2**63:
        raise invalid(f"strconv.ParseInt: parsing {quoted}: value out of range")
    return parsed


def timestamp(value: str) -> int:
    """``seconds[.nanoseconds]`` → ns, not before the year 1 nor after 9999; "" is 0.

    :raises WharfError: INVALID_ARGUMENT with Go's sentence (dockerd answers 500 with it).
    """
    if not value:
        return 0
    whole, dot, fraction = value.partition(".")
    for word in (whole, fraction) if dot else (whole,):
        parse_int(word)
    nanos = int(fraction[:9].ljust(9, "0")) if fraction else 0
    return min(max(int(whole), _FIRST_SECOND), _LAST_SECOND) * 1_000_000_000 + nanos


def filters(request: Request, accepted: Collection[str] | None = None, *, name: str = "filters") -> Filters:
    """The filters parameter; keys outside ``accepted`` are refused.

    :raises WharfError: INVALID_ARGUMENT.
    """
    parsed = Filters.parse(text(request, name))
    if accepted is not None:
        parsed.validate(accepted)
    return parsed


async def raw_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The whole body.

    :raises WharfError: INVALID_ARGUMENT: longer than ``limit`` bytes.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise invalid("http: request body too large")
        parts.append(part)
    return b"".join(parts)


def check_json(request: Request) -> None:
    """A body requires ``Content-Type: application/json``; without a body the header may be missing.

    :raises WharfError: INVALID_ARGUMENT.
    """
    kind = request.headers.get("content-type", "")
    if kind == "":
        has_body = "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
        if not has_body:
            return
        raise invalid("malformed Content-Type header (): mime: no media type")
    media, _, rest = kind.partition(";")
    if "/" not in media.strip() or (rest.strip() and "=" not in rest):
        raise invalid(f"malformed Content-Type header ({kind}): mime: invalid media parameter")
    if media.strip().lower() != "application/json":
        raise invalid(f"unsupported Content-Type header ({kind}): must be 'application/json'")


async def body(request: Request, kind: type[R], *, optional: bool = True) -> R:
    """The JSON body, adapted to the client's version. ``optional``: a missing body is an empty object.

    :raises WharfError: INVALID_ARGUMENT.
    """
    check_json(request)
    data = await raw_body(request)
    if optional and not data:
        return left_out(request, kind)
    return await from_bytes(request, data, kind)


def left_out(request: Request, kind: type[R]) -> R:
    """An object that the client left out of its body, as its version means it."""
    model = body_of(kind).model_validate({})
    accept(model, version_of(request))
    return freeze(kind, model)


async def from_bytes(request: Request, data: bytes, kind: type[R]) -> R:
    """The object in ``data``, adapted to the client's version.

    :raises WharfError: INVALID_ARGUMENT.
    """
    model = await _decoded(body_of(kind), data)
    accept(model, version_of(request))
    return freeze(kind, model)


async def _decoded(model: type[M], data: bytes) -> M:
    """``decode``, in a thread if it may take long."""
    if len(data) <= _LARGE:
        return decode(model, data)
    model.model_rebuild()  # here: threads must not build the same model's validator concurrently
    return await asyncio.to_thread(decode, model, data)


def decode_auth(encoded: str, header: str) -> object:
    """The JSON value of an authentication header.

    :raises WharfError: INVALID_ARGUMENT.
    """
    try:
        padded = encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4)
        data = base64.b64decode(padded, altchars=b"-_", validate=True)
        return jsontext.loads(data) or {}
    except (binascii.Error, ValueError):
        raise _bad_auth(header) from None


def _bad_auth(header: str) -> WharfError:
    name = "-".join(part.capitalize() for part in header.split("-"))
    return invalid(f"invalid {name} header: must be a base64url-encoded JSON object")
