"""Patterns of the filter ``reference``: Go's path.Match."""

import pytest

from engine.common.errors import WharfError
from server.images.filters import ReferenceTest
from server.registry.reference import parse

NAME = parse("registry.test/team/app:v1").tagged()


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("registry.test/team/app", True),
        ("registry.test/team/app:v1", True),
        ("registry.test/team/app:v2", False),
        ("registry.test/*/app", True),
        ("registry.test/*", False),
        ("*/*/*:v?", True),
        ("*/*/*:v[0-9]", True),
        ("*/*/*:v[^0-9]", False),
        ("*/*/*:v[9-0]", False),
        ("*/*/*:v[^9-0]", True),
        (r"*/*/a[\-p]p", True),
        (r"*/*/\a*", True),
        ("app", False),
    ],
)
def test_patterns(pattern: str, fits: bool) -> None:
    assert ReferenceTest([pattern]).fits(NAME) is fits


@pytest.mark.parametrize("pattern", ["[", "a[", "[]a]", "[^]", "[a-]", "[-a]", "x\\", "[a", "[a-b"])
def test_invalid_patterns(pattern: str) -> None:
    with pytest.raises(WharfError, match=r"^syntax error in pattern$"):
        ReferenceTest([pattern]).fits(NAME)


def test_all_patterns_of_one_filter_are_bounded() -> None:
    with pytest.raises(WharfError, match=r"the filter 'reference' exceeds the limit GLOB_BYTES \(8192\)"):
        ReferenceTest([f"{number}*" for number in range(5000)])
    assert not ReferenceTest([f"name{number}" for number in range(5000)]).fits(NAME)
