"""``POST /build`` and related endpoints: thin handlers over ``server/builder``."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api_models.versions import Since
from engine.common import jsontext
from engine.common.errors import WharfError, invalid
from server.builder.facade import BuilderFacade
from server.builder.options import BuildKitOptions, ClassicOptions, Limits
from server.http import params
from server.http.answers import json_answer, no_content
from server.http.routing import ApiRoute
from server.http.streams import json_stream
from server.messages import Progress
from server.registry.oci import parse_platform
from server.registry.reference import parse


def _facade(request: Request) -> BuilderFacade:
    facade: BuilderFacade = request.state.services.build
    return facade


async def build(request: Request) -> Response:
    options = read_options(request)
    builds = await _facade(request).builds()
    progress = Progress()
    if isinstance(options, BuildKitOptions):
        work = builds.post_build(options, _body(request), progress)
    else:
        work = builds.classic(options, _body(request), progress)
    return json_stream(progress.run(work), name="build")


async def prune(request: Request) -> Response:
    await _facade(request).builds()  # also without any build, filters are checked
    removed = [
        record
        for builds in await _facade(request).visible()
        for record in await builds.prune_by_filters(
            params.filters(request),
            everything=params.flag(request, "all"),
            keep_bytes=_bytes(request, "reserved-space") or _bytes(request, "keep-storage"),
            most_bytes=_bytes(request, "max-used-space"),
            free_bytes=_bytes(request, "min-free-space"),
        )
    ]
    ids = [record.id for record in removed]
    return json_answer({"CachesDeleted": ids or None, "SpaceReclaimed": sum(record.size for record in removed)})


def _bytes(request: Request, name: str) -> int:
    try:
        return params.number(request, name) or 0
    except WharfError:
        value = params.text(request, name)
        reason = f'strconv.Atoi: parsing "{value}": invalid syntax'
        raise invalid(f"{name} is in bytes and expects an integer, got {value}: {reason}") from None


async def cancel(request: Request) -> Response:
    build_id = params.text(request, "id")
    if not build_id:
        raise invalid("build ID not specified")
    opened = _facade(request).loaded
    if opened is not None:
        opened.cancel(build_id)
    return no_content(200)


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        yield piece


def read_options(request: Request) -> ClassicOptions | BuildKitOptions:
    """Parse the query of a build, classic or BuildKit; errors have dockerd's words and order.

    :raises WharfError: INVALID_ARGUMENT.
    """
    if "securityopt" in request.query_params:
        raise invalid("security options are not supported on linux")
    forced = params.flag(request, "forcerm")
    removed = forced or params.text(request, "rm") == "" or params.flag(request, "rm")
    platform = params.text(request, "platform")
    if platform:
        parse_platform(platform)
    version = params.text(request, "version")
    outputs = _outputs(request)
    if outputs and version != "2":
        raise invalid("multiple outputs currently unsupported by the classic builder")
    shm_size = params.number(request, "shmsize") or 0
    isolation = params.text(request, "isolation")
    if isolation.lower() not in ("", "default"):
        raise invalid(f"unsupported isolation: {jsontext.dumps(isolation).decode()}")
    ulimits = _json(request, "ulimits", "error reading ulimit settings", list)
    build_args = _json(request, "buildargs", "error reading build args", dict)
    labels = _json(request, "labels", "error reading labels", dict)
    cache_from = _json(request, "cachefrom", "error reading cache-from", list)
    if version not in ("", "1", "2"):
        raise invalid(f"invalid version {jsontext.dumps(version).decode()}")
    options = ClassicOptions(
        dockerfile=params.text(request, "dockerfile"),
        remote=params.text(request, "remote"),
        tags=tuple(dict.fromkeys(_tag(tag) for tag in params.texts(request, "t") if tag)),
        quiet=params.flag(request, "q"),
        no_cache=params.flag(request, "nocache"),
        pull=params.flag(request, "pull"),
        remove=removed,
        force_remove=forced,
        build_args=_strings(build_args, "build args", optional=True),
        labels={key: value or "" for key, value in _strings(labels, "labels").items()},
        cache_from=tuple(str(name) for name in cache_from),
        target=params.text(request, "target"),
        network_mode=params.text(request, "networkmode") or "default",
        platform=platform,
        limits=Limits(
            memory=_lenient_int(request, "memory"),
            memory_swap=_lenient_int(request, "memswap"),
            cpu_shares=_lenient_int(request, "cpushares"),
            cpu_period=_lenient_int(request, "cpuperiod"),
            cpu_quota=_lenient_int(request, "cpuquota"),
            cpuset_cpus=params.text(request, "cpusetcpus"),
            cpuset_mems=params.text(request, "cpusetmems"),
            cgroup_parent=params.text(request, "cgroupparent"),
            shm_size=shm_size,
            ulimits=tuple(_ulimit(item) for item in ulimits),
            extra_hosts=_extra_hosts(request),
        ),
        credentials=_credentials(request),
        build_id=params.text(request, "buildid"),
        squash=params.flag(request, "squash"),
    )
    return BuildKitOptions(options, params.text(request, "session"), outputs) if version == "2" else options


def _outputs(request: Request) -> tuple[tuple[str, dict[str, str]], ...]:
    """Parse ``outputs``: a list of ``{"Type", "Attrs"}``."""
    found = _json(request, "outputs", "invalid outputs specified", list)
    if not all(isinstance(item, dict) for item in found):
        raise invalid("invalid outputs specified: json: cannot unmarshal into Go value of type ImageBuildOutput")
    return tuple(
        (str(item.get("Type", "")), {key: value or "" for key, value in _strings(attributes, "outputs").items()})
        for item in found
        for attributes in [item.get("Attrs") or {}]
    )


def _lenient_int(request: Request, name: str) -> int:
    """Parse a number; an invalid one counts as 0, as in dockerd for the limits of a build."""
    try:
        return params.number(request, name) or 0
    except WharfError:
        return 0


def _json(request: Request, name: str, what: str, kind: type) -> Any:
    value = params.text(request, name)
    if not value:
        return kind()
    try:
        document = jsontext.loads(value)
    except ValueError:
        found = jsontext.dumps(value.strip()[:1]).decode().strip('"')
        raise invalid(f"{what}: invalid character '{found}' looking for beginning of value") from None
    if document is None:
        return kind()
    if not isinstance(document, kind):
        raise invalid(f"{what}: json: cannot unmarshal {_go_kind(document)} into Go value")
    return document


def _go_kind(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "bool"}
    return names.get(type(value), "number")


def _strings(document: Mapping[str, Any], what: str, *, optional: bool = False) -> dict[str, str | None]:
    for value in document.values():
        if not isinstance(value, str) and not (optional and value is None):
            raise invalid(
                f"error reading {what}: json: cannot unmarshal {_go_kind(value)} into Go value of type string"
            )
    return dict(document)


def _ulimit(item: Any) -> tuple[str, int, int]:
    if not isinstance(item, dict) or not isinstance(item.get("Name"), str):
        raise invalid(
            f"error reading ulimit settings: json: cannot unmarshal {_go_kind(item)} into Go value of type Ulimit"
        )
    soft, hard = item.get("Soft", 0), item.get("Hard", 0)
    if not isinstance(soft, int) or not isinstance(hard, int):
        raise invalid("error reading ulimit settings: json: cannot unmarshal into Go struct field Ulimit of type int64")
    return item["Name"], soft, hard


def _tag(text: str) -> str:
    reference = parse(text)
    if reference.digest:
        raise invalid("build tag cannot contain a digest")
    return reference.tagged().familiar


def _extra_hosts(request: Request) -> tuple[str, ...]:
    """Parse repeated values; docker-py sends a single one, joined by commas."""
    found: list[str] = []
    for value in params.texts(request, "extrahosts"):
        found += [item.strip() for item in value.split(",") if item.strip()]
    return tuple(found)


def _credentials(request: Request) -> Mapping[str, Mapping[str, Any]]:
    """Parse ``X-Registry-Config``: registry → credentials. An invalid header counts as absent, as in dockerd."""
    header = request.headers.get("x-registry-config", "")
    if not header:
        return {}
    try:
        document = params.decode_auth(header, "x-registry-config")
    except WharfError:
        return {}
    if not isinstance(document, dict):
        return {}
    return {str(key): value for key, value in document.items() if isinstance(value, dict)}


routes: Sequence[ApiRoute] = (
    ApiRoute(
        "POST", "/build", build, stores=True, waits=True, query={"platform": Since((1, 32)), "outputs": Since((1, 40))}
    ),
    ApiRoute("POST", "/build/prune", prune, since="1.31", waits=True),
    ApiRoute("POST", "/build/cancel", cancel),
)
