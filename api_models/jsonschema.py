"""JSON schemas (draft 2020-12, which OpenAPI 3.1 uses) of records."""

from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import models_json_schema

from api_models.base import OMIT, Model
from api_models.record import Record, body_of, inner_models

#: The place of a schema in an OpenAPI description.
REFERENCE = "#/components/schemas/{model}"


def schemas(answers: Iterable[type[Record]], bodies: Iterable[type[Record]]) -> dict[str, Any]:
    """The schemas of these records and of those in them, by name. An answer has all of its fields, except those that
    are omitted while they are empty; what is part of a body needs none."""
    read = _all(map(body_of, bodies))
    written = _all(map(body_of, answers)) - read
    models = [*written, *read]
    _, document = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    found: dict[str, Any] = document.get("$defs", {})
    for model in models:
        schema = found[model.__name__]
        for part in (schema, *schema["properties"].values()):
            part.pop("title", None)
        if model in written:
            schema["required"] = [
                field.alias or name for name, field in model.model_fields.items() if OMIT not in field.metadata
            ]
            for part in schema["properties"].values():
                part.pop("default", None)
    return dict(sorted(found.items()))


def _all(models: Iterable[type[Model]]) -> set[type[Model]]:
    found: set[type[Model]] = set()
    waiting = list(models)
    while waiting:
        model = waiting.pop()
        if model not in found:
            found.add(model)
            waiting += [inner for field in model.model_fields.values() for inner in inner_models(field.annotation)]
    return found
