"""Who gets in, and from where."""

import subprocess
import sys
from pathlib import Path

import pytest

from server.tests.api.victim import ALICE, BOB, restrict
from server.tests.daemon import Daemon
from server.ui.passwords import Passwords
from server.ui.tests.visitor import ORIGIN, Visitor


def test_without_a_session_only_the_login_is_shown(visitor: Visitor) -> None:
    answer = visitor.ask("GET", "/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "wharf ui" in visitor.ask("GET", "/login").text
    for path in ("/api/containers/json", "/live", "/history", "/logs", "/problems", "/terminal", "/trends"):
        assert visitor.ask("GET", path).status_code == 401, path
    for method, path in (("POST", "/api/containers/create"), ("DELETE", "/api/containers/x"), ("POST", "/compose")):
        assert visitor.ask(method, path).status_code == 401, path


def test_a_link_is_for_one_login(daemon: Daemon, visitor: Visitor) -> None:
    link = daemon.post("/wharf/v1/ui/login").json()
    assert link["Url"] == f"{ORIGIN}{link['Path']}"
    visitor.log_in(link["Path"])
    assert visitor.ask("GET", "/api/containers/json").json() == []
    other = Visitor(daemon, visitor.page)
    token = link["Path"].partition("#")[2]
    answer = other.ask("POST", "/login", json={"token": token})
    assert answer.status_code == 401
    assert "used already" in answer.json()["message"]


def test_the_cookie_is_for_the_page_only(daemon: Daemon, visitor: Visitor) -> None:
    token = daemon.post("/wharf/v1/ui/login").json()["Path"].partition("#")[2]
    cookie = visitor.ask("POST", "/login", json={"token": token}).headers["set-cookie"]
    assert cookie.startswith("wharf_ui_9780=")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
    token = daemon.post("/wharf/v1/ui/login").json()["Path"].partition("#")[2]
    answer = visitor.ask("POST", "/login", {"X-Forwarded-Proto": "https"}, json={"token": token})
    assert "Secure" in answer.headers["set-cookie"]


def test_a_logout_ends_the_session(visitor: Visitor) -> None:
    visitor.log_in()
    kept = visitor.cookies
    assert visitor.ask("POST", "/logout").status_code == 204
    visitor.cookies = kept
    assert visitor.ask("GET", "/api/info").status_code == 401


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:9780", "localhost.evil.com", ""])
def test_another_name_is_refused(visitor: Visitor, host: str) -> None:
    visitor.log_in()
    assert visitor.ask("GET", "/api/info", {"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:9780", "192.0.2.7:9780", "LAB.example.org"])
def test_names_of_this_machine_are_served(visitor: Visitor, host: str) -> None:
    assert visitor.ask("GET", "/login", {"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example.com"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:9999"},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "é" * 8},
    ],
)
def test_requests_of_other_sites_change_nothing(daemon: Daemon, visitor: Visitor, headers: dict[str, str]) -> None:
    daemon.load("busybox:latest")
    id = daemon.create("web")
    visitor.log_in()
    sent = {name: value.encode() for name, value in headers.items()}
    answer = visitor.ask("DELETE", f"/api/containers/{id}", sent)  # type: ignore[arg-type] # bytes: no ASCII
    assert answer.status_code == 403
    assert daemon.get(f"/containers/{id}/json").status_code == 200
    assert visitor.ask("DELETE", f"/api/containers/{id}").status_code == 204


def test_a_login_from_another_site_is_refused(daemon: Daemon, visitor: Visitor) -> None:
    token = daemon.post("/wharf/v1/ui/login").json()["Path"].partition("#")[2]
    answer = visitor.ask("POST", "/login", {"Origin": "http://evil.example.com"}, json={"token": token})
    assert answer.status_code == 403
    visitor.log_in(f"#{token}")  # it was not used up


def test_a_websocket_from_another_site_is_refused(visitor: Visitor) -> None:
    visitor.log_in()
    handshake = {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": "http://evil.example.com"}
    assert visitor.ask("GET", "/api/wharf/v1/exec/abc/ws?h=1&w=1", handshake).status_code == 403
    answer = visitor.ask("GET", "/api/wharf/v1/exec/abc/ws?h=1&w=1", {**handshake, "Origin": ORIGIN})
    assert (answer.status_code, answer.json()["message"]) == (404, "No such exec instance: abc")


def test_cross_site_reads_are_refused(visitor: Visitor) -> None:
    visitor.log_in()
    fetched = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert visitor.ask("GET", "/api/containers/json", fetched).status_code == 403


def test_each_answer_says_what_a_browser_may_do(visitor: Visitor) -> None:
    visitor.log_in()
    policies = {path: visitor.ask("GET", path).headers for path in ("/", "/terminal", "/static/app.js", "/api/info")}
    for path, headers in policies.items():
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-eval" not in headers["content-security-policy"]
        assert ("unsafe-inline" in headers["content-security-policy"]) is (path == "/terminal")
    assert "sandbox" in policies["/api/info"]["content-security-policy"]
    assert "frame-ancestors 'none'" in policies["/"]["content-security-policy"]
    assert policies["/"]["cache-control"] == "no-store"


def test_the_documents_have_no_inline_script_or_style(visitor: Visitor) -> None:
    visitor.log_in()
    for path in ("/", "/login", "/terminal"):
        text = visitor.ask("GET", path).text
        assert "style=" not in text
        assert "<script>" not in text
        assert " on" not in text.partition("<body")[2].partition(">")[0]


def test_the_api_does_not_see_the_session(daemon: Daemon, visitor: Visitor) -> None:
    visitor.log_in()
    seen: list[bytes] = []
    engine = visitor.page.engine

    async def watching(scope, receive, send):  # type: ignore[no-untyped-def]
        seen.extend(name for name, _ in scope["headers"])
        await engine(scope, receive, send)

    visitor.page.engine = watching  # type: ignore[assignment]
    assert visitor.ask("POST", "/api/containers/prune").status_code == 200
    assert not {b"cookie", b"x-csrf-token"} & set(seen)


def test_garbage_is_refused(visitor: Visitor) -> None:
    for body in (b"", b"{", b"[]", b'{"token": 1}', b'{"token": "x"}', b"\xff", b'{"token": "' + b"x" * 9000 + b'"}'):
        assert visitor.ask("POST", "/login", content=body).status_code in (400, 401), body[:20]
    assert visitor.ask("GET", "/", {"Cookie": "wharf_ui_9780=x; =; ;;\x00"}).status_code == 303
    visitor.log_in()
    for path in ("/nothing", "/static/../application.py", "/static/%2e%2e/application.py", "/static/"):
        assert visitor.ask("GET", path).status_code == 404, path
    for path in ("/history?seconds=x", "/history?seconds=-1", "/logs?tail=x", "/logs?tail=999999999"):
        assert visitor.ask("GET", path).status_code == 400, path
    assert visitor.ask("GET", "/history/nobody").status_code == 404
    assert visitor.ask("GET", "/logs", params={"container": ["x"] * 51}).status_code == 400


def test_a_user_sees_the_own_objects(daemon: Daemon, visitor: Visitor) -> None:
    daemon.load("busybox:latest")
    restrict(daemon)
    alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
    daemon.as_uid(0).create("admins")
    alice.load("busybox:latest")
    own = alice.create("hers")
    page = Visitor(daemon, visitor.page).log_in(alice.post("/wharf/v1/ui/login").json()["Path"])
    assert [row["Id"] for row in page.ask("GET", "/api/containers/json?all=1").json()] == [own]
    assert page.ask("GET", "/problems").status_code == 403
    assert page.ask("GET", "/history/admins").status_code == 404
    assert page.ask("GET", "/logs?container=admins").status_code == 404
    assert page.ask("POST", "/compose", json={"project": "x", "action": "up"}).status_code == 403
    other = Visitor(daemon, visitor.page).log_in(bob.post("/wharf/v1/ui/login").json()["Path"])
    assert other.ask("DELETE", f"/api/containers/{own}").status_code == 404
    assert page.ask("DELETE", f"/api/containers/{own}").status_code == 204


def test_passwords_need_a_policy_and_a_service_of_pam(daemon: Daemon, visitor: Visitor, tmp_path: Path) -> None:
    body = {"user": "root", "password": "x"}
    assert "passwords" not in visitor.ask("GET", "/login").text
    assert visitor.ask("POST", "/login", json=body).status_code == 401
    restrict(daemon)
    visitor.page.passwords = Passwords(tmp_path / "missing")
    assert "passwords" not in visitor.ask("GET", "/login").text
    assert visitor.ask("POST", "/login", json=body).status_code == 401
    service = tmp_path / "wharf"
    service.touch()
    visitor.page.passwords = Passwords(service)
    visitor.page.passwords._check = lambda user, password: None  # type: ignore[method-assign]
    assert "passwords" in visitor.ask("GET", "/login").text
    assert visitor.ask("POST", "/login", json={"user": "nobody-here", "password": "x"}).status_code == 403
    assert visitor.ask("POST", "/login", json=body).status_code == 204


def test_an_engine_without_a_page_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    from server.tests.daemon import serving

    with serving(tmp_path_factory.mktemp("plain")) as plain:
        status, message = plain.refusal("POST", "/wharf/v1/ui/login")
    assert status == 409
    assert "--ui" in message


def test_an_engine_without_a_page_loads_nothing_of_it() -> None:
    names = ("server.ui", "server.access.sessions", "jinja2", "starlette.staticfiles", "pamela")
    code = f"import sys, server.daemon; print(*(name for name in {names} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
