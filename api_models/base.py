"""The base of every model of the Engine API: decoding JSON as Go does, and encoding it as dockerd does.

Decoding. Unknown keys are ignored; keys are case-insensitive; ``null`` means "not given", so the field keeps its
default. A field with the default ``None`` distinguishes "not given" from "empty".

Encoding (:func:`wire`). Every field is written, even if it is empty: clients crash on missing keys. A field marked
:data:`OMIT` is omitted while it is empty, as with Go's ``omitempty``. A list or map with the default ``None`` is
written as ``null`` if it was not given, and as ``[]``/``{}`` if it was given empty.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class _Omit:
    """Marks a field that is omitted from the answer while it is empty."""

    def __repr__(self) -> str:
        return "OMIT"


OMIT = _Omit()


class Go:
    """The Go type that dockerd's error names for a field, where it differs from the annotation's."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def _text(value: Any) -> Any:
    # Go decodes null in a []string or map[string]string as the empty string.
    return "" if value is None else value


Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1), Go("int64")]
Int = Annotated[int, Field(ge=-(2**63), le=2**63 - 1), Go("int")]
Uint = Annotated[int, Field(ge=0, le=2**64 - 1), Go("uint")]
Uint16 = Annotated[int, Field(ge=0, le=2**16 - 1), Go("uint16")]
Uint32 = Annotated[int, Field(ge=0, le=2**32 - 1), Go("uint32")]
Uint64 = Annotated[int, Field(ge=0, le=2**64 - 1), Go("uint64")]
Text = Annotated[str, BeforeValidator(_text)]
Strings = list[Text]
StringMap = dict[str, Text]


def pascal(name: str) -> str:
    """Docker's JSON name of an attribute, where none is declared."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


class Model(BaseModel):
    """A JSON object of the Engine API. Attributes are snake_case, JSON names are Docker's."""

    model_config = ConfigDict(
        alias_generator=pascal,
        populate_by_name=True,
        defer_build=True,
        strict=True,
        extra="ignore",
        arbitrary_types_allowed=True,
    )

    # The type's name in dockerd's errors, "package.Name".
    go_name: ClassVar[str] = ""
    # Go's name of this struct where it is embedded in another one.
    go_embedded: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _as_go_reads(cls, data: Any) -> Any:
        """Gives the keys their declared case and drops those with ``null``."""
        if data is None:
            return {}  # an element of a list
        if not isinstance(data, dict):
            return data
        names = _names(cls)
        return {
            names.get(key) or names.get(key.lower(), key): value for key, value in data.items() if value is not None
        }

    def wire(self) -> dict[str, Any]:
        """Returns the object as the API writes it (a new dict of JSON values)."""
        return wire(self)


@cache
def _names(cls: type[Model]) -> Mapping[str, str]:
    """Lower-case JSON name → JSON name, with the attribute and JSON names themselves mapped too."""
    names: dict[str, str] = {}
    for attribute, field in cls.model_fields.items():
        alias = field.alias or attribute
        names[alias.lower()] = alias
    for attribute, field in cls.model_fields.items():
        names[attribute] = attribute
        names[field.alias or attribute] = field.alias or attribute
    return names


@cache
def _plan(cls: type[Model]) -> tuple[tuple[str, str, bool, bool], ...]:
    """(attribute, JSON name, omitted while empty, pointer in Go) of every field, in order of declaration."""
    return tuple(
        (attribute, field.alias or attribute, OMIT in field.metadata, field.default is None)
        for attribute, field in cls.model_fields.items()
    )


def empty(value: object, *, pointer: bool) -> bool:
    """Whether Go considers the value empty: false, 0, nil, "", an empty list or map; of a pointer only nil."""
    if pointer and isinstance(value, bool | int | str):
        return False
    return not value and not isinstance(value, Model)


_SCALARS = frozenset((str, int, bool, float, type(None)))


def _value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [each if type(each) in _SCALARS else _value(each) for each in value]
    if isinstance(value, dict):
        return {key: each if type(each) in _SCALARS else _value(each) for key, each in value.items()}
    if isinstance(value, Model):
        return wire(value)
    return value


def wire(model: Model) -> dict[str, Any]:
    """Encodes ``model`` as a dict of JSON values, by the rules at the top of this module."""
    document: dict[str, Any] = {}
    for attribute, alias, omit, pointer in _plan(type(model)):
        value = getattr(model, attribute)
        if omit and empty(value, pointer=pointer):
            continue
        document[alias] = value if type(value) in _SCALARS else _value(value)
    return document
