"""Authorization plugins: what they are shown of requests and responses, what their answers cause, and that nothing
passes them."""

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.common import timeouts
from engine.common.errors import WharfError
from server.http import authorization
from server.plugins import authorization as chain
from server.plugins.tests.plugins import Answer, Plugin
from server.routes import all_routes
from server.tests.daemon import Daemon

REQUEST, RESPONSE = "AuthZPlugin.AuthZReq", "AuthZPlugin.AuthZRes"
ALLOW: dict[str, Any] = {"Allow": True}
DENY: dict[str, Any] = {"Allow": False, "Msg": "not you"}
JSON = "application/json"
DENIED = (403, "authorization denied by plugin gate: not you")


def gate(path: Path, **verdicts: Answer) -> Plugin:
    """A plugin ``path`` that allows everything, or answers so to ``request`` and ``response``."""
    plugin = Plugin(path.with_suffix(".sock"), ["authz"])
    answers: dict[str, Answer] = {"request": ALLOW, "response": ALLOW, **verdicts}
    plugin.instead |= {REQUEST: lambda _: answers["request"], RESPONSE: lambda _: answers["response"]}
    return plugin


@pytest.fixture
def plugin(daemon: Daemon, tmp_path: Path) -> Iterator[Plugin]:
    """A plugin before all routes, which allows everything."""
    with gate(tmp_path / "gate") as running:
        daemon.authorize("gate", directory=tmp_path)
        running.calls.clear()
        yield running


def answer(plugin: Plugin, **verdicts: Answer) -> None:
    for name, verdict in verdicts.items():
        plugin.instead[REQUEST if name == "request" else RESPONSE] = lambda _, verdict=verdict: verdict  # type: ignore[misc]


def shown(plugin: Plugin, method: str, name: str = "Body") -> list[bytes]:
    """The bodies that the plugin was shown."""
    kind = "Request" if method == REQUEST else "Response"
    return [base64.b64decode(body.get(f"{kind}{name}", "")) for called, body in plugin.calls if called == method]


def whole(method: str, path: str, body: bytes, *lines: str) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: docker", "Connection: close", *lines, "", ""]
    return "\r\n".join(head).encode() + body


def chunked(body: bytes, size: int = 1 << 20) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_no_route_is_handled_without_them(daemon: Daemon, plugin: Plugin) -> None:
    answer(plugin, request=DENY)
    for route in all_routes():
        path = route.path
        for name in ("name", "id", "checkpoint", "path"):
            path = path.replace(f"{{{name}}}", "nope").replace(f"{{{name}:path}}", "nope/x")
        for prefix in ("", f"/v{route.until or '1.51'}", "/v9.99"):
            plugin.calls.clear()
            got = daemon.request(route.method, f"{prefix}{path}?a=b")
            assert got.status_code == 403, f"{route.method} {prefix}{path}"
            if route.method != "HEAD":
                assert got.json() == {"message": DENIED[1]}
            assert [(method, body["RequestMethod"], body["RequestUri"]) for method, body in plugin.calls] == [
                (REQUEST, route.method, f"{prefix}{path}?a=b")
            ]


def test_what_the_protocol_answers_itself_passes_them_too(daemon: Daemon, plugin: Plugin) -> None:
    answer(plugin, request=DENY)
    upgrade = ("Connection: Upgrade", "Upgrade: h2c")
    for method, path, lines in (
        ("GET", "/_ping", ()),
        ("HEAD", "/v1.41/_ping", ()),
        ("POST", "/session", (*upgrade, "X-Docker-Expose-Session-Uuid: a")),
        ("POST", "/v1.51/grpc", upgrade),
        ("GET", "/containers/x/attach/ws", ("Connection: Upgrade", "Upgrade: websocket")),
    ):
        plugin.calls.clear()
        head = [f"{method} {path} HTTP/1.1", "Host: docker", *(lines or ("Connection: close",)), "", ""]
        assert daemon.exchange("\r\n".join(head).encode()).startswith(b"HTTP/1.1 403 "), path
        assert [called for called, _ in plugin.calls] == [REQUEST]
    daemon.authorize(directory=Path())
    assert daemon.exchange(whole("GET", "/_ping", b"")).endswith(b"OK")


