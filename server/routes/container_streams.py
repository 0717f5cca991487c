"""/containers/{id}: streams (logs, attach, stats) and operations on running containers (resize, top, update)."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from api_models import changes
from api_models.container import UpdateRequest
from api_models.versions import Fixed, Since
from engine.common.errors import invalid
from server.containers.inspect.stats import Stats
from server.containers.inspect.top import top as top_container
from server.containers.logs.follow import Logs
from server.containers.logs.format import Query
from server.containers.run.resize import resize as resize_container
from server.containers.service import Containers
from server.containers.stdio.attach import Attachments, AttachRequest
from server.containers.stdio.client import Client
from server.http import jsonstreams, params
from server.http.answers import json_answer
from server.http.hijack import hijack
from server.http.routing import ApiRoute
from server.http.streams import byte_stream, json_stream
from server.routes.exec import MULTIPLEXED, RAW, read_size, stream_type


def _containers(request: Request) -> Containers:
    containers: Containers = request.state.services.containers
    return containers


def _tail(text: str) -> int:
    """Parse ``tail``; an invalid or negative number means all."""
    return max(int(text), -1) if text.removeprefix("-").isdecimal() else -1


def _logs_type(request: Request) -> str:
    """The media type of a log as JSON objects; "": the client wants it as it was written.

    :raises WharfError: INVALID_ARGUMENT: an unknown format.
    """
    wanted = params.text(request, "format")
    if wanted not in ("", "json"):
        raise invalid("unsupported log format")
    if not params.has(request, changes.LOGS_AS_JSON) or not (wanted or jsonstreams.accepted(request)):
        return ""
    return jsonstreams.negotiated(request, jsonstreams.NDJSON)


async def logs(request: Request) -> Response:
    kind = _logs_type(request)
    container = _containers(request).get(request.path_params["name"])
    framed = not container.config.tty
    until = params.text(request, "until")
    query = Query(
        stdout=params.flag(request, "stdout"),
        stderr=params.flag(request, "stderr"),
        follow=params.flag(request, "follow"),
        since_ns=params.timestamp(params.text(request, "since")),
        until_ns=0 if until == "0" else params.timestamp(until),
        tail=_tail(params.text(request, "tail")),
        timestamps=params.flag(request, "timestamps"),
        details=params.flag(request, "details"),
        framed=framed,
        json=jsonstreams.prefix(kind) if kind else None,
    )
    service: Logs = request.state.services.logs
    if not kind:
        kind = MULTIPLEXED if framed and params.has(request, changes.MULTIPLEXED_TYPE) else RAW
    return byte_stream(service.open(container, query), media_type=kind, early=True, name="logs")


def _attach_options(request: Request) -> AttachRequest:
    return AttachRequest(
        logs=params.flag(request, "logs"),
        stream=params.flag(request, "stream"),
        stdin=params.flag(request, "stdin"),
        stdout=params.flag(request, "stdout"),
        stderr=params.flag(request, "stderr"),
        detach_keys=params.text(request, "detachKeys"),
    )


async def attach(request: Request) -> Response | None:
    key = request.path_params["name"]
    service: Attachments = request.state.services.attachments
    wanted = _attach_options(request)
    container = _containers(request).get(key)
    service.check(container, key, wanted)
    framed = not container.config.tty
    taken = await hijack(request)
    head = taken.head(stream_type(request, framed=framed, upgrade=bool(taken.upgrade)))
    await service.attach(container, wanted, Client(taken.sock, head, taken.early), framed=framed)
    return None


async def attach_websocket(request: Request) -> Response | None:
    from server.http.websocket import relayed  # loads wsproto, which nothing else needs

    key = request.path_params["name"]
    service: Attachments = request.state.services.attachments
    wanted = _attach_options(request)
    container = _containers(request).get(key)
    service.check(container, key, wanted)
    async with relayed(request, text=not params.has(request, changes.WEBSOCKET_BINARY)) as sock:
        await service.attach(container, wanted, Client(sock, b""), framed=False)
    return None


async def resize(request: Request) -> Response:
    height, width = read_size(request)
    containers = _containers(request)
    await resize_container(containers.context, containers.get(request.path_params["name"]), height, width)
    return Response(b"", 200)


async def top(request: Request) -> Response:
    containers = _containers(request)
    container = containers.get(request.path_params["name"])
    return json_answer(await top_container(containers.context, container, params.text(request, "ps_args")))


async def stats(request: Request) -> Response:
    container = _containers(request).get(request.path_params["name"])
    service: Stats = request.state.services.stats
    one_shot = params.flag(request, "one-shot")
    if params.flag(request, "stream", default=True):
        if one_shot:
            raise invalid("cannot have stream=true and one-shot=true")
        return json_stream(service.stream(container), end=b"\n", early=True, name="stats")
    return json_answer(await service.once(container, one_shot=one_shot))


async def update(request: Request) -> Response:
    body = await params.body(request, UpdateRequest)
    warnings = await _containers(request).update(request.path_params["name"], body)
    return json_answer({"Warnings": list(warnings) or None})


routes: Sequence[ApiRoute] = (
    ApiRoute("GET", "/containers/{name}/logs", logs, waits=True, query={"format": Since((1, 54))}, reads=True),
    ApiRoute("POST", "/containers/{name}/attach", attach),
    ApiRoute(
        "GET",
        "/containers/{name}/attach/ws",
        attach_websocket,
        # Older clients get all streams, whatever they requested.
        query={name: Fixed((1, 42), "1") for name in ("stdin", "stdout", "stderr")},
    ),
    ApiRoute("POST", "/containers/{name}/resize", resize),
    ApiRoute("GET", "/containers/{name}/top", top, reads=True),
    ApiRoute("GET", "/containers/{name}/stats", stats, waits=True, query={"one-shot": Since((1, 41))}, reads=True),
    ApiRoute("POST", "/containers/{name}/update", update),
)
