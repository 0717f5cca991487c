"""/containers: thin handlers over ``server/containers`` (streams have modules of their own)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from api_models import changes
from api_models.container import ContainerInspect, ContainerSummary, HostConfig
from api_models.container import CreateRequest as CreateBody
from api_models.network import EndpointSettings
from api_models.versions import Since
from engine.common.errors import invalid
from server.containers.create import compat
from server.containers.create.create import CreateRequest
from server.containers.service import Containers
from server.containers.waiters import Condition, Outcome
from server.http import params
from server.http.answers import dumps_escaped, json_answer, no_content
from server.http.hijack import cancelled_by_disconnect
from server.http.routing import ApiRoute
from server.http.streams import byte_stream

#: The longest body of a start request, in bytes: an empty JSON object with blanks counts as no body.
_EMPTY_BODY = 7


def _containers(request: Request) -> Containers:
    containers: Containers = request.state.services.containers
    return containers


def _key(request: Request) -> str:
    key: str = request.path_params["name"]
    return key


async def list_containers(request: Request) -> Response:
    rows = await _containers(request).list(
        params.filters(request),
        everything=params.flag(request, "all"),
        limit=params.number(request, "limit") or 0,
        size=params.flag(request, "size"),
    )
    return json_answer([params.shaped(request, ContainerSummary, row) for row in rows])


async def create(request: Request) -> Response:
    body = await params.body(request, CreateBody, optional=False)
    config, host = body.config(), body.host_config or params.left_out(request, HostConfig)
    if body.host_config is not None and config.volumes is None:
        config = replace(config, volumes={})
    endpoints: dict[str, EndpointSettings] = {}
    for name, endpoint in ((body.networking_config and body.networking_config.endpoints_config) or {}).items():
        if endpoint is None:
            raise invalid(f"invalid config for network {name}: EndpointsConfig is nil")
        endpoints[name] = endpoint
    containers = _containers(request)
    host = compat.default_network(host, endpoints)
    host, unbound = compat.fill_port_bindings(host)
    if not params.has(request, changes.CGROUPNS_DEFAULT):
        host = compat.share_cgroups(host, cgroup_v2=containers.context.limits.unified)
    deprecated = ""
    if params.has(request, changes.ENDPOINT_MAC_ADDRESS):
        config, deprecated = compat.move_mac_address(config, host, endpoints)
    else:
        compat.spread_mac_address(config, host, endpoints)
    container, warnings = await containers.create(
        CreateRequest(
            config=config,
            host_config=host,
            endpoints=endpoints,
            name=params.text(request, "name"),
            platform=params.text(request, "platform") or None,
            plain_readonly=not params.has(request, changes.RECURSIVE_READ_ONLY),
        )
    )
    if deprecated:
        warnings.append(deprecated)
    if params.has(request, changes.WARN_OF_EMPTY_PORT_BINDINGS):
        warnings += unbound
    return json_answer({"Id": container.id, "Warnings": warnings}, 201)


async def inspect(request: Request) -> Response:
    document = await _containers(request).inspect(_key(request), size=params.flag(request, "size"))
    return json_answer(params.shaped(request, ContainerInspect, document))


async def start(request: Request) -> Response:
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers or (length.isdecimal() and int(length) > _EMPTY_BODY):
        raise invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    await _containers(request).start(
        _key(request),
        checkpoint=params.text(request, "checkpoint"),
        directory=params.text(request, "checkpoint-dir"),
        cancellable=partial(cancelled_by_disconnect, request),
    )
    return no_content()


def _stop_options(request: Request) -> tuple[int | None, str]:
    return params.number(request, "t"), params.text(request, "signal")


async def stop(request: Request) -> Response:
    timeout, signal = _stop_options(request)
    await _containers(request).stop(_key(request), timeout=timeout, signal=signal)
    return no_content()


async def restart(request: Request) -> Response:
    timeout, signal = _stop_options(request)
    await _containers(request).restart(
        _key(request), timeout=timeout, signal=signal, cancellable=partial(cancelled_by_disconnect, request)
    )
    return no_content()


async def kill(request: Request) -> Response:
    await _containers(request).kill(_key(request), params.text(request, "signal"))
    return no_content()


async def pause(request: Request) -> Response:
    await _containers(request).pause(_key(request))
    return no_content()


async def unpause(request: Request) -> Response:
    await _containers(request).unpause(_key(request))
    return no_content()


async def rename(request: Request) -> Response:
    await _containers(request).rename(_key(request), params.text(request, "name"))
    return no_content()


async def remove(request: Request) -> Response:
    await _containers(request).remove(
        _key(request),
        force=params.flag(request, "force"),
        volumes=params.flag(request, "v"),
        link=params.flag(request, "link"),
    )
    return no_content()


async def prune(request: Request) -> Response:
    return json_answer(await _containers(request).prune(params.filters(request)))


async def wait(request: Request) -> Response:
    condition = Condition.NOT_RUNNING
    if text := params.text(request, "condition"):
        try:
            condition = Condition(text)
        except ValueError:
            raise invalid(f'invalid condition: "{text}"') from None
    # Register before the response head is sent: a client that has read the head must not miss an exit.
    waiter = _containers(request).wait(_key(request), condition)
    silent = condition is Condition.REMOVED and not params.has(request, changes.WAIT_TELLS_ERRORS)
    at_once = params.has(request, changes.WAIT_HEAD_AT_ONCE)
    return byte_stream(_outcome(waiter, silent=silent), media_type="application/json", early=at_once, name="wait")


async def _outcome(waiter: "asyncio.Future[Outcome]", *, silent: bool) -> AsyncIterator[bytes]:
    """Yield the single line of the answer; ``silent``: no line for a failed removal."""
    try:
        outcome = await waiter
    finally:
        waiter.cancel()
    if outcome.error and silent:
        return
    answer: dict[str, object] = {"StatusCode": outcome.exit_code}
    if outcome.error:
        answer["Error"] = {"Message": outcome.error}
    yield dumps_escaped(answer) + b"\n"


routes: Sequence[ApiRoute] = (
    ApiRoute("GET", "/containers/json", list_containers, reads=True),
    ApiRoute("POST", "/containers/create", create, stores=True, query={"platform": Since((1, 41))}),
    ApiRoute("POST", "/containers/prune", prune, since="1.25"),
    ApiRoute("GET", "/containers/{name:path}/json", inspect, reads=True),  # a link's name has slashes
    ApiRoute("POST", "/containers/{name}/start", start),
    ApiRoute("POST", "/containers/{name}/stop", stop, query={"signal": Since((1, 42))}),
    ApiRoute("POST", "/containers/{name}/restart", restart, query={"signal": Since((1, 42))}),
    ApiRoute("POST", "/containers/{name}/kill", kill),
    ApiRoute("POST", "/containers/{name}/pause", pause),
    ApiRoute("POST", "/containers/{name}/unpause", unpause),
    ApiRoute("POST", "/containers/{name}/rename", rename),
    ApiRoute("POST", "/containers/{name}/wait", wait, waits=True, query={"condition": Since((1, 30))}),
    ApiRoute("DELETE", "/containers/{name:path}", remove),
)