def test_paths_that_no_route_has(daemon: Daemon, plugin: Plugin) -> None:
    answer(plugin, request=DENY)
    assert daemon.refusal("GET", "/nope") == (404, "page not found")
    assert daemon.request("GET", "http://docker//info").status_code == 301
    assert plugin.calls == []


def test_what_they_are_shown(daemon: Daemon, plugin: Plugin) -> None:
    headers = {"X-A": "1", "Authorization": "a", "X-Registry-Auth": "b", "X-Registry-Config": "c"}
    daemon.request("POST", "/v1.51/volumes/create?x=%2F", json={"Name": "vol"}, headers=headers)
    (first, request), (second, response) = plugin.calls
    assert (first, second) == (REQUEST, RESPONSE)
    sent = request.pop("RequestHeaders")
    assert request == {
        "RequestMethod": "POST",
        "RequestUri": "/v1.51/volumes/create?x=%2F",
        "RequestBody": base64.b64encode(b'{"Name":"vol"}').decode(),
    }
    assert sent["X-A"] == "1"
    assert (sent["Content-Type"], sent["Content-Length"]) == (JSON, "14")
    assert not {name.lower() for name in sent} & {"authorization", "x-registry-auth", "x-registry-config", "host"}
    assert response.items() >= request.items()
    assert response["ResponseStatusCode"] == 201
    assert json.loads(base64.b64decode(response["ResponseBody"]))["Name"] == "vol"
    got = response["ResponseHeaders"]
    assert got["Content-Type"] == JSON
    assert {"Api-Version", "Ostype", "Server"} <= got.keys()
    assert "Content-Length" not in got


def test_an_error_is_answered_without_a_shown_status(daemon: Daemon, plugin: Plugin) -> None:
    answer(plugin, response=DENY)
    assert daemon.refusal("GET", "/containers/nope/json") == (404, "No such container: nope")
    ((_, request), (method, response)) = plugin.calls
    assert method == RESPONSE
    assert response.pop("ResponseHeaders").keys() == {"Api-Version", "Docker-Experimental", "Ostype", "Server"}
    assert response == request


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_denied_response_does_not_leave(daemon: Daemon, plugin: Plugin, size: int) -> None:
    daemon.post("/volumes/create", {"Name": "vol", "Labels": {"a": "x" * size}})
    answer(plugin, response=DENY)
    plugin.calls.clear()
    assert daemon.refusal("GET", "/volumes/vol") == DENIED
    assert json.loads(shown(plugin, RESPONSE)[0])["Labels"] == {"a": "x" * size}


def test_bodies_that_are_not_shown(daemon: Daemon, plugin: Plugin) -> None:
    for path, kind, body in (
        ("/auth", JSON, b'{"password": "x"}'),
        ("/v1.51/auth", JSON, b'{"password": "x"}'),
        ("/%61uth", JSON, b'{"password": "x"}'),
        ("/images/load", "application/x-tar", b"x" * 100),
        ("/volumes/create", "text/plain", b'{"Name": "vol"}'),
        ("/volumes/create", "", b'{"Name": "vol"}'),
        ("/volumes/create", "text/plain; a=application/json", b'{"Name": "vol"}'),
    ):
        lines = (*((f"Content-Type: {kind}",) if kind else ()), f"Content-Length: {len(body)}")
        assert b"HTTP/1.1 201" not in daemon.exchange(whole("POST", path, body, *lines))
    assert {*shown(plugin, REQUEST)} == {b""}
    assert daemon.get("/volumes").json()["Volumes"] == []


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Type: application/json",),
        ("Content-Type: Application/JSON ; charset=utf-8",),
        ("content-type:application/json; a=",),
        ("Content-Type: application/json", "Content-Type: text/plain"),
        ("Content-Type: text/plain", "Content-Type: application/json"),
    ],
)
@pytest.mark.parametrize("chunks", [False, True])
def test_each_body_that_a_handler_parses_is_shown(
    daemon: Daemon, plugin: Plugin, lines: tuple[str, ...], *, chunks: bool
) -> None:
    body = b'{"Name": "vol", "Labels": {"a": "' + b"x" * 300_000 + b'"}}'
    framing = "Transfer-Encoding: chunked" if chunks else f"Content-Length: {len(body)}"
    got = daemon.exchange(whole("POST", "/volumes/create", chunked(body, 999) if chunks else body, *lines, framing))
    made = got.startswith(b"HTTP/1.1 201")
    assert made == (lines[0] != "Content-Type: text/plain")
    assert shown(plugin, REQUEST) == [body if made else b""]


