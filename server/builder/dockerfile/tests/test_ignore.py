"""Wildcards of paths: the earliest match suffices, and matching takes bounded time."""

import itertools
import re
import time

import pytest

from engine.common.errors import WharfError
from server.builder.dockerfile.ignore import Ignore, component

NAIVE = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def naive(pattern: str) -> re.Pattern[str]:
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|.", pattern)
    return re.compile("(?s:" + "".join(NAIVE.get(token, re.escape(token)) for token in tokens) + ")")


def test_matches_like_a_backtracking_pattern() -> None:
    paths = ["".join(each) for size in range(6) for each in itertools.product("ab/", repeat=size)]
    patterns = [
        "a*b",
        "*a*b",
        "**/a",
        "**a*b",
        "a**b",
        "**/a*/b",
        "*/**/b",
        "a*b*a",
        "**a**b*",
        "**/*a/**",
        "?*b/*",
        "**",
    ]
    for pattern in patterns:
        found, wanted = component(pattern), naive(pattern)
        for path in paths:
            assert (found.fullmatch(path) is None) == (wanted.fullmatch(path) is None), (pattern, path)


@pytest.mark.parametrize(
    "pattern", ["*a" * 60 + "b", "**/a" * 60 + "/b", "**a" * 60 + "b", "*/" * 60 + "c", "**/*a*" * 40]
)
def test_backtracking_is_bounded(pattern: str) -> None:
    begin = time.monotonic()
    ignore = Ignore([pattern])
    for path in ("a" * 1000, "a/" * 500 + "x"):
        ignore.ignores(path)
    assert time.monotonic() - begin < 60


def test_limits() -> None:
    with pytest.raises(WharfError, match=r"exceeds the limit GLOB_BYTES \(8192\)"):
        Ignore(["*" * 9000])
    with pytest.raises(WharfError, match="syntax error in pattern"):
        Ignore(["[z-a]"])
