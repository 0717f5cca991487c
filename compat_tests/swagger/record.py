"""Writes ``compat_tests/golden/swagger.json``: names and types of the answers in published API descriptions.

python -m compat_tests.swagger.record api/swagger.yaml api/docs/v1.44.yaml
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from compat_tests.swagger.document import FILE

#: What the check reads of a schema.
_KEPT = ("$ref", "type", "format", "enum", "required", "x-nullable")


def condensed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without prose, examples and extensions."""
    found: dict[str, Any] = {name: schema[name] for name in _KEPT if name in schema}
    if "properties" in schema:
        found["properties"] = {name: condensed(each or {}) for name, each in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            found[name] = condensed(schema[name])
    if "allOf" in schema:
        found["allOf"] = [condensed(each) for each in schema["allOf"]]
    return found


def operations(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return by "METHOD /path" the schema of each successful status, null if it has none; streams are left out."""
    found: dict[str, Any] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answers = {
                str(status): condensed(answer["schema"]) if "schema" in answer else None
                for status, answer in (operation.get("responses") or {}).items()
                if re.fullmatch(r"2\d\d", str(status))
            }
            found[f"{method.upper()} {path}"] = answers
    return found


def description(text: str) -> tuple[str, dict[str, Any]]:
    """Return the version of a description, and what the check needs of it."""
    document = yaml.load(text, yaml.CSafeLoader)
    definitions = {name: condensed(each) for name, each in document["definitions"].items()}
    return str(document["info"]["version"]), {"operations": operations(document), "definitions": definitions}


def written(documents: Mapping[str, Any]) -> str:
    """Return the file's text: one operation or definition a line."""
    lines = []
    for version, document in sorted(documents.items()):
        parts = []
        for part in ("operations", "definitions"):
            entries = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(document[part].items()))
            parts.append(f'  "{part}": {{\n   ' + ",\n   ".join(entries) + "\n  }")
        lines.append(f' "{version}": {{\n' + ",\n".join(parts) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(written(dict(description(Path(name).read_text()) for name in sys.argv[1:])))
