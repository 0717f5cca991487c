"""``/wharf/v1``: who sees what of users, policy and audit log. Answers are checked against the OpenAPI description."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from api_models.wharf import CallerPolicy, UserSummary
from server.access.policy import Role
from server.http.routing import ApiRoute
from server.routes import all_routes, timelines, ui
from server.routes.described import OPERATIONS
from server.tests.daemon import Daemon

ALICE, BOB, NOBODY = 10001, 10002, 10003
POLICY: dict[str, Any] = {
    "published_images": ["docker.io/library/busybox:*"],
    "users": {"10001": "member", "10002": "guest"},
    "roles": {"member": {"containers": 20, "memory": "32g", "ports": "20000-29999", "privileged": True}, "guest": {}},
}
_PARAMETER = re.compile(r"\{\w+\}")
PATHS = [route for route in all_routes() if route.path.startswith("/wharf/")]
#: Those of every engine.
WITHOUT_POLICY = {route.spelled for route in (*timelines.routes, *ui.routes)} | {"GET /wharf/v1/openapi.json"}


@pytest.fixture
def daemon(daemon: Daemon) -> Daemon:
    daemon.load("busybox:latest", config={"Cmd": ["sh"]})
    daemon.restrict(POLICY)
    return daemon


def closed(schema: Any) -> Any:
    """The description, in which no object may have properties that it doesn't name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **found} if "properties" in found else found


def described(daemon: Daemon, path: str, **query: object) -> httpx.Response:
    """An answer that matches its description."""
    answer = daemon.get(path, **query)
    document = closed(daemon.get("/wharf/v1/openapi.json").json())
    response = document["paths"][path]["get"]["responses"][str(answer.status_code)]
    media_type = answer.headers["content-type"]
    schema = {**response["content"][media_type]["schema"], "components": document["components"]}
    texts = answer.text.splitlines() if media_type == "application/x-ndjson" else [answer.text]
    for text in texts:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    return answer


def users(daemon: Daemon) -> dict[str, dict[str, Any]]:
    return {row["User"]: row for row in described(daemon, "/wharf/v1/users").json()}


