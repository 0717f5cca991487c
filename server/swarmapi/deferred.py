"""What a port serves from its beginning on: the application is loaded by the first request. A swarm of one node has
open ports, but nobody calls them; the application needs 0.5 MiB."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.swarmapi.connections import Connections

#: An ASGI application.
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class DeferredApp:
    """Implements ``server.http.application.Application``. ``load`` is called once, in a thread."""

    def __init__(self, load: Callable[[], App]) -> None:
        self.admission = Connections()
        self._load = load
        self._loading = asyncio.Lock()
        self._app: App | None = None

    def instant(self, method: str, path: str) -> Response | None:
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._loading:
            if self._app is None:
                self._app = await asyncio.to_thread(self._load)
        await self._app(scope, receive, send)
