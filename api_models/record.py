"""Objects of the Engine API that outlive a request: frozen dataclasses, each the only description of its object.

A :class:`Record` declares every field once: its name, type and default, and in ``Annotated[...]`` further properties:
the JSON name if it differs from the attribute's, Go's name of the type, whether answers omit the field while it is
empty (``api_models.base.OMIT``), version marks (``api_models.versions``) and its place in the OCI spec
(``api_models.oci``). Everything else is derived from the declaration:

* :func:`body_of` returns the pydantic model that decodes the object from JSON. A body exists only while a request is
  decoded: ``api_models.versions.accept`` applies the client's version to it, :func:`freeze` converts it to the record,
  and services get the record;
* ``api_models.stored`` decodes documents that :func:`wire` has written, without a body;
* :func:`wire` encodes the object for answers and stored documents, with null, empty and absent as in Go;
* ``server.containers.spec.simple`` writes the fields that the OCI spec has unchanged.

Arrays are tuples, objects are ``Mapping``. ``dataclasses.replace`` makes a changed copy.
"""

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ValidatorFunctionWrapHandler, WrapValidator, create_model
from pydantic import Field as Declared
from pydantic.fields import FieldInfo

from api_models.base import OMIT, Go, Model, Text, empty, pascal

R = TypeVar("R", bound="Record")


class OneString(list[str]):
    """An array of a body for which the client sent a string."""


def _one_or_many(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, list) and not all(each is None or isinstance(each, str) for each in value):
        raise ValueError("Go's decoder of this type blames the array, not what is in it")
    return OneString(validate([value])) if isinstance(value, str) else validate(value)


def _struct(value: Any) -> Any:
    return {} if value is None else value


Strings = tuple[Text, ...]
StringMap = Mapping[str, Text]
#: A command: a JSON string is an array of one element.
StrSlice = Annotated[tuple[Text, ...], WrapValidator(_one_or_many)]
#: Go's map[string]struct{}: only the keys matter.
KeySet = Mapping[str, Annotated[Mapping[str, Any], BeforeValidator(_struct), Go("struct {}")]]


class Json:
    """Marks a field of an answer that is a JSON value already. ``wire`` doesn't copy it."""

    __slots__ = ()