def test_a_body_behind_a_length_of_zero_is_no_body(daemon: Daemon, plugin: Plugin) -> None:
    """CVE-2024-41110: the bytes after the head are another request, which is not answered on a closed connection."""
    lines = ("Content-Type: application/json", "Content-Length: 0")
    got = daemon.exchange(whole("POST", "/containers/create", b'{"Image": "x"}', *lines))
    assert got.startswith(b"HTTP/1.1 400")
    assert shown(plugin, REQUEST) == [b""]
    both = (*lines[:1], "Content-Length: 0", "Transfer-Encoding: chunked")
    plugin.calls.clear()
    assert daemon.exchange(whole("POST", "/volumes/create", chunked(b"{}"), *both)).startswith(b"HTTP/1.1 400")
    assert plugin.calls == []


@pytest.mark.parametrize("chunks", [False, True])
def test_a_body_that_is_too_large_is_refused(daemon: Daemon, plugin: Plugin, *, chunks: bool) -> None:
    for excess, status in ((0, b"201"), (1, b"400")):
        body = b'{"Name": "vol", "DriverOpts": null}'
        body += b" " * (authorization.MAX_BODY + excess - len(body))
        framing = "Transfer-Encoding: chunked" if chunks else f"Content-Length: {len(body)}"
        data = chunked(body) if chunks else body
        plugin.calls.clear()
        got = daemon.exchange(whole("POST", "/volumes/create", data, "Content-Type: application/json", framing))
        assert got.split()[1] == status
        assert shown(plugin, REQUEST) == ([] if excess else [body])
    sentence = b"request body too large for authorization plugin: size exceeds 4194304 bytes"
    assert sentence in got


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"Allow": False, "Msg": "not you"}, "not you"),
        ({"allow": False, "MSG": "not you"}, "not you"),
        ({}, ""),
        ({"Allow": None}, ""),
        ({"Allow": False, "Err": "broken"}, ""),
    ],
)
def test_denials(daemon: Daemon, plugin: Plugin, said: dict[str, Any], reason: str) -> None:
    answer(plugin, request=said)
    assert daemon.refusal("GET", "/info") == (403, f"authorization denied by plugin gate: {reason}")
    answer(plugin, request=ALLOW, response=said)
    assert daemon.refusal("GET", "/info") == (403, f"authorization denied by plugin gate: {reason}")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b'HTTP/1.1 500 Oops\r\n\r\n{"Allow": true, "Err": "broken"}', "{method}: broken"),
        (b'HTTP/1.1 403 Forbidden\r\n\r\n{"Allow": true}', '{method}: {{"Allow": true}}'),
        (b'HTTP/1.1 204 No Content\r\n\r\n{"Allow": true}', '{method}: {{"Allow": true}}'),
        (b"HTTP/1.1 200 OK\r\n\r\n", '{method}: plugin "gate" did not answer with a JSON object'),
        (b"HTTP/1.1 200 OK\r\n\r\ntrue", '{method}: plugin "gate" did not answer with a JSON object'),
        (b'HTTP/1.1 200 OK\r\n\r\n[{"Allow": true}]', '{method}: plugin "gate" did not answer with a JSON object'),
        (
            b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"Allow": true}',
            'error while checking plugin "gate": its answer was cut off',
        ),
        (b"SSH-2.0\r\n", 'error while checking plugin "gate": it did not answer in HTTP'),
        (b"", 'error while checking plugin "gate": it did not answer in HTTP'),
        ({"Allow": "true"}, "{method}: the answer is malformed"),
        ({"Allow": 1}, "{method}: the answer is malformed"),
        ({"Allow": True, "Msg": 1}, "{method}: the answer is malformed"),
    ],
)
def test_failures_deny(daemon: Daemon, plugin: Plugin, said: Answer, reason: str) -> None:
    for method in (REQUEST, RESPONSE):
        plugin.instead |= {REQUEST: lambda _: ALLOW, RESPONSE: lambda _: ALLOW, method: lambda _: said}
        sentence = f"plugin gate failed with error: {reason.format(method=method)}"
        assert daemon.refusal("GET", "/info") == (500, sentence)


