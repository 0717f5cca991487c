"""Compares the published API description with the engine: each endpoint exists or is refused by name.

Requests use an API version that doesn't exist. dockerd matches the route before the version, so an existing endpoint
answers that the version is too new, and no request is executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from compat_tests.support.engines import Engine
from compat_tests.support.openapi import DESCRIPTION

REFUSED = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs")


def described() -> Iterator[tuple[str, str]]:
    """Yield (method, path) of every endpoint, by indentation: paths have two spaces, methods four."""
    path = ""
    inside = False
    for line in DESCRIPTION.read_text().splitlines():
        if re.match(r"\S", line) and not line.startswith("#"):
            inside = line.startswith("paths:")
        elif inside and (found := re.fullmatch(r"  (/\S*):", line)):
            path = found[1]
        elif inside and (found := re.fullmatch(r"    (get|post|put|delete|head):", line)):
            yield found[1].upper(), path


def filled(path: str) -> str:
    return re.sub(r"\{.*?\}", "x", path)


def test_every_endpoint_is_there(engine: Engine) -> None:
    if not DESCRIPTION.exists():
        pytest.skip("needs the package golang-github-docker-docker-dev")
    endpoints = list(described())
    assert len(endpoints) > 100
    missing = []
    connection = engine.api.connection()
    try:
        for method, path in endpoints:
            answer = engine.api.request(method, f"/v1.99{filled(path)}", on=connection)
            if answer.status != 400 or (method != "HEAD" and "1.99 is too new" not in answer.message):
                missing.append((method, path, answer.status, answer.body))
    finally:
        connection.close()
    assert not missing


def test_refused_endpoints_explain(engine: Engine) -> None:
    if not DESCRIPTION.exists():
        pytest.skip("needs the package golang-github-docker-docker-dev")
    words = re.compile("not a swarm manager|not part of a swarm|invalid ListenAddr")
    silent = []
    for method, path in described():
        if path.startswith(REFUSED):
            answer = engine.api.request(method, filled(path), data={} if method in ("POST", "PUT") else None)
            if answer.status not in (400, 503) or not words.search(answer.message):
                silent.append((method, path, answer.status, answer.body))
    assert not silent


def test_unknown_paths_and_wrong_methods(engine: Engine) -> None:
    for method, path in (
        *(("GET", path) for path in ("/", "/nope", "/v1.45/nope", "/v1.45", "/containers", "/info/", "/vx/info")),
        *((method, "/info") for method in ("PUT", "POST", "DELETE", "PATCH")),
    ):
        answer = engine.api.request(method, path)
        assert answer.error == (404, "page not found"), (method, path)
        assert answer.headers["Content-Type"] == "application/json"


def test_a_path_with_empty_or_dotted_parts_is_redirected(engine: Engine) -> None:
    for path, clean in (
        ("//info", "/info"),
        ("/containers//json?all=1", "/containers/json?all=1"),
        ("/v1.45/./info", "/v1.45/info"),
        ("/containers/../info", "/info"),
    ):
        answer = engine.api.request("GET", path)
        assert (answer.status, answer.headers.get("Location")) == (301, clean)