class Record:
    """Base of the records. A subclass is a ``@dataclass(frozen=True, slots=True, kw_only=True)`` whose fields all
    have defaults. A record that extends another one corresponds to Go's embedding."""

    __slots__ = ()

    #: The type's name in dockerd's errors, "package.Name".
    go_name: ClassVar[str] = ""
    #: Go's name of this struct where it is embedded in another one.
    go_embedded: ClassVar[str] = ""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Parses a JSON object with Docker's names: a stored document, or an image's configuration. For documents that
        only ``wire`` has written, ``api_models.stored`` needs less.

        :raises ValueError: a field has the wrong type.
        """
        return freeze(cls, body_of(cls).model_validate(document))

    def wire(self) -> dict[str, Any]:
        """Returns the object as the API writes it (a new dict of JSON values)."""
        return wire(self)


# ---- what is derived ----------------------------------------------------------------------------------------

_Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Derived:
    """``conversions``: (attribute, converter from the body's value to the record's, or None) of each field."""

    body: type[Model]
    conversions: tuple[tuple[str, _Convert | None], ...]


_derived: dict[type[Record], _Derived] = {}
_lock = threading.RLock()  # large bodies are decoded in threads


def _derive(record: type[Record]) -> _Derived:
    found = _derived.get(record)
    if found is None:
        with _lock:
            found = _derived.get(record) or _make(record)
            _derived[record] = found
    return found


def _make(record: type[Record]) -> _Derived:
    hints = get_type_hints(record, include_extras=True)
    declared: dict[str, Field[Any]] = {field.name: field for field in fields(record)}  # type: ignore[arg-type]
    own: dict[str, Any] = {
        name: (_body_type(hints[name]), _default(declared[name]))
        for name in inspect.get_annotations(record)
        if name in declared
    }
    parent = record.__bases__[0]
    base = body_of(parent) if parent is not Record else Model
    create: Callable[..., type[Model]] = create_model  # mypy's plugin takes a direct call for a class statement
    body = create(record.__name__, __base__=base, __module__=record.__module__, __doc__=record.__doc__, **own)
    body.go_name, body.go_embedded = record.go_name, record.go_embedded
    return _Derived(
        body,
        tuple((name, _conversion(hints[name])) for name in declared),
    )


class Place(NamedTuple):
    """A field of a record in JSON: the attribute, its annotation, the JSON name; whether it is omitted while it is
    empty, a pointer in Go, a JSON value already."""

    attribute: str
    annotation: Any
    name: str
    omit: bool
    pointer: bool
    json: bool


_layouts: dict[type[Record], tuple[Place, ...]] = {}


def layout_of(record: type[Record]) -> tuple[Place, ...]:
    """The fields in declared order. It needs no body, which costs more memory than what it describes."""
    found = _layouts.get(record)
    if found is None:
        hints = get_type_hints(record, include_extras=True)
        found = tuple(_place(hints[field.name], field) for field in fields(record))  # type: ignore[arg-type]
        _layouts[record] = found
    return found


def _place(annotation: Any, field: Field[Any]) -> Place:
    marks = annotation.__metadata__ if get_origin(annotation) is Annotated else ()
    alias = next((mark.alias for mark in marks if isinstance(mark, FieldInfo) and mark.alias), pascal(field.name))
    json = any(isinstance(mark, Json) for mark in marks)
    return Place(field.name, annotation, alias, OMIT in marks, field.default is None, json)


# ---- reading -------------------------------------------------------------------------------------------------


def body_of(record: type[Record]) -> type[Model]:
    """Returns the pydantic model with the fields, names and marks of ``record``, and of the records inside it."""
    return _derive(record).body


def _default(field: Field[Any]) -> Any:
    """Converts a default for the body, whose lists and dicts are mutable."""
    if field.default is MISSING:
        raise TypeError(f"the field {field.name} of a record has no default")
    if isinstance(field.default, Record):
        return Declared(default_factory=body_of(type(field.default)))
    if isinstance(field.default, tuple):
        return Declared(default_factory=lambda: list(field.default))
    return field.default


def _body_type(annotation: Any) -> Any:
    """Returns the annotation of a body's field: lists for tuples, dicts for mappings, bodies for records."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Annotated[(_body_type(arguments[0]), *arguments[1:])]
    if origin in (Union, UnionType):
        return Union[tuple(_body_type(each) for each in arguments)]  # noqa: UP007
    if origin is tuple:
        return list[_body_type(arguments[0])]  # type: ignore[misc]
    if origin is Mapping:
        return dict[arguments[0], _body_type(arguments[1])]  # type: ignore[misc,valid-type]
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return body_of(annotation)
    return annotation


def freeze(record: type[R], body: Model) -> R:
    """Converts ``body``, a ``body_of(record)``, to a record. ``body`` must not be changed afterwards."""
    return record(
        **{
            name: value if convert is None or value is None else convert(value)
            for name, convert in _derive(record).conversions
            for value in (getattr(body, name),)
        }
    )


def _conversion(annotation: Any) -> _Convert | None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _conversion(arguments[0])
    if origin in (Union, UnionType):
        return _conversion(next(each for each in arguments if each is not NoneType))
    if origin is tuple:
        element = _conversion(arguments[0])
        return tuple if element is None else lambda values: tuple(None if v is None else element(v) for v in values)
    if origin is Mapping:
        value = _conversion(arguments[1])
        if value is None:
            return None
        return lambda values: {key: None if each is None else value(each) for key, each in values.items()}
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return lambda body: freeze(annotation, body)
    return None


# ---- writing -------------------------------------------------------------------------------------------------

_SCALARS = frozenset((str, int, bool, float, type(None)))


def wire(record: Record) -> dict[str, Any]:
    """Encodes ``record`` as a dict of JSON values, by the rules in ``api_models.base``."""
    document: dict[str, Any] = {}
    for attribute, _, name, omit, pointer, json in layout_of(type(record)):
        value = getattr(record, attribute)
        if omit and empty(value, pointer=pointer):
            continue
        document[name] = value if json or type(value) in _SCALARS else _value(value)
    return document


def _value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [each if type(each) in _SCALARS else _value(each) for each in value]
    if isinstance(value, Mapping):
        return {key: each if type(each) in _SCALARS else _value(each) for key, each in value.items()}
    return wire(value) if isinstance(value, Record) else value


# ---- both kinds of models -------------------------------------------------------------------------------------


def inner_models(annotation: Any) -> tuple[type[Model], ...]:
    """Returns the models in an annotation, at any depth; for a record its body."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, Record):
            return (body_of(annotation),)
        return (annotation,) if issubclass(annotation, Model) else ()
    found: tuple[type[Model], ...] = ()
    for argument in get_args(annotation):
        found += inner_models(argument)
    return found
