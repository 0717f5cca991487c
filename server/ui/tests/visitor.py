"""A browser of the page over the ASGI callable: it keeps cookies, and names its origin as browsers do."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from server.tests.daemon import Daemon
from server.ui.application import Page

ORIGIN = "http://127.0.0.1:9780"


@dataclass
class Visitor:
    """``csrf``: what its requests that change something repeat; the login sets it."""

    daemon: Daemon
    page: Page
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)
    csrf: str = ""

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        """``headers``: besides, or instead of, those that a browser sends."""
        own = {} if method in ("GET", "HEAD") else {"Origin": ORIGIN, "X-CSRF-Token": self.csrf}
        return self.daemon.wait(self._ask(method, path, {**own, **(headers or {})}, options))

    async def _ask(self, method: str, path: str, headers: dict[str, str], options: dict[str, Any]) -> httpx.Response:
        async def app(scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
            scope["extensions"] = {"connection": self.daemon.connection(scope["raw_path"])}
            await self.page(scope, receive, send)

        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, cookies=self.cookies) as client:
            answer = await client.request(method, path, headers=headers, **options)
            self.cookies = client.cookies
        return answer

    def log_in(self, link: str = "") -> "Visitor":
        """By a link, or by one that the daemon makes."""
        path = link or self.daemon.post("/wharf/v1/ui/login").json()["Path"]
        answer = self.ask("POST", "/login", json={"token": path.partition("#")[2]})
        assert answer.status_code == 204, answer.text
        self.csrf = self.ask("GET", "/").text.partition('data-csrf="')[2].partition('"')[0]
        return self
