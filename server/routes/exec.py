"""/exec and /containers/{id}/exec: thin handlers over ``server/containers/exec``."""

import contextlib
import json
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from api_models import changes
from api_models.exec import ExecCreateRequest, ExecStartRequest
from engine.common.errors import WharfError, internal, invalid
from server.containers.exec.model import ExecRequest
from server.containers.exec.service import Exec
from server.containers.stdio.client import Client, parse_keys
from server.http import params
from server.http.answers import json_answer
from server.http.hijack import hijack
from server.http.routing import ApiRoute

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


def _exec(request: Request) -> Exec:
    service: Exec = request.state.services.exec
    return service


def stream_type(request: Request, *, framed: bool, upgrade: bool) -> str:
    """Return the media type of a hijacked stream: since 1.42, after an upgrade, framed output has a type of its own."""
    return MULTIPLEXED if framed and upgrade and params.has(request, changes.MULTIPLEXED_TYPE) else RAW


def read_size(request: Request) -> tuple[int, int]:
    """Parse ``h`` and ``w`` of a resize, in characters; both are required. The kernel's fields have 16 bits.

    :raises WharfError: INVALID_ARGUMENT in dockerd's words.
    """
    found = []
    for name, word in (("h", "height"), ("w", "width")):
        value = params.text(request, name)
        wrong = ""
        if not (value.isascii() and value.removeprefix("-").isdecimal()):
            wrong = "invalid syntax"
        elif value[0] == "-" or len(value.lstrip("0")) > 10 or int(value) >= 1 << 32:
            wrong = "value out of range"
        if wrong:
            raise invalid(f"invalid resize {word} {json.dumps(value, ensure_ascii=False)}: {wrong}")
        found.append(int(value) & 0xFFFF)
    return found[0], found[1]


def _console(size: Sequence[int] | None) -> tuple[int, int]:
    if not size:
        return 0, 0
    height, width = (*size, 0, 0)[:2]
    if max(height, width) >= 1 << 16:
        raise invalid("invalid console size: height and width are 16-bit numbers")
    return height, width


async def create(request: Request) -> Response:
    body = await params.body(request, ExecCreateRequest, optional=False)
    keys = b""
    if body.detach_keys:
        try:
            keys = parse_keys(body.detach_keys)
        except WharfError:
            raise internal(f"Invalid escape keys ({body.detach_keys}) provided") from None
    options = ExecRequest(
        cmd=body.cmd or (),
        env=body.env or (),
        user=body.user,
        working_dir=body.working_dir,
        privileged=body.privileged,
        tty=body.tty,
        stdin=body.attach_stdin,
        stdout=body.attach_stdout,
        stderr=body.attach_stderr,
        detach_keys=keys,
        console_size=_console(body.console_size),
    )
    name = request.path_params["name"]
    if options.user and options.cmd:
        await _exec(request).check_user(name, options.user)
    return json_answer({"Id": _exec(request).create(name, options).id}, 201)


async def start(request: Request) -> Response | None:
    body = await params.body(request, ExecStartRequest)
    id: str = request.path_params["id"]
    service = _exec(request)
    service.get_active(id)  # fails before the connection is hijacked
    size = _console(body.console_size) if body.tty else (0, 0)
    if body.detach:
        await service.start(id, console_size=size)
        return Response(b"", 200)
    taken = await hijack(request)
    # As in dockerd, this request's Tty decides the output format, not the exec's own.
    framed = not body.tty
    head = taken.head(stream_type(request, framed=framed, upgrade=bool(taken.upgrade)))
    client = Client(taken.sock, head, taken.early)
    # Answer immediately, as dockerd does: failures are reported in the stream. A disconnect doesn't stop the command.
    with contextlib.suppress(OSError):
        await client.send_head()
    await service.start(id, client=client, framed=framed, console_size=size)
    return None


async def resize(request: Request) -> Response:
    height, width = read_size(request)
    await _exec(request).resize(request.path_params["id"], height, width)
    return Response(b"", 200)


async def inspect(request: Request) -> Response:
    return json_answer(await _exec(request).inspect(request.path_params["id"]))


routes: Sequence[ApiRoute] = (
    ApiRoute("POST", "/containers/{name}/exec", create),
    ApiRoute("POST", "/exec/{id}/start", start),
    ApiRoute("POST", "/exec/{id}/resize", resize),
    ApiRoute("GET", "/exec/{id}/json", inspect, reads=True),
)
