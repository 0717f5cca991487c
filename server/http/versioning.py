"""The API version of a request, and the headers that announce the supported ones."""

from api_models.supported import MAXIMUM, MINIMUM, Version, parse_version, spelled
from engine.common.errors import invalid
from server.http.routing import ApiRoute
from server.version import SERVER_VERSION


def common_headers(*, experimental: bool) -> list[tuple[bytes, bytes]]:
    """The headers of every response."""
    return [
        (b"Api-Version", spelled(MAXIMUM).encode()),
        (b"Docker-Experimental", b"true" if experimental else b"false"),
        (b"Ostype", b"linux"),
        (b"Server", f"Docker/{SERVER_VERSION} (linux)".encode()),
    ]


def negotiated(route: ApiRoute, requested: str | None, minimum: Version = MINIMUM) -> Version:
    """The version of a request: the one in its path, or the newest on an unversioned path.

    :raises WharfError: INVALID_ARGUMENT: too new, too old, or a route that this version lacks.
    """
    if requested is None:
        version: tuple[int, ...] = MAXIMUM
    else:
        version = parse_version(requested)
        if version > MAXIMUM and version[:2] != MAXIMUM:
            raise invalid(f"client version {requested} is too new. Maximum supported API version is {spelled(MAXIMUM)}")
        if version < minimum:
            raise invalid(
                f"client version {requested} is too old. Minimum supported API version is {spelled(minimum)},"
                " please upgrade your client to a newer version"
            )
    known: Version = (version[0], version[1] if len(version) > 1 else 0)
    if known < route.first:
        raise invalid(f"{route.method} {route.path} requires minimum API version {route.since}")
    if route.last is not None and known > route.last:
        raise invalid(f"{route.method} {route.path} was removed after API version {route.until}")
    return known
