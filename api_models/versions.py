"""The version marks of fields and query parameters, and the functions that apply them.

A difference between versions is declared at its field, as a mark in ``Annotated[...]``:

* marks of requests (:func:`accept` applies them): :class:`Since`, :class:`Gone`, :class:`Implied`, :class:`Needs`,
  :class:`Listed`, :class:`Checked`;
* marks of answers (:func:`shape` applies them): :class:`Shown`, :class:`Instead`, :class:`Filled`,
  :class:`Default`, :class:`Emptied`, :class:`Adapted`; with ``strict`` also :class:`Dropped`.

Marks of query parameters are in the table of the routes: :class:`Since`, :class:`Repeatable`, :class:`Fixed`. Other
differences are in ``api_models.changes``. No handler and no service compares versions.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

from api_models.base import Model
from api_models.record import OneString, Record, body_of, inner_models
from api_models.supported import Version, spelled
from engine.common.errors import invalid


class RequestMark:
    """A rule for a field of a request, depending on the version."""

    def apply(self, parent: Model, attribute: str, version: Version) -> None:
        """Changes ``parent`` as dockerd does, or raises INVALID_ARGUMENT."""
        raise NotImplementedError


class QueryMark:
    """A rule for a query parameter, depending on the version."""

    def values(self, given: list[str], version: Version) -> list[str]:
        """Returns the parameter's values as dockerd interprets them for ``version``."""
        raise NotImplementedError


def _reset(parent: Model, attribute: str) -> None:
    info = type(parent).model_fields[attribute]
    setattr(parent, attribute, info.get_default(call_default_factory=True, validated_data={}))


class Since(RequestMark, QueryMark):
    """The field or parameter is ignored in requests of clients below ``version``."""

    def __init__(self, version: Version) -> None:
        self.version = version

    def apply(self, parent: Model, attribute: str, version: Version) -> None:
        if version < self.version:
            _reset(parent, attribute)

    def values(self, given: list[str], version: Version) -> list[str]:
        return given if version >= self.version else []


class Repeatable(Since):
    """As :class:`Since`; below ``several``, only one value is accepted of the parameter ``name``."""

    def __init__(self, version: Version, *, name: str, several: Version) -> None:
        super().__init__(version)
        self.name = name
        self.several = several

    def values(self, given: list[str], version: Version) -> list[str]:
        accepted = super().values(given, version)
        if len(accepted) > 1 and version < self.several:
            raise invalid(
                f"multiple {self.name} parameters are not supported in this API version;"
                f" use API version {spelled(self.several)} or later"
            )
        return accepted


class Fixed(QueryMark):
    """For clients below ``below``, the parameter has ``value``, whatever they send."""

    def __init__(self, below: Version, value: str) -> None:
        self.below = below
        self.value = value

    def values(self, given: list[str], version: Version) -> list[str]:
        return [self.value] if version < self.below else given


class Gone(RequestMark):
    """From ``version`` on, the field is ignored."""

    def __init__(self, version: Version) -> None:
        self.version = version

    def apply(self, parent: Model, attribute: str, version: Version) -> None:
        if version >= self.version:
            _reset(parent, attribute)


class Implied(RequestMark):
    """For clients below ``below``, an empty field means ``value``."""

    def __init__(self, below: Version, value: object) -> None:
        self.below = below
        self.value = value

    def apply(self, parent: Model, attribute: str, version: Version) -> None:
        if version < self.below and not getattr(parent, attribute):
            setattr(parent, attribute, self.value)


class Needs(RequestMark):
    """Below ``version``, the field is refused, because ignoring it would change the request's meaning."""

    def __init__(self, version: Version, name: str) -> None:
        self.version = version
        self.name = name

    def apply(self, parent: Model, attribute: str, version: Version) -> None:
        if version < self.version and getattr(parent, attribute):
            raise invalid(f"{self.name} needs API v{spelled(self.version)} or newer")


class Listed(RequestMark):
    """From ``version`` on, a string is refused for an array. ``path``: the field's in the error."""

    def __init__(self, version: Version, path: str) -> None:
        self.version = version
        self.path = path

    def apply(self, parent: Model, attribute: str, version: Version) -> None:
        if version >= self.version and isinstance(getattr(parent, attribute), OneString):
            raise invalid(
                f"invalid JSON: json: cannot unmarshal string into Go struct field {self.path} of type []string"
            )


class Checked(RequestMark):
    """A rule about several fields: a function of (parent, version)."""

    def __init__(self, rule: Callable[[Any, Version], None]) -> None:
        self.rule = rule

    def apply(self, parent: Model, attribute: str, version: Version) -> None:
        self.rule(parent, version)


class AnswerMark:
    """A rule for a field of an answer, depending on the version."""

    #: Whether the rule is only applied in the daemon's strict mode (``--feature strict-api=true``).
    strict: ClassVar[bool] = False

    def apply(self, document: dict[str, Any], key: str, version: Version) -> None:
        raise NotImplementedError


class Shown(AnswerMark):
    """The field exists from ``version`` on."""

    def __init__(self, version: Version) -> None:
        self.version = version

    def apply(self, document: dict[str, Any], key: str, version: Version) -> None:
        if version < self.version:
            document.pop(key, None)


