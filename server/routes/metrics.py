"""``GET /metrics``, on a socket of its own: without client certificates, and without any other endpoint."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from server.http.routing import ApiRoute, Audience
from server.system.metrics import Metrics


async def metrics(request: Request) -> Response:
    found: Metrics = request.state.services.metrics
    return Response(found.text(), 200, media_type="text/plain; version=0.0.4")


routes: Sequence[ApiRoute] = (ApiRoute("GET", "/metrics", metrics, audience=Audience.ADMINISTRATORS),)
