"""The application as an ASGI callable: routing, versions of parameters, errors, hijacked connections."""

import asyncio
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api_models.versions import Fixed, Since
from engine.common.errors import conflict, not_modified
from server.app import EngineApp
from server.http import params
from server.http.answers import json_answer
from server.http.hijack import ClientGone
from server.http.routing import EVERY_PATH, ApiRoute
from server.http.streams import BrokenStream

FAILURES: dict[str, Exception] = {
    "refused": conflict("in use"),
    "same": not_modified(),
    "host": OSError(28, "No space left on device", "/data"),
    "defect": ValueError("secret"),
    "left": ClientDisconnect(),
    "gone": ClientGone(32, "Broken pipe"),
    "broken": BrokenStream(),
}


@dataclass(slots=True)
class Connection:
    disconnect_cancels: bool = False
    detached: bool = False


async def echo(request: Request) -> Response:
    return json_answer([params.texts(request, "new"), params.texts(request, "fixed"), params.texts(request, "old")])


async def fails(request: Request) -> Response:
    raise FAILURES[request.path_params["how"]]


async def takes(request: Request) -> None:
    connection: Connection = request.scope["extensions"]["connection"]
    connection.detached = True
    if request.query_params:
        raise conflict("too late")


ROUTES = (
    ApiRoute("GET", "/echo", echo, query={"new": Since((1, 42)), "fixed": Fixed((1, 42), "1")}),
    ApiRoute("POST", "/waits", echo, waits=True),
    ApiRoute("GET", "/fails/{how}", fails),
    ApiRoute("POST", "/takes", takes),
    ApiRoute("OPTIONS", EVERY_PATH, echo),
)


@dataclass(slots=True)
class Api:
    """``messages``: what the application sent for the last request. ``observed``: what it reported."""

    connection: Connection = field(default_factory=Connection)
    messages: list[MutableMapping[str, Any]] = field(default_factory=list)
    observed: list[tuple[str, str, bool]] = field(default_factory=list)

    def _observe(self, method: str, path: str, seconds: float, *, failed: bool) -> None:
        self.observed.append((method, path, failed))

    def ask(self, method: str, url: str) -> httpx.Response | None:
        """Return the answer; ``None`` if nothing was sent."""
        application = EngineApp(ROUTES, None, self._observe)
        self.messages.clear()

        async def app(scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
            async def sent(message: MutableMapping[str, Any]) -> None:
                self.messages.append(message)
                await send(message)

            scope["extensions"] = {"connection": self.connection}
            await application(scope, receive, sent)
            if not self.messages:
                await send({"type": "http.response.start", "status": 599, "headers": []})
                await send({"type": "http.response.body", "body": b""})

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://docker") as client:
                return await client.request(method, url)

        answer = asyncio.run(asked())
        return answer if answer.status_code != 599 else None


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "/echo", 200),
        ("GET", "/v1.30/echo", 200),
        ("GET", "/echo/", 404),
        ("GET", "/", 404),
        ("POST", "/echo", 404),
        ("HEAD", "/echo", 404),
        ("GET", "/v1.30", 404),
        ("OPTIONS", "/anything", 200),
        ("OPTIONS", "/v1.30/fails/same", 200),
        ("OPTIONS", "/v1.10/anything", 400),
    ],
)
def test_unknown_paths_and_wrong_methods_are_404(method: str, url: str, status: int) -> None:
    answer = Api().ask(method, url)
    assert answer is not None
    assert answer.status_code == status
    if status == 404 and method != "HEAD":
        assert answer.content == b'{"message":"page not found"}\n'


@pytest.mark.parametrize(
    ("url", "location"), [("/a//b?x=1", "/a/b?x=1"), ("/a/../echo", "/echo"), ("/a/./b/", "/a/b/")]
)
def test_unclean_paths_are_redirected(url: str, location: str) -> None:
    # httpx would normalise the path itself.
    answer = Api().ask("GET", url.replace("..", "%2e%2e").replace("/./", "/%2e/"))
    assert answer is not None
    assert (answer.status_code, answer.headers["location"], answer.content) == (301, location, b"")


@pytest.mark.parametrize(
    ("version", "seen"),
    [("/v1.41", [[], ["1"], ["c"]]), ("/v1.42", [["a"], ["b"], ["c"]]), ("", [["a"], ["b"], ["c"]])],
)
def test_parameters_are_read_as_the_version_means_them(version: str, seen: list[list[str]]) -> None:
    answer = Api().ask("GET", f"{version}/echo?new=a&fixed=b&old=c")
    assert answer is not None
    assert answer.json() == seen


@pytest.mark.parametrize(
    ("how", "status", "body"),
    [
        ("refused", 409, b'{"message":"in use"}\n'),
        ("same", 304, b""),
        ("host", 500, b'{"message":"/data: no space left on device"}\n'),
        ("defect", 500, b'{"message":"internal error: see the daemon\'s log"}\n'),
        ("left", None, b""),
        ("gone", None, b""),
        ("broken", None, b""),
    ],
)
def test_errors(how: str, status: int | None, body: bytes) -> None:
    api = Api()
    answer = api.ask("GET", f"/fails/{how}")
    assert api.observed == [("GET", "/fails/{how}", True)]
    if status is None:
        assert api.messages == []
    else:
        assert answer is not None
        assert (answer.status_code, answer.content) == (status, body)


@pytest.mark.parametrize("url", ["/takes", "/takes?fails=1"])
def test_nothing_is_sent_on_a_connection_that_was_taken(url: str) -> None:
    api = Api()
    assert api.ask("POST", url) is None


def test_a_handler_that_waits_is_cancelled_by_its_clients_leaving() -> None:
    api = Api()
    api.ask("POST", "/waits")
    assert api.connection.disconnect_cancels
    api.ask("GET", "/v1.40/echo")
    assert not api.connection.disconnect_cancels
    assert api.observed == [("POST", "/waits", False), ("GET", "/echo", False)]
