"""The ASGI application that the protocol serves."""

from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.http.admission import Admission


class Application(Protocol):
    """The ASGI application that this protocol serves."""

    @property
    def admission(self) -> Admission | None:
        """Bounds the connections; None: any number is served."""

    def instant(self, method: str, path: str) -> Response | None:
        """The answer of a route that needs nothing of the request, without a call of the application; None for all
        other routes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...
