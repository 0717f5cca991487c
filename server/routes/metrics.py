"""``GET /metrics``: on the API's sockets, and on the one of ``--metrics-addr``, which has no other endpoint."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from server.http.routing import ApiRoute
from server.metrics.facade import MetricsFacade

_OPENMETRICS = "application/openmetrics-text"


async def metrics(request: Request) -> Response:
    found: MetricsFacade = request.state.services.metrics
    answer = await found.answer(openmetrics=_OPENMETRICS in request.headers.get("accept", ""))
    return Response(answer.body, 200, {"Content-Type": answer.media_type})


routes: Sequence[ApiRoute] = (ApiRoute("GET", "/metrics", metrics, waits=True, reads=True),)