def test_a_plugin_that_never_answers(daemon: Daemon, plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timeouts._SECONDS, "plugin.authorize", 0.2)
    never = threading.Event()

    def wait(_: dict[str, Any]) -> Answer:
        never.wait(60)
        return b""

    plugin.instead[REQUEST] = wait
    try:
        sentence = "plugin gate failed with error: plugin.authorize: not done after 0.2 s"
        assert daemon.refusal("GET", "/info") == (500, sentence)
    finally:
        never.set()


def test_a_plugin_that_is_restarted(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "_PAUSES", (0.1,) * 50)
    with gate(tmp_path / "gate"):
        daemon.authorize("gate", directory=tmp_path)

    def later() -> None:
        time.sleep(0.5)
        with gate(tmp_path / "gate", request=DENY) as again:
            started.append(again)
            ended.wait(60)

    started: list[Plugin] = []
    ended = threading.Event()
    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert daemon.refusal("GET", "/info") == DENIED
    finally:
        ended.set()
        thread.join()
    # It is activated again: another plugin may have taken the name.
    assert [method for method, _ in started[0].calls] == ["Plugin.Activate", REQUEST]
    monkeypatch.setattr(chain, "_PAUSES", (0.1,))
    sentence = 'plugin gate failed with error: plugin "gate" not found'
    assert daemon.refusal("GET", "/info") == (500, sentence)


def test_several_are_asked_in_their_order(daemon: Daemon, tmp_path: Path) -> None:
    order: list[str] = []

    def noted(name: str, verdict: Answer) -> Any:
        def ask(_: dict[str, Any]) -> Answer:
            order.append(name)
            return verdict

        return ask

    with gate(tmp_path / "b") as first, gate(tmp_path / "a") as second:
        for plugin in (first, second):
            plugin.instead[REQUEST] = noted(plugin.path.stem, ALLOW)
            plugin.instead[RESPONSE] = noted(plugin.path.stem.upper(), ALLOW)
        daemon.authorize("b", "a", "b", directory=tmp_path)
        assert daemon.get("/info").status_code == 200
        assert order == ["b", "a", "B", "A"]
        order.clear()
        first.instead[REQUEST] = noted("b", DENY)
        assert daemon.refusal("GET", "/info") == (403, "authorization denied by plugin b: not you")
        assert order == ["b"]
        order.clear()
        first.instead[REQUEST], second.instead[RESPONSE] = noted("b", ALLOW), noted("A", DENY)
        assert daemon.refusal("GET", "/info") == (403, "authorization denied by plugin a: not you")
        assert order == ["b", "a", "B", "A"]


def test_a_stream_is_shown_at_its_end(daemon: Daemon, plugin: Plugin) -> None:
    daemon.post("/volumes/create", {"Name": "vol"})
    plugin.calls.clear()
    period = {"since": 0, "until": f"{time.time():.9f}"}
    assert daemon.get("/events", **period).text.count("\n") == 1
    ((_, request), (method, response)) = plugin.calls
    assert (method, response) == (RESPONSE, request)
    answer(plugin, response=DENY)
    lines = daemon.get("/events", **period).text.splitlines()
    assert json.loads(lines[0])["Type"] == "volume"
    assert json.loads(lines[-1]) == {"message": DENIED[1]}


def test_a_reload_that_fails_changes_nothing(
    daemon: Daemon, plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_PAUSES", ())
    answer(plugin, request=DENY)
    with pytest.raises(WharfError, match='plugin "nope" not found'):
        daemon.authorize("gate", "nope", directory=tmp_path)
    with (
        Plugin(tmp_path / "volumes.sock"),
        pytest.raises(WharfError, match='plugin "volumes" does not implement the requested interface'),
    ):
        daemon.authorize("volumes", directory=tmp_path)
    assert daemon.refusal("GET", "/info") == DENIED
    daemon.authorize(directory=tmp_path)
    assert daemon.get("/info").status_code == 200


def test_without_plugins_nothing_of_them_is_loaded() -> None:
    script = "import sys, server.daemon; print(*(n for n in sys.modules if 'authorization' in n))"
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"\n"
