"""A short run of the fuzzer, always with the same requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.hostile.requests import fuzz
from compat_tests.support import engines
from compat_tests.support.engines import Engine
from compat_tests.support.openapi import DESCRIPTION

SEED = 11
SECONDS = 20.0


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Engine]:
    """An engine for this module: the test examines its log and its memory."""
    with engines.running("wharf", "fuzzed") as engine:
        yield engine


def test_generated_requests_are_answered(fuzzed: Engine) -> None:
    if not DESCRIPTION.exists():
        pytest.skip("needs the package golang-github-docker-docker-dev")
    found = fuzz.run(fuzzed, SEED, seconds=SECONDS)
    assert not found.wrong, "\n".join(found.wrong)
    assert found.requests > 100
    assert found.statuses[201] > 0  # otherwise all failed the first check
    assert found.raw > 20
