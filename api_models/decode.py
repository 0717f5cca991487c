"""Decodes JSON bodies to models; errors have the sentences of Go's decoder."""

import inspect
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from api_models.base import Go, Model
from api_models.gojson import explain
from engine.common import jsontext, limits
from engine.common.errors import invalid

M = TypeVar("M", bound=Model)

_NUMBERS = frozenset({"int", "int64", "uint", "uint16", "uint32", "uint64", "time.Duration", "fs.FileMode"})
_BASIC = {str: "string", bool: "bool", int: "int64", float: "float64"}


def parse_json(body: bytes) -> Any:
    """Parses ``body``.

    :raises WharfError: INVALID_ARGUMENT in dockerd's words.
    """
    try:
        return jsontext.loads(body)
    except ValueError:
        raise invalid(explain(body)) from None


def decode(model: type[M], body: bytes, *, root: str = "") -> M:
    """Decodes ``body`` to ``model``. ``root``: the Go name of the outermost struct, if it isn't the model's.

    :raises WharfError: INVALID_ARGUMENT: no JSON, a value of the wrong type, or more than ``limits.JSON_VALUES``.
    """
    document = parse_json(body)
    # Check before decoding: a model takes 100 times the bytes of its text, an error about a value even more.
    if jsontext.has_more(document, limits.JSON_VALUES):
        raise limits.exceeded("JSON_VALUES", "the number of values in the body")
    try:
        return model.model_validate({} if document is None else document)
    except ValidationError as error:
        raise invalid("invalid JSON: " + mismatch(model, error, root=root)) from None


def mismatch(model: type[Model], error: ValidationError, *, root: str = "") -> str:
    """Returns Go's sentence about the first wrong value of a validation error."""
    first = error.errors(include_url=False, include_context=False)[0]
    struct_name = root or _short(model)
    annotation: Any = model
    metadata: tuple[Any, ...] = ()
    path: list[str] = []
    for step in first["loc"]:
        annotation = _unwrapped(annotation)
        if isinstance(annotation, type) and issubclass(annotation, Model):
            if annotation is not model:
                struct_name = _short(annotation)
            attribute, names = _field(annotation, str(step))
            path += names
            info = annotation.model_fields[attribute]
            annotation, metadata = info.annotation, tuple(info.metadata)
            continue
        arguments = get_args(annotation)
        if step == "[key]" or not arguments:
            break
        annotation, metadata = arguments[-1], ()
    go_type = _go_type(annotation, metadata)
    value = _kind(first["input"], go_type)
    if not path:
        return f"json: cannot unmarshal {value} into Go value of type {go_type}"
    return f"json: cannot unmarshal {value} into Go struct field {struct_name}.{'.'.join(path)} of type {go_type}"


def _short(model: type[Model]) -> str:
    return (model.go_name or model.__name__).rpartition(".")[2]


def _field(model: type[Model], name: str) -> tuple[str, list[str]]:
    """Returns the attribute of a JSON name, and its path in Go, where an embedded struct is a step too."""
    for attribute, info in model.model_fields.items():
        if name in (attribute, info.alias):
            owner = next(base for base in model.__mro__ if attribute in inspect.get_annotations(base))
            embedded = str(getattr(owner, "go_embedded", "")) if owner is not model else ""
            return attribute, [*([embedded] if embedded else []), info.alias or attribute]
    raise KeyError(name)


def _unwrapped(annotation: Any) -> Any:
    """Strips ``Annotated`` and ``| None`` from an annotation."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, UnionType):
            annotation = next(each for each in get_args(annotation) if each is not NoneType)
        else:
            return annotation


def _go_type(annotation: Any, metadata: tuple[Any, ...]) -> str:
    for mark in reversed(metadata):  # outermost first
        if isinstance(mark, Go):
            return mark.name
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        return _go_type(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        return _go_type(next(each for each in arguments if each is not NoneType), ())
    if origin is list:
        return "[]" + _go_type(arguments[0], ())
    if origin is dict:
        return "map[string]" + _go_type(arguments[1], ())
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation.go_name or annotation.__name__
    return _BASIC.get(annotation, "struct {}")


def _kind(value: Any, go_type: str) -> str:
    """Returns the JSON kind of a value, as Go's errors name it."""
    match value:
        case bool():
            return "bool"
        case int() | float():
            # Go quotes a number that is out of range.
            return f"number {value}" if go_type in _NUMBERS else "number"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
    return "null"
