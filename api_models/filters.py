"""The ``filters`` parameter: accepted keys and values, and dockerd's ways to match them."""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from engine.common import jsontext, limits, regex
from engine.common.errors import WharfError, invalid

# From this many values on, a comparison with each takes longer than looking up each prefix of a name, or a thread.
_MANY = 64


def _bad(key: str = "", values: Collection[str] | None = None) -> WharfError:
    if not key:
        return invalid("invalid filter")
    shown = "" if values is None else f"=[{' '.join(values)}]"
    return invalid(f"invalid filter '{key}{shown}'")


class Filters:
    """Key → values. A missing key matches everything."""

    __slots__ = ("_fields", "_found", "_regexes", "_sets")

    def __init__(self, fields: Mapping[str, Collection[str]] | None = None) -> None:
        self._fields: dict[str, tuple[str, ...]] = {key: tuple(values) for key, values in (fields or {}).items()}
        self._regexes: dict[str, list[regex.Regex]] = {}
        self._sets = {key: frozenset(values) for key, values in self._fields.items()}
        self._found: dict[tuple[str, str], bool] = {}

    @classmethod
    def parse(cls, text: str) -> "Filters":
        """Parses ``{"key":{"value":true}}`` or the old form ``{"key":["value"]}``; "" is no filter.

        :raises WharfError: INVALID_ARGUMENT "invalid filter", or more values than ``limits.FILTER_VALUES``.
        """
        if not text:
            return cls()
        try:
            document: Any = jsontext.loads(text)
        except ValueError:
            raise _bad() from None
        if document is None:
            return cls()
        if not isinstance(document, dict):
            raise _bad()
        fields: dict[str, list[str]] = {}
        for key, values in document.items():
            if isinstance(values, dict) and all(isinstance(on, bool) for on in values.values()):
                fields[key] = [value for value, on in values.items() if on]
            elif isinstance(values, list) and all(isinstance(value, str) for value in values):
                fields[key] = list(dict.fromkeys(values))
            elif values is None:
                fields[key] = []
            else:
                raise _bad()
        if sum(map(len, fields.values())) > limits.FILTER_VALUES:
            raise limits.exceeded("FILTER_VALUES", "the number of values in the filters")
        return cls(fields)

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Filters({self._fields!r})"

    def get(self, key: str) -> tuple[str, ...]:
        """Returns the values of ``key``; empty if it is missing."""
        return self._fields.get(key, ())

    def validate(self, accepted: Collection[str]) -> None:
        """:raises WharfError: INVALID_ARGUMENT: a key outside ``accepted``."""
        for key in self._fields:
            if key not in accepted:
                raise _bad(key)

    def exact(self, key: str, value: str) -> bool:
        """Whether ``value`` is one of the key's values, or the key has none."""
        values = self._sets.get(key)
        return not values or value in values

    def fuzzy(self, key: str, value: str) -> bool:
        """Like :meth:`exact`, and also if one of the key's values is a prefix of ``value``."""
        values = self._fields.get(key)
        if not values:
            return True
        if len(values) < _MANY:
            return value.startswith(values)
        return any(value[:end] in self._sets[key] for end in range(len(value) + 1))

    def match(self, key: str, value: str) -> bool:
        """Like :meth:`exact`, and also if one of the key's values matches in ``value`` as a regular expression."""
        values = self._fields.get(key)
        if not values or value in self._sets[key]:
            return True
        if (key, value) in self._found:
            return self._found[key, value]
        return any(value.find(text) >= 0 for text in values if _plain(text)) or any(
            expression.search(value) for expression in self._expressions(key)
        )

    async def search_ahead(self, key: str, values: Iterable[str]) -> None:
        """Computes the results of :meth:`match` for ``values``, in a thread if there are expressions or many texts.

        :raises WharfError: INVALID_ARGUMENT: the expressions together exceed ``limits.REGEX_BYTES``.
        """
        if self._expressions(key) or len(self.get(key)) >= _MANY:
            texts = list(values)
            found = await asyncio.to_thread(lambda: [self.match(key, text) for text in texts])
            self._found.update({(key, text): fits for text, fits in zip(texts, found, strict=True)})

    def _expressions(self, key: str) -> list[regex.Regex]:
        """Compiles the values of a key that are more than plain text; an invalid expression matches nothing."""
        if key not in self._regexes:
            expressions = [text for text in self.get(key) if not _plain(text)]
            if sum(map(len, expressions)) > limits.REGEX_BYTES:
                raise limits.exceeded("REGEX_BYTES", f"the filter '{key}'")
            found: list[regex.Regex] = []
            for text in expressions:
                with contextlib.suppress(regex.RegexError):
                    found.append(regex.compiled(text))
            self._regexes[key] = found
        return self._regexes[key]

    def labels(self, key: str, labels: Mapping[str, str] | None) -> bool:
        """Whether each of the key's values, ``name`` or ``name=value``, is in ``labels``."""
        for expected in self.get(key):
            name, equals, value = expected.partition("=")
            if labels is None or name not in labels or (equals and labels[name] != value):
                return False
        return True

    def labelled(self, labels: Mapping[str, str] | None) -> bool:
        """Applies the filters ``label`` and ``label!`` of lists and prunes."""
        if not self.labels("label", labels):
            return False
        return "label!" not in self._fields or not self.labels("label!", labels)

    def flag(self, key: str, *, default: bool) -> bool:
        """Returns the boolean value of a key: 1, true, 0 or false.

        :raises WharfError: INVALID_ARGUMENT: another value, or several.
        """
        if key not in self._fields:
            return default
        values = self._fields[key]
        if not values:
            raise _bad(key)
        false, true = bool({"0", "false"} & set(values)), bool({"1", "true"} & set(values))
        if false == true:
            raise _bad(key, values)
        return true


def _plain(pattern: str) -> bool:
    """Whether a regular expression matches only itself."""
    return not set(pattern) & set("\\.+*?()|[]{}^$")
