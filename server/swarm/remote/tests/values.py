"""Values for tests of what goes over the wire."""

import random
from dataclasses import fields
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import orjson

from api_models.record import Record
from server.swarm.remote import wire


def any_value(annotation: Any, dice: random.Random) -> Any:
    """A value that is not the default of most fields."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return any_value(arguments[0], dice)
    if origin in (Union, UnionType):
        return any_value(next(each for each in arguments if each is not type(None)), dice)
    if origin is tuple:
        return tuple(any_value(arguments[0], dice) for _ in range(dice.randint(1, 2)))
    if origin is not None:
        return {f"key{number}": any_value(arguments[1], dice) for number in range(dice.randint(1, 2))}
    if annotation is str:
        return f"text {dice.randint(0, 999)} ä\n"
    if annotation is bool:
        return dice.random() < 0.5
    if annotation is int:
        return dice.randint(1, 1000)
    if annotation is float:
        return dice.random()
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return any_record(annotation, dice)
    return {}


def any_record(cls: type[Record], dice: random.Random) -> Any:
    hints = get_type_hints(cls, include_extras=True)
    return cls(**{field.name: any_value(hints[field.name], dice) for field in fields(cls)})  # type: ignore[arg-type]


def sent(line: object) -> dict[str, Any]:
    return wire.load(orjson.dumps(line))