class Dropped(AnswerMark):
    """In strict mode, the field is omitted from ``version`` on; else answers keep it, because clients that predate the
    version read it without asking for a version. ``empty_only``: it is omitted only while it is empty."""

    strict: ClassVar[bool] = True

    def __init__(self, version: Version, *, empty_only: bool = False) -> None:
        self.version = version
        self.empty_only = empty_only

    def apply(self, document: dict[str, Any], key: str, version: Version) -> None:
        if version >= self.version and not (self.empty_only and document.get(key)):
            document.pop(key, None)


class Instead(AnswerMark):
    """Clients below ``below`` get ``value``; a callable computes it from the document."""

    def __init__(self, below: Version, value: object) -> None:
        self.below = below
        self.value = value

    def apply(self, document: dict[str, Any], key: str, version: Version) -> None:
        if version < self.below:
            document[key] = self.value(document) if callable(self.value) else self.value


class Filled(AnswerMark):
    """Clients below ``below`` get the key, with ``value`` if the answer lacks it; later ones don't get it."""

    def __init__(self, below: Version, value: object) -> None:
        self.below = below
        self.value = value

    def apply(self, document: dict[str, Any], key: str, version: Version) -> None:
        if version < self.below:
            document.setdefault(key, self.value)
        else:
            document.pop(key, None)


class Default(AnswerMark):
    """Clients below ``below`` get the key, with ``value`` if the answer lacks it."""

    def __init__(self, below: Version, value: object) -> None:
        self.below = below
        self.value = value

    def apply(self, document: dict[str, Any], key: str, version: Version) -> None:
        if version < self.below:
            document.setdefault(key, self.value)


class Emptied(AnswerMark):
    """From ``version`` on, an object that is always ``{}``; :func:`fills` tells whether its content is needed."""

    def __init__(self, version: Version) -> None:
        self.version = version

    def apply(self, document: dict[str, Any], key: str, version: Version) -> None:
        if version >= self.version:
            document[key] = {}


class Adapted(AnswerMark):
    """A rule about several fields: a function of (document, version)."""

    def __init__(self, rule: Callable[[dict[str, Any], Version], None]) -> None:
        self.rule = rule

    def apply(self, document: dict[str, Any], key: str, version: Version) -> None:
        self.rule(document, version)


class _Node:
    """The version marks of one model, including its inner models."""

    __slots__ = ("answers", "inner", "requests")

    def __init__(self) -> None:
        self.requests: list[tuple[str, RequestMark]] = []
        self.answers: list[tuple[str, AnswerMark]] = []
        # (attribute, JSON name, model, the field is a map of the model)
        self.inner: list[tuple[str, str, type[Model], bool]] = []


@cache
def _node(cls: type[Model]) -> _Node:
    node = _Node()
    for attribute, info in cls.model_fields.items():
        alias = info.alias or attribute
        for mark in info.metadata:
            if isinstance(mark, RequestMark):
                node.requests.append((attribute, mark))
            elif isinstance(mark, AnswerMark):
                node.answers.append((alias, mark))
        for inner in inner_models(info.annotation):
            below = _node(inner)
            if below.requests or below.answers or below.inner:
                node.inner.append((attribute, alias, inner, "dict[" in str(info.annotation)))
    return node


def accept(model: Model, version: Version) -> None:
    """Changes a request to what dockerd makes of it for a client of ``version`` (in place).

    :raises WharfError: INVALID_ARGUMENT: the version does not support a part of the request.
    """
    node = _node(type(model))
    for attribute, mark in node.requests:
        mark.apply(model, attribute, version)
    for attribute, _, _, _ in node.inner:
        _accept_value(getattr(model, attribute), version)


def fills(schema: type[Model], attribute: str, version: Version) -> bool:
    """Whether an answer for ``version`` needs a field's content, which may be expensive to compute."""
    marks = schema.model_fields[attribute].metadata
    return not any(isinstance(mark, Emptied) and version >= mark.version for mark in marks)


def _accept_value(value: Any, version: Version) -> None:
    if isinstance(value, Model):
        accept(value, version)
    elif isinstance(value, list):
        for each in value:
            _accept_value(each, version)
    elif isinstance(value, dict):
        for each in value.values():
            _accept_value(each, version)


def shape(
    schema: type[Model] | type[Record], document: dict[str, Any], version: Version, *, strict: bool = False
) -> dict[str, Any]:
    """Changes a full answer to what a client of ``version`` expects (in place) and returns it.

    ``document`` holds JSON values under Docker's names; fields that ``schema`` does not declare stay unchanged.
    ``strict``: also apply the marks of the strict mode.
    """
    node = _node(body_of(schema) if issubclass(schema, Record) else schema)
    for key, mark in node.answers:
        if strict or not mark.strict:
            mark.apply(document, key, version)
    for _, alias, inner, is_map in node.inner:
        value = document.get(alias)
        if is_map and isinstance(value, dict):
            value = list(value.values())
        for each in value if isinstance(value, list) else (value,):
            if isinstance(each, dict):
                shape(inner, each, version, strict=strict)
    return document
