"""The logs of one container, or those of several in one stream: a browser opens at most six connections to a server.

Each line of the stream is the number of the container in the request, a tab, and a record as of
``GET /containers/{id}/logs?format=json``.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from engine.common import limits
from engine.common.errors import WharfError, invalid
from server.containers.logs.follow import Logs
from server.containers.logs.format import Query
from server.containers.model import Container
from server.http import params
from server.http.answers import dumps_escaped
from server.http.hijack import connection_of
from server.http.streams import byte_stream

#: Chunks that wait for a slow browser, before the logs are no longer read.
_AHEAD = 32
_MAX_TAIL = 100_000


async def stream(request: Request) -> Response:
    """``container`` (repeatable), ``since`` (a time), ``tail`` (lines of each, default 1000), ``follow`` (1 or 0).

    :raises WharfError: NOT_FOUND; INVALID_ARGUMENT: too many containers, no such time or number of lines.
    """
    connection_of(request).disconnect_cancels = True
    services = request.app.state.page.services(request)
    keys = request.query_params.getlist("container")
    if len(keys) > limits.UI_LOGS:
        raise limits.exceeded("UI_LOGS", "the number of containers")
    tail = request.query_params.get("tail", "1000")
    if not (tail.isascii() and tail.isdecimal() and len(tail) < 10 and int(tail) <= _MAX_TAIL):
        raise invalid(f"tail: {tail} is no number of at most {_MAX_TAIL} lines")
    since = request.query_params.get("since", "")
    since_ns = params.timestamp(since) if since else 0
    containers = [services.containers.get(key) for key in keys]
    follow = request.query_params.get("follow", "1") == "1"
    query = Query(follow=follow, tail=int(tail), since_ns=since_ns, timestamps=True)
    parts = _merged(services.logs, containers, query)
    return byte_stream(parts, media_type="text/plain; charset=utf-8", early=True, name="logs")


async def _merged(logs: Logs, containers: Sequence[Container], query: Query) -> AsyncIterator[bytes]:
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)

    async def read(number: int, container: Container) -> None:
        numbered = replace(query, json=b"%d\t" % number)
        rest = b""
        try:
            async for chunk in logs.open(container, numbered):
                whole, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    await queue.put(whole + newline)
        except WharfError as error:
            # Its driver can't be read. The others are shown.
            await queue.put(b"%d\t" % number + dumps_escaped({"Error": error.message}) + b"\n")

    reading = asyncio.gather(*(read(number, container) for number, container in enumerate(containers)))
    ended = asyncio.ensure_future(_then_end(reading, queue))
    try:
        while (chunk := await queue.get()) is not None:
            yield chunk
    finally:
        reading.cancel()
        ended.cancel()
        await asyncio.gather(reading, ended, return_exceptions=True)


async def _then_end(reading: "asyncio.Future[list[None]]", queue: "asyncio.Queue[bytes | None]") -> None:
    await reading
    await queue.put(None)
