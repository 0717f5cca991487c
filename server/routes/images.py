"""/images and /commit: thin handlers over ``server/images``."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from api_models import changes
from api_models.container import ContainerConfig
from api_models.image import ImageInspect, ImageSummary
from api_models.versions import Repeatable, Since
from engine.common import jsontext
from engine.common.errors import Kind, WharfError, invalid
from server.containers.commit import commit as commit_container
from server.containers.service import Containers
from server.http import params
from server.http.answers import json_answer, no_content
from server.http.bodies import pieces
from server.http.routing import ApiRoute
from server.http.streams import byte_stream, json_stream
from server.images.fetch import open_url
from server.images.service import Images
from server.registry.auth import ANONYMOUS, Credentials, from_document, from_header
from server.registry.oci import format_platform, parse_platform, platform_from_json
from server.registry.reference import Reference, is_digest, parse


def _images(request: Request) -> Images:
    images: Images = request.state.services.images
    return images


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    return name


def _platform(request: Request) -> str | None:
    """Check ``platform`` and return it as os/arch/variant; of several, the first."""
    return next(iter(_platforms(request)), None)


def _platforms(request: Request) -> list[str]:
    """Check each ``platform``: text like linux/arm64, or (newer clients) JSON. Return them as os/arch/variant."""
    given = (text for text in params.texts(request, "platform") if text)
    return [
        format_platform(platform_from_json(text) if text.startswith("{") else parse_platform(text)) for text in given
    ]


def _repo_tag(repo: str, tag: str) -> Reference | None:
    """Combine ``repo`` and ``tag`` of a query to a reference; ``None`` without a repo."""
    if not repo:
        return None
    reference = parse(repo)
    if reference.digest:
        raise invalid("cannot import digest reference")
    if tag:
        return reference.trimmed().with_tag(tag)
    return reference.tagged()


async def _credentials(request: Request) -> Credentials:
    return (
        from_header(request.headers.get("x-registry-auth", "")) if "x-registry-auth" in request.headers else ANONYMOUS
    )


async def list_images(request: Request) -> Response:
    manifests, identity = params.flag(request, "manifests"), params.flag(request, "identity")
    if identity and not manifests:
        raise invalid("conflicting options: identity requires manifests=1")
    rows = await _images(request).list.summaries(
        params.filters(request),
        show_all=params.flag(request, "all"),
        shared_size=params.flag(request, "shared-size"),
        manifests=manifests,
        identity=identity,
    )
    return json_answer([params.shaped(request, ImageSummary, row) for row in rows])


async def inspect(request: Request) -> Response:
    document = await _images(request).local.inspect(
        _name(request),
        platform=_platform(request),
        manifests=params.flag(request, "manifests"),
        identity=params.has(request, changes.IMAGE_IDENTITY),
    )
    return json_answer(params.shaped(request, ImageInspect, document))


async def attestations(request: Request) -> Response:
    # The parameter is repeatable for a later version; now, it has one value.
    if len(params.texts(request, "platform")) > 1:
        raise invalid("only one platform value is currently supported")
    found = await _images(request).attestations(
        _name(request),
        platform=_platform(request),
        types=[text for each in params.texts(request, "type") if (text := each.strip())],
        statements=params.flag(request, "statement"),
    )
    return json_answer(found)


async def history(request: Request) -> Response:
    return json_answer(await _images(request).local.history(_name(request), platform=_platform(request)))


async def tag(request: Request) -> Response:
    repo = params.text(request, "repo")
    if not repo:
        raise invalid("invalid reference format")
    reference = parse(repo).trimmed()
    if parse(repo).digest:
        raise invalid("refusing to create a tag with a digest reference")
    new_tag = params.text(request, "tag") or parse(repo).tag
    await _images(request).local.tag(_name(request), reference.with_tag(new_tag) if new_tag else reference.tagged())
    return no_content(201)


async def remove(request: Request) -> Response:
    name = _name(request)
    if not name.strip():
        raise invalid("image name cannot be blank")
    removal, force = _images(request).removal, params.flag(request, "force")
    if texts := params.texts(request, "platforms"):
        return json_answer(
            await removal.remove_platforms(name, [platform_from_json(text) for text in texts], force=force)
        )
    return json_answer(await removal.remove(name, force=force, prune=not params.flag(request, "noprune")))


async def prune(request: Request) -> Response:
    return json_answer(await _images(request).removal.prune(params.filters(request)))


async def create(request: Request) -> Response:
    """``docker pull`` (fromImage) and ``docker import`` (fromSrc)."""
    image = params.text(request, "fromImage")
    tag = params.text(request, "tag")
    platform = _platform(request)
    if image:
        reference = parse(image.removesuffix(":"))
        if tag:
            reference = reference.trimmed()
            reference = reference.with_digest(tag) if is_digest(tag) else reference.with_tag(tag)
        if reference.familiar_name == "scratch":
            raise WharfError(Kind.PERMISSION_DENIED, "'scratch' is a reserved name")
        messages = _images(request).pull(reference, credentials=await _credentials(request), platform=platform)
        return json_stream(messages, name="pull")
    source = params.text(request, "fromSrc")
    reference_or_none = _repo_tag(params.text(request, "repo"), tag)
    message = params.text(request, "message") or f"Imported from {source}"
    body, report = (pieces(request), None) if source == "-" else await open_url(source)
    return json_stream(
        _images(request).import_(
            body,
            reference=reference_or_none,
            message=message,
            changes=params.texts(request, "changes"),
            platform=platform,
            report=report,
        ),
        name="import",
    )


async def push(request: Request) -> Response:
    if "x-registry-auth" in request.headers:
        credentials = await _credentials(request)
    else:
        data = await params.raw_body(request)
        try:
            credentials = from_document(jsontext.loads(data or b"null"))
        except ValueError:
            raise invalid("bad parameters and missing X-Registry-Auth: invalid X-Registry-Auth header") from None
    reference = parse(_name(request))
    if new_tag := params.text(request, "tag"):
        reference = reference.trimmed().with_tag(new_tag)
    messages = _images(request).push(reference, credentials=credentials, platform=_platform(request))
    return json_stream(messages, name="push")


async def load(request: Request) -> Response:
    # Always a stream: errors of the archive are reported in it, with status 200. The response head is sent with the
    # first message. Some clients read no further: they get none before the first image, unless they ask for progress.
    quiet = params.flag(request, "quiet", default=True)
    messages = _images(request).load(pieces(request), platforms=_platforms(request), quiet=quiet)
    return json_stream(messages, errors_in_stream=True, name="load")


async def save_one(request: Request) -> Response:
    return await _save(request, [_name(request)])


async def save(request: Request) -> Response:
    return await _save(request, [name for text in params.texts(request, "names") for name in text.split(",") if name])


async def _save(request: Request, names: Sequence[str]) -> Response:
    archive = await _images(request).save(names, platforms=_platforms(request))
    return byte_stream(archive, media_type="application/x-tar", name="save")


async def commit(request: Request) -> Response:
    params.check_json(request)
    data = await params.raw_body(request)
    body = None
    if data.strip() not in (b"", b"null"):
        body = await params.from_bytes(request, data, ContainerConfig)
    containers: Containers = request.state.services.containers
    image_id = await commit_container(
        _images(request),
        containers,
        params.text(request, "container"),
        body=body,
        changes=params.texts(request, "changes"),
        author=params.text(request, "author"),
        comment=params.text(request, "comment"),
        reference=_repo_tag(params.text(request, "repo"), params.text(request, "tag")),
        pause=params.text(request, "pause") == "" or params.flag(request, "pause"),
    )
    return json_answer({"Id": image_id}, 201)


#: ``platform`` of archives.
_SEVERAL = Repeatable((1, 48), name="platform", several=(1, 52))

routes: Sequence[ApiRoute] = (
    ApiRoute(
        "GET",
        "/images/json",
        list_images,
        query={"shared-size": Since((1, 42)), "manifests": Since((1, 47)), "identity": Since((1, 54))},
        reads=True,
    ),
    ApiRoute("GET", "/images/get", save, waits=True, query={"platform": _SEVERAL}),
    ApiRoute("POST", "/images/create", create, stores=True, waits=True, query={"platform": Since((1, 32))}),
    ApiRoute("POST", "/images/load", load, stores=True, waits=True, query={"platform": _SEVERAL}),
    ApiRoute("POST", "/images/prune", prune, since="1.25"),
    ApiRoute("GET", "/images/{name:path}/get", save_one, waits=True, query={"platform": _SEVERAL}),
    ApiRoute(
        "GET",
        "/images/{name:path}/json",
        inspect,
        query={"platform": Since((1, 49)), "manifests": Since((1, 48))},
        reads=True,
    ),
    ApiRoute("GET", "/images/{name:path}/attestations", attestations, since="1.55", reads=True),
    ApiRoute("GET", "/images/{name:path}/history", history, query={"platform": Since((1, 48))}, reads=True),
    ApiRoute("POST", "/images/{name:path}/push", push, waits=True, query={"platform": Since((1, 46))}),
    ApiRoute("POST", "/images/{name:path}/tag", tag),
    ApiRoute("DELETE", "/images/{name:path}", remove, query={"platforms": Since((1, 50))}),
    ApiRoute("POST", "/commit", commit, stores=True),
)
