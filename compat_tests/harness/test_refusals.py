"""The list of the tests that a user's role refuses, and how their results are judged."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from compat_tests.support import refusals
from compat_tests.support.refusals import CLIENTS, Refusal


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_each_listed_test_exists_and_is_listed_once() -> None:
    names = [name for each in refusals.listed() for name in each.tests]
    assert len(names) == len(set(names))
    for name in names:
        path, _, test = name.partition("::")
        assert test.partition("[")[0] in functions(CLIENTS / path), name


def report(outcome: str, text: str = "") -> pytest.TestReport:
    return pytest.TestReport("node", ("", 0, ""), {}, outcome, text or None, "call")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "outcome", "text", "judged"),
    [
        ("compat_tests/clients/a.py::test_b[wharf-user]", "failed", "not allowed", "skipped"),
        ("compat_tests/clients/a.py::test_b[1.44-wharf-user]", "failed", "not allowed", "skipped"),
        ("compat_tests/clients/a.py::test_b[wharf-user]", "failed", "another error", "failed"),
        ("compat_tests/clients/a.py::test_b[wharf-user]", "passed", "", "failed"),
        ("compat_tests/clients/a.py::test_c[wharf-user-x]", "failed", "not allowed", "skipped"),
        ("compat_tests/clients/a.py::test_c[wharf-user-y]", "failed", "not allowed", "failed"),
        ("compat_tests/clients/a.py::test_d[wharf-user]", "passed", "", "passed"),
    ],
)
def test_results_of_listed_tests(
    monkeypatch: pytest.MonkeyPatch, node: str, outcome: str, text: str, judged: str
) -> None:
    one = Refusal("why", re.compile("not allowed"), ("a.py::test_b", "a.py::test_c[x]"))
    monkeypatch.setattr(refusals, "listed", lambda: (one,))
    result = report(outcome, text)
    refusals.judge(node, result)
    assert result.outcome == judged
    assert hasattr(result, "wasxfail") == (judged == "skipped")
