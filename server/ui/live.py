"""What a page shows while it is open: one stream of server-sent events, and the history before it.

The stream has these events. ``engine``: an event of the engine, as of ``GET /events``. ``samples``: a pass of the
sampler: ``time``, ``machine`` and ``containers``, each sample as an array in the order of ``FIELDS``. ``end``: the
session has ended. A page that was too slow for the engine's events loses its stream; a browser opens it again.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api_models.filters import Filters
from engine.common import jsontext
from engine.common.errors import Kind, WharfError, invalid
from server.access.sessions import Session
from server.events import Subscription
from server.events.wire import document
from server.http.answers import json_answer
from server.http.hijack import connection_of
from server.http.streams import byte_stream
from server.metrics.targets import log_bytes
from server.ui.history import POINTS, STEP, Sample
from server.ui.sampler import Pass
from server.wiring import Services

#: Messages that wait for a slow browser, before the sources of messages wait, too.
_AHEAD = 64
#: The values of the containers in a list.
_TRENDS = ("cpu", "memory")
#: Seconds without a message after which a comment is sent: proxies close silent connections.
_SILENCE = 15.0


def _message(name: str, data: object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + jsontext.dumps(data) + b"\n\n"


def _row(sample: Sample) -> list[float]:
    return [round(sample.cpu, 4), *(round(value) for value in sample[1:])]


def _samples(done: Pass, services: Services) -> dict[str, Any]:
    visible = services.containers.visible
    return {
        "time": round(done.time, 1),
        "machine": _row(done.machine) if done.machine is not None else None,
        "containers": {id: _row(sample) for id, sample in done.containers.items() if visible.by_id(id) is not None},
    }


async def stream(request: Request) -> Response:
    connection_of(request).disconnect_cancels = True
    page = request.app.state.page
    services = page.services(request)
    subscription = services.events.subscribe(None, None, Filters({}))
    messages = _messages(request, request.scope["session"], services, subscription)
    return byte_stream(messages, media_type="text/event-stream", early=True, name="page")


async def _messages(
    request: Request, session: Session, services: Services, subscription: Subscription
) -> AsyncIterator[bytes]:
    page = request.app.state.page
    queue: asyncio.Queue[bytes] = asyncio.Queue(_AHEAD)

    async def events() -> None:
        async for event in subscription:
            await queue.put(_message("engine", document(event, old_names=False)))

    async def samples() -> None:
        with page.sampler.watched() as passes:
            async for done in passes:
                await queue.put(_message("samples", _samples(done, services)))

    sources = [asyncio.create_task(each(), name="page") for each in (events, samples)]
    try:
        # How long a browser waits before it opens a lost stream again, in ms.
        yield b"retry: 1000\n\n"
        while page.sessions.find(session.id) is not None:
            try:
                async with asyncio.timeout(_SILENCE):
                    message = await queue.get()
            except TimeoutError:
                message = b": \n\n"
            yield message
            if any(source.done() for source in sources):
                return
        yield _message("end", None)
    finally:
        for source in sources:
            source.cancel()
        await asyncio.gather(*sources, return_exceptions=True)
        await subscription.aclose()


def _seconds(request: Request) -> int:
    text = request.query_params.get("seconds", "")
    if not text:
        return STEP * POINTS
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise invalid(f"seconds: {text} is no number of seconds")
    return int(text)


async def machine_history(request: Request) -> Response:
    """The points of the machine, for the last ``seconds``."""
    page = request.app.state.page
    return json_answer(page.history.of("", time.time(), _seconds(request)))


async def history(request: Request) -> Response:
    """The points of a container."""
    page = request.app.state.page
    container = page.services(request).containers.get(request.path_params["id"])
    return json_answer(page.history.of(container.id, time.time(), _seconds(request)))


async def trends(request: Request) -> Response:
    """CPU and memory of all running containers, by id, for at most five minutes."""
    page = request.app.state.page
    seconds, now = min(_seconds(request), 60 * STEP), time.time()
    found = {}
    for container in page.services(request).containers.visible:
        if container.state.running:
            found[container.id] = page.history.of(container.id, now, seconds, _TRENDS)
    return json_answer(found)


async def problems(request: Request) -> Response:
    """The last warnings and errors of the daemon's log.

    :raises WharfError: PERMISSION_DENIED: the caller is no administrator.
    """
    if not request.scope["session"].caller.unrestricted:
        raise WharfError(Kind.PERMISSION_DENIED, "the log of the daemon is for administrators")
    return json_answer([asdict(each) for each in request.app.state.page.problems.latest()])


async def log_sizes(request: Request) -> Response:
    """The bytes of each container's log files, by id; containers without log files are left out."""
    services = request.app.state.page.services(request)
    containers = list(services.containers.visible)
    sizes = await asyncio.to_thread(lambda: {each.id: log_bytes(each) for each in containers})
    return json_answer({id: size for id, size in sizes.items() if size})
