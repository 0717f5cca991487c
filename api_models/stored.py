"""Decodes documents that ``record.wire`` has written: the engine's own files and stores.

``Record.parse`` reads them, too, by a pydantic model for each record. Those of a swarm's first objects need 2 MiB,
which a daemon keeps; and who reads own documents needs neither Go's rules for JSON nor the bounds of numbers.
"""

from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from api_models.record import Record, layout_of

R = TypeVar("R", bound=Record)

_Read = Callable[[Any], Any]


def restore(record: type[R], document: object) -> R:
    """The record that ``record.wire`` has written. Unknown names are ignored, missing ones have their defaults.

    :raises ValueError: a value has the wrong type.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"{record.__name__}: {type(document).__name__} instead of an object")
    values = {}
    for attribute, name, read in _readers(record):
        value = document.get(name)
        if value is not None:
            values[attribute] = read(value)
    return record(**values)


#: (attribute, JSON name, reader of its value) of each field.
_known: dict[type[Record], tuple[tuple[str, str, _Read], ...]] = {}


def _readers(record: type[Record]) -> tuple[tuple[str, str, _Read], ...]:
    found = _known.get(record)
    if found is None:
        found = tuple((place.attribute, place.name, _reader(place.annotation)) for place in layout_of(record))
        _known[record] = found
    return found


def _reader(annotation: Any) -> _Read:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _reader(arguments[0])
    if origin in (Union, UnionType):
        (known,) = (each for each in arguments if each is not NoneType)
        return _reader(known)
    if origin is tuple:
        return _sequence(_reader(arguments[0]))
    if origin is Mapping:
        return _mapping(_reader(arguments[1]))
    if annotation is Any:
        return lambda value: value
    if issubclass(annotation, Record):
        return lambda value: restore(annotation, value)
    return _scalar(annotation)


def _sequence(element: _Read) -> _Read:
    def read(value: Any) -> Any:
        if not isinstance(value, list):
            raise _wrong(value, list)
        return tuple(None if each is None else element(each) for each in value)

    return read


def _mapping(element: _Read) -> _Read:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong(value, dict)
        return {key: None if each is None else element(each) for key, each in value.items()}

    return read


def _scalar(kind: type[Any]) -> _Read:
    if kind not in (str, int, bool, float):
        raise TypeError(f"a stored record has a field of type {kind}")

    def read(value: Any) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise _wrong(value, kind)

    return read


def _wrong(value: object, kind: type[Any]) -> ValueError:
    return ValueError(f"{type(value).__name__} instead of {kind.__name__}")
