"""Endpoints that use what the HTTP layer offers: bodies, hijack, streams, handlers that wait."""

import asyncio
import threading
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from engine.common.errors import conflict, not_modified
from server.http import params
from server.http.answers import json_answer
from server.http.hijack import hijack
from server.http.routing import ApiRoute
from server.http.streams import byte_stream, json_stream
from server.messages import Progress

#: Set by handlers: one was cancelled or its client has left; one has ended; one has begun.
left = threading.Event()
finished = threading.Event()
entered = threading.Event()


async def echo(request: Request) -> Response:
    """The body's length and text, and how the request was parsed."""
    data = await params.raw_body(request)
    return json_answer({"path": request.url.path, "version": request.state.version, "body": data.decode()})


async def query(request: Request) -> Response:
    return json_answer(len(params.text(request, "x")))


async def fails(request: Request) -> Response:
    raise {"conflict": conflict("in use"), "same": not_modified()}.get(request.path_params["how"], ValueError("secret"))


async def raw(request: Request) -> None:
    """Takes the connection, echoes the request's body, the early bytes and everything else, in capitals."""
    body = await params.raw_body(request)
    taken = await hijack(request)
    loop = asyncio.get_running_loop()
    try:
        await taken.send(taken.head("application/vnd.docker.raw-stream") + body + b"|" + taken.early.upper())
        while data := await loop.sock_recv(taken.sock, 65536):
            await taken.send(data.upper())
        # The client has closed its side; output continues.
        await taken.send(b"<tail>")
    finally:
        taken.close()


async def waits(request: Request) -> Response:
    """Waits forever; records when it was cancelled."""
    entered.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        left.set()
        raise
    return Response()


async def works(request: Request) -> Response:
    """Continues after a disconnect."""
    entered.set()
    await asyncio.sleep(0.05)
    finished.set()
    return json_answer("done")


async def progress(request: Request) -> Response:
    how = request.query_params.get("how", "")
    lines = Progress()

    async def work() -> None:
        if how == "early":
            raise conflict("before anything")
        await lines.put({"status": "one"})
        if how == "late":
            raise conflict("in the middle")
        await lines.put({"status": "two"})

    return json_stream(lines.run(work()))


async def endless(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            left.set()

    return byte_stream(parts())


async def breaks(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError("torn")

    return byte_stream(parts())


ROUTES = (
    ApiRoute("GET", "/echo", echo),
    ApiRoute("POST", "/echo", echo),
    ApiRoute("GET", "/query", query),
    ApiRoute("GET", "/_ping", echo, instant=lambda _: Response(b"OK", media_type="text/plain")),
    ApiRoute("POST", "/newer", echo, since="1.40"),
    ApiRoute("GET", "/fails/{how}", fails),
    ApiRoute("GET", "/images/{name:path}/json", echo),
    ApiRoute("POST", "/raw", raw, waits=True),
    ApiRoute("POST", "/grpc", raw, waits=True),
    ApiRoute("GET", "/waits", waits, waits=True),
    ApiRoute("POST", "/works", works),
    ApiRoute("GET", "/progress", progress, waits=True),
    ApiRoute("GET", "/endless", endless, waits=True),
    ApiRoute("GET", "/breaks", breaks, waits=True),
)
CLOSE = b"Host: d\r\nConnection: close\r\n"


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, body
