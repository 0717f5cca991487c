"""The OpenAPI 3.1 description of endpoints, generated from their routes and from the records of their JSON objects.

What neither of them has is in an :class:`Operation`. Imported with the first request of a description.
"""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api_models.jsonschema import REFERENCE, schemas
from api_models.record import Record
from api_models.wharf import ErrorMessage
from server.http.routing import ApiRoute, Audience

JSON = "application/json"

_PATH_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
_WORDS = re.compile(r"[a-z0-9]+")
_DENIED = "The policy has no role for the client, or the socket's scope lacks this endpoint"


@dataclass(frozen=True, slots=True)
class Query:
    """A query parameter. ``type``: of JSON schema."""

    name: str
    about: str
    type: str = "string"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The description of an endpoint.

    ``about``: one sentence. ``answer``: the object of the answer with ``status``; None: the answer has no record.
    ``many``: the answer is an array of these objects; or, if it is not JSON, lines with an object each. ``errors``:
    status → when it is sent.
    """

    about: str
    query: Sequence[Query] = ()
    body: type[Record] | None = None
    answer: type[Record] | None = None
    many: bool = False
    status: int = 200
    media_type: str = JSON
    errors: Mapping[int, str] = field(default_factory=dict)


def description(
    routes: Iterable[ApiRoute],
    operations: Mapping[str, Operation],
    *,
    info: Mapping[str, str],
    replaced: Mapping[tuple[str, str], Mapping[str, Any]],
) -> dict[str, Any]:
    """The document. ``operations``: of each route, by its ``spelled``. ``info``: ``title``, ``version`` and
    ``description``. ``replaced``: the schema of a property that its record leaves open, by the names of both.

    :raises KeyError: a route has no operation.
    """
    described = [(route, operations[route.spelled]) for route in routes]
    components = schemas(
        [ErrorMessage, *(operation.answer for _, operation in described if operation.answer is not None)],
        [operation.body for _, operation in described if operation.body is not None],
    )
    for (record, name), schema in replaced.items():
        properties = components[record]["properties"]
        properties[name] = {**schema, "description": properties[name]["description"]}
    paths: dict[str, dict[str, Any]] = {}
    for route, operation in described:
        path = _PATH_PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, operation)
    return {"openapi": "3.1.0", "info": dict(info), "paths": paths, "components": {"schemas": components}}


def _operation(route: ApiRoute, operation: Operation) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": found[1], "in": "path", "required": True, "schema": {"type": "string"}}
        for found in _PATH_PARAMETER.finditer(route.path)
    ]
    parameters += [
        {"name": each.name, "in": "query", "description": each.about, "schema": {"type": each.type}}
        for each in operation.query
    ]
    administrators = route.audience is Audience.ADMINISTRATORS
    denied = _DENIED + (", or the client is no administrator" if administrators else "")
    document: dict[str, Any] = {
        "operationId": route.method.lower() + "".join(word.capitalize() for word in _WORDS.findall(route.path)),
        "summary": operation.about + (" For administrators." if administrators else ""),
        "parameters": parameters,
        "responses": {
            str(operation.status): _answer(operation),
            **{str(status): _error(text) for status, text in sorted({403: denied, **operation.errors}.items())},
        },
    }
    if operation.body is not None:
        document["requestBody"] = {"content": {JSON: {"schema": _reference(operation.body)}}}
    return document


def _answer(operation: Operation) -> dict[str, Any]:
    if operation.answer is None:
        found: dict[str, Any] = {"description": operation.about}
        return found if operation.status == 204 else {**found, "content": {JSON: {"schema": {"type": "object"}}}}
    schema: dict[str, Any] = _reference(operation.answer)
    about = inspect.cleandoc(operation.answer.__doc__ or "").partition("\n")[0]
    if operation.many and operation.media_type == JSON:
        schema = {"type": "array", "items": schema}
    elif operation.many:
        about = f"Lines, each with a JSON object: {about}"
    return {"description": about, "content": {operation.media_type: {"schema": schema}}}


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": _reference(ErrorMessage)}}}


def _reference(record: type[Record]) -> dict[str, Any]:
    return {"$ref": REFERENCE.format(model=record.__name__)}
