"""Labels and annotations as stored in the database: JSON objects of strings."""

import json
from collections.abc import Mapping


def dump(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(labels), separators=(",", ":"), ensure_ascii=False) if labels else "{}"


def load(text: str) -> dict[str, str]:
    if text == "{}":
        return {}
    labels: dict[str, str] = json.loads(text)
    return labels
