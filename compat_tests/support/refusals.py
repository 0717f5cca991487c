"""The tests of clients that a user's role refuses, by name: ``compat_tests/clients/refused.toml``.

Each table of the file has the reason (``why``), what the failure of such a test shows (``shows``, a regular
expression), and the names (``tests``), without parameters if all of them are refused. A listed test that passes, or
that fails for another reason, fails the run.
"""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from compat_tests.support.as_user import KIND

_FOLDER = "compat_tests/clients/"
LEFTOVERS = "the test left in"
CLIENTS = Path(__file__).resolve().parents[1] / "clients"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why tests are refused, and how their failures show it."""

    why: str
    shows: re.Pattern[str]
    tests: tuple[str, ...]


@functools.cache
def listed() -> tuple[Refusal, ...]:
    """Return the tables of the file."""
    document = tomllib.loads((CLIENTS / "refused.toml").read_text())
    return tuple(
        Refusal(table["why"], re.compile(table["shows"]), tuple(table["tests"])) for table in document["refused"]
    )


def refusal_of(node: str) -> Refusal | None:
    """Return the refusal of a test by pytest's name of it."""
    if not node.startswith(_FOLDER):
        return None
    name = node.removeprefix(_FOLDER)
    for part in (f"[{KIND}]", f"{KIND}-", f"-{KIND}"):
        name = name.replace(part, "")
    bare = name.partition("[")[0]
    return next((each for each in listed() if name in each.tests or bare in each.tests), None)


def judge(node: str, report: pytest.TestReport) -> None:
    """Report an expected failure of a listed test as such, and its success as a failure."""
    refusal = refusal_of(node)
    if refusal is None:
        return
    if report.when == "teardown":
        if report.failed and LEFTOVERS in report.longreprtext:
            # A test that stops in the middle leaves objects; they are removed by now.
            report.outcome, report.longrepr = "passed", None
        return
    if report.failed and refusal.shows.search(report.longreprtext):
        report.outcome = "skipped"
        report.wasxfail = f"reason: {refusal.why}"
    elif report.passed and report.when == "call":
        report.outcome = "failed"
        report.longrepr = f"listed in refused.toml, but it passes: {refusal.why}"
