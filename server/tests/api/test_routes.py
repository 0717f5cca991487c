"""The route table: versions, unknown paths, and what is refused by name."""

import pytest

from server.routes import all_routes
from server.tests.daemon import Daemon


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.23", "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client"),
        ("1.56", "client version 1.56 is too new. Maximum supported API version is 1.55"),
        ("2.0", "client version 2.0 is too new. Maximum supported API version is 1.55"),
    ],
)
def test_versions_that_are_not_served(shared_daemon: Daemon, version: str, words: str) -> None:
    for path in ("/info", "/_ping", "/containers/json"):
        status, sentence = shared_daemon.refusal("GET", f"/v{version}{path}")
        assert status == 400
        assert sentence.startswith(words)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nope"), ("GET", "/v1.41/nope"), ("PUT", "/info"), ("POST", "/containers/json"), ("GET", "/v1.41")],
)
def test_unknown_paths_and_wrong_methods(shared_daemon: Daemon, method: str, path: str) -> None:
    assert shared_daemon.refusal(method, path) == (404, "page not found")


def test_options_of_any_path(shared_daemon: Daemon) -> None:
    for path in ("/info", "/nope", "/v1.41/containers/json"):
        answer = shared_daemon.request("OPTIONS", path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_every_route_answers_with_and_without_a_version(daemon: Daemon) -> None:
    """Whatever it says to names that nothing has, it is no "page not found"."""
    for route in all_routes():
        if route.waits or route.path in ("/grpc", "/session"):
            continue
        path = route.path
        for name in ("name", "id", "checkpoint"):
            path = path.replace(f"{{{name}}}", "nope").replace(f"{{{name}:path}}", "nope")
        for prefix in ("", f"/v{route.until or '1.55'}"):
            answer = daemon.request(route.method, f"{prefix}{path}")
            found = answer.json() if answer.status_code >= 400 and answer.content else {}
            assert found.get("message") != "page not found", path


def test_a_route_that_came_later(shared_daemon: Daemon) -> None:
    sentence = "POST /containers/prune requires minimum API version 1.25"
    assert shared_daemon.refusal("POST", "/v1.24/containers/prune") == (400, sentence)


def test_paths_are_cleaned(shared_daemon: Daemon) -> None:
    for path, clean in (("//info", "/info"), ("/containers//json?all=1", "/containers/json?all=1")):
        answer = shared_daemon.request("GET", f"http://docker{path}")
        assert (answer.status_code, answer.headers["location"]) == (301, clean), path


@pytest.mark.parametrize(
    ("method", "path", "status", "part"),
    [
        ("GET", "/swarm", 503, "This node is not a swarm manager"),
        ("GET", "/services", 503, "This node is not a swarm manager"),
        ("POST", "/secrets/create", 503, "This node is not a swarm manager"),
        ("POST", "/swarm/leave", 503, "This node is not part of a swarm"),
        ("POST", "/swarm/unlock", 503, "This node is not a swarm manager"),
        ("POST", "/plugins/pull", 501, "managed plugins are not part of this engine"),
        ("GET", "/plugins/nope/json", 404, 'plugin "nope" not found'),
        ("PUT", "/volumes/nope", 503, "volume update only valid for cluster volumes, but swarm is unavailable"),
    ],
)
def test_what_is_refused_by_name(shared_daemon: Daemon, method: str, path: str, status: int, part: str) -> None:
    found = shared_daemon.refusal(method, path)
    assert found[0] == status
    assert found[1].startswith(part)
    assert shared_daemon.get("/plugins").json() == []
