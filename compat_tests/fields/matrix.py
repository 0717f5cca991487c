"""The matrix of create: every field of API 1.51's Config, HostConfig and endpoint settings, and the test that proves
its effect.

A test names the fields that it proves, by Docker's names (``HostConfig.Memory``): :func:`honours`, :func:`shows` or
:func:`refuses`. ``test_fields.py`` compares the names with the fields of the API's models: a new field needs a test.
``python -m compat_tests.fields.matrix`` prints the matrix.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from compat_tests.support.images import ROOT

F = TypeVar("F", bound=Callable[..., Any])

#: What the engine fills in: ignored in a request.
OPERATIONAL = frozenset(
    f"Endpoint.{name}"
    for name in (
        *("NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address"),
        *("GlobalIPv6PrefixLen", "DNSNames"),
    )
)


def _unchanged(test: F) -> F:
    return test


def honours(*fields: str) -> Callable[[F], F]:
    """The test fails if one of these fields has no effect."""
    return _unchanged


def shows(*fields: str) -> Callable[[F], F]:
    """Metadata that Docker on Linux only stores: the test finds it unchanged in inspect."""
    return _unchanged


def refuses(*fields: str) -> Callable[[F], F]:
    """A field that Linux or this engine does not support: refused by name, or dropped with a warning as in dockerd."""
    return _unchanged


_KINDS = frozenset(each.__name__ for each in (honours, shows, refuses))


def proofs() -> dict[str, dict[str, list[str]]]:
    """Map field → kind → the tests that name it, from the source of all tests."""
    found: dict[str, dict[str, list[str]]] = {}
    for field, kind, test in sorted(_marks()):
        found.setdefault(field, {}).setdefault(kind, []).append(test)
    return found


def _marks() -> Iterator[tuple[str, str, str]]:
    for path in (ROOT / "compat_tests").rglob("test_*.py"):
        source = path.read_text()
        if "compat_tests.fields.matrix" not in source:
            continue
        for node in ast.parse(source).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id in _KINDS:
                    for field in mark.args:
                        yield ast.literal_eval(field), mark.func.id, f"{path.relative_to(ROOT)}::{node.name}"


def main() -> None:
    for field, kinds in proofs().items():
        for kind, tests in kinds.items():
            print(field, kind, *tests)


if __name__ == "__main__":
    main()
