"""/services and /tasks: thin handlers."""

from collections.abc import AsyncIterator
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from api_models import changes
from api_models.swarm.service import ServiceSpec
from engine.common.errors import invalid
from server.containers.logs.format import Query
from server.http import params
from server.http.answers import json_answer, no_content
from server.http.streams import byte_stream
from server.images.service import Images
from server.registry.auth import from_header
from server.registry.reference import parse
from server.routes.exec import MULTIPLEXED, RAW
from server.routes.swarm.common import boolean, manager_of, version_of
from server.swarm.operations.services import Registry, Services, Update
from server.swarm.operations.tasks import Tasks


def _services(request: Request) -> Services:
    return manager_of(request).objects.services


def _tasks(request: Request) -> Tasks:
    return manager_of(request).objects.tasks


async def _pinned(images: Images, header: str, name: str) -> str:
    """The name with the digest that its registry has for it now."""
    reference = parse(name)
    if reference.digest:
        return reference.familiar
    found = await images.transfer.distribution(reference.tagged(), from_header(header))
    return reference.tagged().with_digest(found["Descriptor"]["digest"]).familiar


def _registry(request: Request) -> Registry:
    auth = request.headers.get("x-registry-auth", "")
    if params.has(request, changes.CLIENTS_PIN_IMAGES):
        return Registry(auth)
    return Registry(auth, partial(_pinned, request.state.services.images, auth))


async def create(request: Request) -> Response:
    spec = await params.body(request, ServiceSpec)
    id, warnings = await _services(request).create(spec, _registry(request))
    return json_answer({"ID": id, "Warnings": warnings or None}, 201)


async def update(request: Request) -> Response:
    spec = await params.body(request, ServiceSpec)
    source = params.text(request, "registryAuthFrom")
    if source not in ("", "spec", "previous-spec"):
        raise invalid(f"invalid registryAuthFrom '{source}'")
    options = Update(version_of(request, "service"), source, params.text(request, "rollback"))
    key = request.path_params["id"]
    warnings = await _services(request).update(key, spec, options, _registry(request))
    return json_answer({"Warnings": warnings or None})


async def remove(request: Request) -> Response:
    await _services(request).remove(request.path_params["id"])
    return no_content(200)


async def inspect(request: Request) -> Response:
    defaults = boolean(request, "insertDefaults")
    return json_answer(_services(request).inspect(request.path_params["id"], defaults=defaults))


async def list_services(request: Request) -> Response:
    filters, status = params.filters(request), params.flag(request, "status")
    return json_answer(_services(request).list(filters, status=status))


async def list_tasks(request: Request) -> Response:
    return json_answer(_tasks(request).list(params.filters(request)))


async def inspect_task(request: Request) -> Response:
    return json_answer(_tasks(request).inspect(request.path_params["id"]))


def _query(request: Request) -> Query:
    tail = params.text(request, "tail")
    if tail in ("", "all"):
        lines = -1
    elif tail.isascii() and tail.isdigit():
        lines = int(tail)
    else:
        raise invalid('tail value must be a positive integer or "all"')
    return Query(
        stdout=params.flag(request, "stdout"),
        stderr=params.flag(request, "stderr"),
        follow=params.flag(request, "follow"),
        since_ns=params.timestamp(params.text(request, "since")),
        tail=lines,
        timestamps=params.flag(request, "timestamps"),
        details=params.flag(request, "details"),
    )


def _stream(request: Request, chunks: AsyncIterator[bytes], *, framed: bool) -> Response:
    kind = MULTIPLEXED if framed and params.has(request, changes.MULTIPLEXED_TYPE) else RAW
    return byte_stream(chunks, media_type=kind, early=True, name="logs")


async def logs(request: Request) -> Response:
    chunks, framed = manager_of(request).objects.logs.of_service(request.path_params["id"], _query(request))
    return _stream(request, chunks, framed=framed)


async def task_logs(request: Request) -> Response:
    chunks, framed = manager_of(request).objects.logs.of_task(request.path_params["id"], _query(request))
    return _stream(request, chunks, framed=framed)
