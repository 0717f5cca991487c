"""The condensed API descriptions, and the operation that a request belongs to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from re import Pattern
from typing import Any

FILE = Path(__file__).parent.parent / "golden" / "swagger.json"
_VERSIONED = re.compile(r"/v(\d+\.\d+)(?=/)")


@dataclass(frozen=True, slots=True)
class Operation:
    """``answers``: the schema of each successful status; None: no body, or a stream."""

    name: str
    answers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Description:
    """The description of one version."""

    definitions: Mapping[str, Any]
    _exact: Mapping[str, Operation]
    _patterns: tuple[tuple[str, Pattern[str], Operation], ...]

    def find(self, method: str, path: str) -> Operation | None:
        """Return the operation of a path without version and query."""
        known = self._exact.get(f"{method} {path}")
        if known is not None:
            return known
        for verb, pattern, operation in self._patterns:
            if verb == method and pattern.fullmatch(path):
                return operation
        return None


@cache
def _documents() -> Mapping[str, Any]:
    documents: Mapping[str, Any] = json.loads(FILE.read_text())
    return documents


@cache
def described(version: str) -> Description | None:
    """Return the description of a version, or None if the file has none."""
    document = _documents().get(version)
    if document is None:
        return None
    exact: dict[str, Operation] = {}
    patterns = []
    for name, answers in document["operations"].items():
        operation = Operation(name, answers)
        exact[name] = operation
        method, _, path = name.partition(" ")
        if "{" in path:
            # The names of images and links have slashes.
            pattern = re.compile("".join(".+" if part[0] == "{" else re.escape(part) for part in _parts(path)))
            patterns.append((method, pattern, operation))
    patterns.sort(key=lambda item: -len(item[1].pattern))
    return Description(document["definitions"], exact, tuple(patterns))


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"(\{.*?\})", path) if part]


def split(target: str) -> tuple[str, str]:
    """Return version ("" without one) and path of a request's target."""
    path = target.partition("?")[0]
    found = _VERSIONED.match(path)
    return (found[1], path[found.end() :]) if found else ("", path)
