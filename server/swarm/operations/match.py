"""The filters of lists that all kinds of objects share. An empty list of values matches everything."""

from collections.abc import Mapping, Sequence


def prefixed(text: str, prefixes: Sequence[str]) -> bool:
    return not prefixes or text.startswith(tuple(prefixes))


def labelled(labels: Mapping[str, str] | None, wanted: Sequence[str]) -> bool:
    """``wanted``: ``key`` or ``key=value``; an empty value matches any."""
    labels = labels or {}
    for text in wanted:
        key, _, value = text.partition("=")
        if key not in labels or (value and labels[key] != value):
            return False
    return True
