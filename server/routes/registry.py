"""Requests to registries: login, search, distribution."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api_models.system import AuthConfig
from engine.common.errors import WharfError, invalid
from server.http import params
from server.http.answers import json_answer
from server.http.routing import ApiRoute, Audience
from server.images.service import Images
from server.registry.auth import from_document, from_header
from server.registry.reference import parse


def _images(request: Request) -> Images:
    images: Images = request.state.services.images
    return images


async def auth(request: Request) -> Response:
    body = await params.body(request, AuthConfig)
    token = await _images(request).transfer.login(from_document(body.wire()))
    return json_answer({"Status": "Login Succeeded", "IdentityToken": token})


async def distribution(request: Request) -> Response:
    name: str = request.path_params["name"]
    reference = parse(name).tagged()
    credentials = from_header(request.headers.get("x-registry-auth", ""))
    return json_answer(await _images(request).transfer.distribution(reference, credentials))


async def search(request: Request) -> Response:
    limit = params.number(request, "limit") or 0
    if limit < 0 or limit > 100:
        raise invalid(f"limit {limit} is outside the range of [1, 100]")
    filters = params.filters(request, ("is-automated", "is-official", "stars"))
    term = params.text(request, "term")
    if not term:
        raise invalid("invalid search term: it is empty")
    official = filters.flag("is-official", default=False) if "is-official" in filters else None
    automated = filters.flag("is-automated", default=False) if "is-automated" in filters else None
    stars = 0
    for value in filters.get("stars"):
        try:
            stars = max(stars, params.parse_int(value))
        except WharfError:
            sentence = f"invalid filter 'stars={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"
            raise invalid(sentence) from None
    credentials = from_header(request.headers.get("x-registry-auth", ""))
    found = await _images(request).transfer.search(term, limit, credentials)

    def matches(row: dict[str, Any]) -> bool:
        # Docker Hub's automated builds are gone, so no repository is automated.
        return (
            (official is None or bool(row.get("is_official")) == official)
            and not automated
            and int(row.get("star_count") or 0) >= stars
        )

    return json_answer([{**row, "is_automated": False} for row in found if matches(row)])


routes: Sequence[ApiRoute] = (
    ApiRoute("POST", "/auth", auth, waits=True, audience=Audience.ALL),
    ApiRoute("GET", "/images/search", search, waits=True, audience=Audience.ALL),
    ApiRoute("GET", "/distribution/{name:path}/json", distribution, since="1.30", waits=True, audience=Audience.ALL),
)