def test_every_route_is_described(shared_daemon: Daemon) -> None:
    document = shared_daemon.get("/wharf/v1/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    found = {f"{verb.upper()} {path}" for path, verbs in document["paths"].items() for verb in verbs}
    assert found == {f"{route.method} {route.path}" for route in PATHS}
    names = [verb["operationId"] for verbs in document["paths"].values() for verb in verbs.values()]
    assert "deleteWharfV1SocketsId" in names
    assert len(set(names)) == len(names)
    assert set(OPERATIONS) == {route.spelled for route in PATHS}
    jsonschema.Draft202012Validator.check_schema({"$defs": document["components"]["schemas"]})


def test_all_rights_and_limits_of_a_role_are_described(shared_daemon: Daemon) -> None:
    schemas = shared_daemon.get("/wharf/v1/openapi.json").json()["components"]["schemas"]
    tables = schemas[CallerPolicy.__name__]["properties"]
    assert {*tables["Rights"]["properties"], *tables["Limits"]["properties"]} == set(Role.model_fields)
    assert schemas[UserSummary.__name__]["properties"]["Limits"]["properties"] == tables["Limits"]["properties"]


@pytest.mark.parametrize("route", PATHS, ids=lambda route: str(route.spelled))
def test_an_engine_without_a_policy(shared_daemon: Daemon, route: ApiRoute) -> None:
    if route.spelled not in WITHOUT_POLICY:
        status, sentence = shared_daemon.refusal(route.method, _PARAMETER.sub("x", route.path))
        assert status == 409
        assert sentence.startswith("this engine has no policy: ")


@pytest.mark.parametrize("route", PATHS, ids=lambda route: str(route.spelled))
def test_a_client_without_a_role_is_refused(daemon: Daemon, route: ApiRoute) -> None:
    assert daemon.as_uid(NOBODY).refusal(route.method, _PARAMETER.sub("x", route.path))[0] == 403


def test_administrators_see_all_users(daemon: Daemon) -> None:
    daemon.as_uid(ALICE).create("web")
    daemon.start(daemon.services.containers.get(daemon.as_uid(ALICE).create("job")))
    daemon.as_uid(ALICE).post("/networks/create", {"Name": "net", "ConfigOnly": True})
    daemon.as_uid(ALICE).post("/images/busybox/tag", repo="mine")
    for user in (daemon.as_uid(ALICE), daemon):
        user.post("/volumes/create", {"Name": "data"})
    daemon.as_uid(ALICE).post("/volumes/create", {})
    daemon.create("own")
    found = users(daemon)
    assert list(found) == ["", "10001", "10002"]
    alice = found["10001"]
    assert [alice[name] for name in ("Containers", "Running", "Networks", "Volumes")] == [2, 1, 1, 2]
    assert (alice["Role"], alice["Administrator"]) == ("member", False)
    assert alice["Limits"] == {"containers": 20, "memory": 32 << 30, "ports": [20000, 29999]}
    assert (found["10002"]["Role"], found["10002"]["Containers"]) == ("guest", 0)
    assert (found[""]["Administrator"], found[""]["Limits"], found[""]["Containers"]) == (True, None, 1)
    assert (found[""]["Images"], alice["Images"]) == (1, 1)


def test_a_user_whose_role_is_withdrawn_is_listed_with_its_objects(daemon: Daemon) -> None:
    daemon.as_uid(BOB).create("left")
    daemon.restrict({**POLICY, "users": {"10001": "member"}})
    assert users(daemon)["10002"] == {
        "User": "10002",
        "Administrator": False,
        "Role": "",
        "Containers": 1,
        "Running": 0,
        "Volumes": 0,
        "Networks": 0,
        "Images": 0,
        "Limits": None,
    }


def test_a_user_sees_the_own_row(daemon: Daemon) -> None:
    daemon.as_uid(ALICE).create("web")
    found = users(daemon.as_uid(BOB))
    assert list(found) == ["10002"]
    assert found["10002"]["Containers"] == 0
    assert users(daemon.as_uid(ALICE))["10001"]["Containers"] == 1


def test_the_policy_of_the_caller(daemon: Daemon) -> None:
    alice = described(daemon.as_uid(ALICE), "/wharf/v1/policy").json()
    assert (alice["User"], alice["Role"], alice["Administrator"]) == ("10001", "member", False)
    assert (alice["Rights"]["privileged"], alice["Rights"]["devices"]) == (True, False)
    assert alice["Limits"]["containers"] == 20
    root = described(daemon, "/wharf/v1/policy").json()
    assert (root["Administrator"], root["Role"], root["Rights"], root["Limits"]) == (True, "", None, None)


def test_the_audit_log(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    assert daemon.refusal("GET", "/wharf/v1/audit") == (
        409,
        "this engine has no audit log: its policy has no table [audit]",
    )
    daemon.restrict({**POLICY, "audit": {"file": str(path)}})
    daemon.as_uid(ALICE).create("web")
    assert daemon.as_uid(NOBODY).refusal("GET", "/containers/json")[0] == 403
    lines = [json.loads(line) for line in described(daemon, "/wharf/v1/audit").text.splitlines()]
    assert [(line["user"], line["status"]) for line in lines] == [("10001", 201), ("", 403)]
    assert daemon.as_uid(ALICE).refusal("GET", "/wharf/v1/audit") == (
        403,
        "GET /wharf/v1/audit is for administrators of this engine",
    )
    of_alice = daemon.get("/wharf/v1/audit", user="10001").text.splitlines()
    assert [json.loads(line)["status"] for line in of_alice] == [201, 403]
    assert len(daemon.get("/wharf/v1/audit", n=1).text.splitlines()) == 1
    assert daemon.get("/wharf/v1/audit", n=0).text == ""


@pytest.mark.parametrize(
    ("n", "sentence"),
    [
        ("-1", "n: -1 is no number of lines"),
        ("x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("10001", "the number of lines exceeds the limit AUDIT_LINES (10000)"),
    ],
)
def test_numbers_of_lines_that_are_refused(daemon: Daemon, tmp_path: Path, n: str, sentence: str) -> None:
    daemon.restrict({**POLICY, "audit": {"file": str(tmp_path / "audit.log")}})
    assert daemon.refusal("GET", f"/wharf/v1/audit?n={n}") == (400, sentence)
